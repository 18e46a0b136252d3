"""Evaluation on data sets that publish masks: label-transfer accuracy and IoU, the protocol of WeakAlign and SFNet (Caltech-101).

The target image is covered with a lattice of points; the method carries them to the source, and the source's mask is sampled
there and compared with the target's. So the roles are turned round: what a matcher calls the source is the target here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semalign3d_core.datasets.records import Dataset, PairRecord
from semalign3d_core.evaluation.keypoints import uncertainty
from semalign3d_core.evaluation.keypoints.pairs import EvaluationPair
from semalign3d_core.evaluation.keypoints.results import common_results, csv_text
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.metrics.bootstrap import interval, share
from semalign3d_core.metrics.mask_transfer import (
    MaskTransferAccumulator,
    intersection_over_union,
    label_transfer_accuracy,
    lattice,
    sampling_grid,
    warp_mask,
)
from semalign3d_core.runtime.files import write_json, write_text

CELLS = 40  # of the lattice per side
METRICS = {"lt_acc": "label-transfer accuracy", "iou": "IoU"}
PROTOCOL = {
    "transfer": f"a lattice of {CELLS} x {CELLS} points of the target is carried to the source, bilinear in between; the source's mask is "
    "sampled there, binarised at > 0.5 and compared over the whole target image",
    "points": "predictions hold the places of the lattice in the source, row-major from corner to corner of the target",
    "scores": "shares in [0, 1], as published",
    "aggregates": {
        "mean_of_categories": "plain mean over categories of the mean over their pairs",
        "pair_weighted": "mean over all pairs",
    },
    "skipped_pairs": "count with 0",
    "undefined_iou": "pairs whose masks are both empty; left out of the IoU, as published",
    "annotation": "methods see no annotation of either image",
}


@dataclass(frozen=True)
class MaskScore:
    """A pair and its scores. points: as predicted, None if skipped;  problem: why it was skipped, "" if it was scored."""

    pair: EvaluationPair
    points: np.ndarray | None
    lt_acc: float
    iou: float
    problem: str = ""


def mask_pair(dataset: Dataset, config: EvaluationConfig, record: PairRecord, category: str) -> EvaluationPair:
    """The :class:`EvaluationPair` of a :class:`PairRecord`: its points are the lattice of the target, which stands as its source."""
    points = lattice(record.target.height, record.target.width, CELLS)
    return EvaluationPair(
        name=record.name,
        category=category,
        labels=tuple(range(len(points))),
        source_points=points,
        partners=np.full(len(points), -1),
        record=PairRecord(record.name, record.target, record.source),
    )


def score(evaluation: Evaluation, pair: EvaluationPair, points: np.ndarray) -> MaskScore:
    """The :class:`MaskScore` of predicted points (CELLS * CELLS, 2)."""
    transferred, truth = transferred_mask(evaluation.dataset, pair, points)
    return MaskScore(pair, points, label_transfer_accuracy(transferred, truth), intersection_over_union(transferred, truth))


def skipped(evaluation: Evaluation, pair: EvaluationPair, problem: str) -> MaskScore:
    """The :class:`MaskScore` of a pair that could not be evaluated."""
    return MaskScore(pair, None, 0.0, 0.0, problem)


def transferred_mask(dataset: Any, pair: EvaluationPair, points: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """(mask of the source in the target (H, W) float, mask of the target (H, W) bool)."""
    assert pair.record is not None
    target, source = pair.record.source, pair.record.target
    grid = sampling_grid(points, (target.height, target.width), (source.height, source.width))
    return warp_mask(dataset.mask(source), grid), dataset.mask(target)


def result_dictionary(evaluation: Evaluation) -> dict[str, Any]:
    """The dictionary of ``results.json``."""
    accumulators = {category: MaskTransferAccumulator() for category in evaluation.categories}
    for entry in evaluation.scores:
        accumulators[entry.pair.category].add_scores(entry.lt_acc, entry.iou)
    skips = [entry for entry in evaluation.scores if entry.problem]
    per_category: dict[str, dict[str, Any]] = {category: accumulator.summary() for category, accumulator in accumulators.items()}
    for category, entry in per_category.items():
        entry["skipped"] = sum(s.pair.category == category for s in skips)
    over_all: dict[str, Any] = {
        count: sum(entry[count] for entry in per_category.values()) for count in ("pairs", "skipped", "undefined_iou")
    }
    for metric in METRICS:
        values = np.array([getattr(entry, metric) for entry in evaluation.scores])
        known = [entry[metric] for entry in per_category.values() if entry[metric] is not None]
        over_all[metric] = {"mean_of_categories": _mean(known), "pair_weighted": _mean(values[np.isfinite(values)])}
    _add_intervals(per_category, over_all, evaluation.scores)
    return {
        **common_results(evaluation, PROTOCOL | uncertainty.PROTOCOL),
        "per_category": per_category,
        "all": over_all,
        "skipped": [{"pair": entry.pair.name, "reason": entry.problem} for entry in skips],
    }


def _add_intervals(per_category, over_all, scores):
    """Adds ``intervals`` of both metrics, shares as the scores are."""
    bootstrap = uncertainty.image_bootstrap(scores)
    for metric in METRICS:
        values = np.array([[getattr(entry, metric)] for entry in scores], np.float64)
        known = np.isfinite(values)
        parts, counts = bootstrap.sums(np.where(known, values, 0)), bootstrap.sums(known.astype(np.float64))
        draws = {name: share(parts[name], counts[name])[:, 0] / 100 for name in parts}
        for name, found in draws.items():
            per_category[name].setdefault("intervals", {})[metric] = interval(found)
        over_all.setdefault("intervals", {})[metric] = {
            "mean_of_categories": interval(np.mean(list(draws.values()), axis=0)),
            "pair_weighted": interval(share(np.sum(list(parts.values()), 0), np.sum(list(counts.values()), 0))[:, 0] / 100),
        }


def _mean(values):
    return float(np.mean(values)) if len(values) else None


def write_tables(evaluation: Evaluation) -> None:
    """Writes results.csv, pairs.csv and results.json."""
    folder, results, rows = evaluation.config.output, evaluation.results, []
    for category, entry in results["per_category"].items():
        rows += [(category, metric, "mean", entry[metric], entry["pairs"], entry["skipped"]) for metric in METRICS]
    total = results["all"]
    for metric in METRICS:
        rows += [("all", metric, name, value, total["pairs"], total["skipped"]) for name, value in total[metric].items()]
    write_text(folder / "results.csv", csv_text(("category", "metric", "aggregate", "share", "pairs", "skipped"), rows))
    pairs = [(entry.pair.name, entry.pair.category, entry.lt_acc, entry.iou, entry.problem) for entry in evaluation.scores]
    write_text(folder / "pairs.csv", csv_text(("pair", "category", *METRICS, "skipped"), pairs))
    write_json(folder / "results.json", results)


def terminal_table(results: dict[str, Any]) -> str:
    """The table that a user sees."""
    lines = ["", f"{results['method']}: label-transfer accuracy and IoU of transferred masks"]
    lines.append(f"{'category':24s} {'pairs':>6s} {'skipped':>7s}" + "".join(f"{metric:>9s}" for metric in METRICS))
    total = results["all"]
    places = list(results["per_category"].items())
    for name in ("mean_of_categories", "pair_weighted"):
        scores = {metric: total[metric][name] for metric in METRICS}
        places.append((name.replace("_", " "), scores | {"pairs": total["pairs"], "skipped": total["skipped"]}))
    for name, entry in places:
        cells = "".join(f"{'-':>9s}" if entry[metric] is None else f"{entry[metric]:9.3f}" for metric in METRICS)
        lines.append(f"{name:24s} {entry['pairs']:6d} {entry['skipped']:7d}{cells}")
    if total["skipped"]:
        lines.append(f'{total["skipped"]} pairs skipped (see "skipped" in results.json); they count with 0 above')
    return "\n".join(lines)
