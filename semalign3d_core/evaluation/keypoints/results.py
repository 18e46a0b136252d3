"""The files of an evaluation: results.json, predictions.jsonl, results.csv, pairs.csv; and the table on the terminal."""

import csv
import dataclasses
import io
import json
import platform
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.evaluation.keypoints import uncertainty
from semalign3d_core.evaluation.keypoints.kap import KAP_PROTOCOL, SCORES, add_kap, kap_keys
from semalign3d_core.evaluation.keypoints.pairs import outside_count
from semalign3d_core.evaluation.keypoints.scoring import breakdowns, summarise
from semalign3d_core.evaluation.keypoints.uncertainty import add_breakdown_intervals, add_intervals
from semalign3d_core.evaluation.run.evaluation import Evaluation
from semalign3d_core.evaluation.run.hardware import hardware, memory
from semalign3d_core.metrics.aggregate import alpha_key
from semalign3d_core.runtime.code_hash import code_hash
from semalign3d_core.runtime.files import write_json, write_text
from semalign3d_core.runtime.version import __version__

REFERENCE_LENGTHS = {"bbox": "longer side of the target's object box", "image": "longer side of the target image"}
SCORE_COLUMNS = ("category", "metric", "alpha", "aggregate", "percent", "low", "high", "pairs", "skipped")
PROTOCOL = {
    "correct": "distance < alpha x reference length (strict); a point that is missing or not finite is wrong",
    "aggregates": {
        "per_image": "mean over pairs of the share of right keypoints of a pair",
        "per_point": "share of right keypoints, all pairs pooled",
        "mean_of_categories": "plain mean over categories of per_image",
        "pair_weighted": "mean of per_image weighted by pairs",
        "mean_of_categories_per_point": "plain mean over categories of per_point",
    },
    "geometry_aware": "pck of keypoints that a look-alike visible in the target can be taken for (of a skipped pair: all, wrong)",
    "pck_dagger": "right, and no other common keypoint of the target is nearer to the prediction; inclusive: with <= in place of <",
    "skipped_pairs": "count as wrong with all their keypoints in pck and pck_dagger; pck_scored_only leaves them out",
    "pairs_without_common_keypoints": "have no score for any method: in no mean, counted as skipped",
    "annotation": "methods see no annotation of an image except the keypoints of the source that they transfer",
    "keypoints_outside_the_image": "scored as annotated up to 1 % of the image's longer side, beyond that bad input",
}

# told_keypoints of a method -> what it knows of the points that it carries over
QUERIES: dict[bool | str, str] = {
    False: "points anywhere on the object: the method is not told that they are keypoints",
    True: "the method is told that the points of a pair are different annotated keypoints of the category; compare with such methods only",
    "unknown": "predictions of a file: what the method knew is not known here",
}


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration as JSON knows it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(config).items()}


def result_dictionary(evaluation: Evaluation) -> dict[str, Any]:
    """The dictionary of ``results.json``."""
    config, scores = evaluation.config, evaluation.scores
    summary, kap = summarise(scores, config.alpha), {}
    add_intervals(summary, scores, config.alpha)
    if config.kap != "none":
        add_kap(summary, [score.pair for score in scores], evaluation.kap, config)
        kap = {"kap": {"variant": config.kap, "scores": SCORES[evaluation.method.kap_scores], **KAP_PROTOCOL}}
    parts = breakdowns(scores, config.alpha)
    add_breakdown_intervals(parts, scores, config.alpha)
    queries = {"queries": QUERIES["unknown" if config.predictions else evaluation.method.told_keypoints]}
    reference = {"reference_length": REFERENCE_LENGTHS[evaluation.threshold], "threshold": evaluation.threshold}
    return {
        **common_results(evaluation, {**reference, **PROTOCOL, **uncertainty.PROTOCOL, **queries, **kap}),
        "per_category": summary["per_category"],
        "all": summary["all"],
        "breakdowns": parts,
        "skipped": [{"pair": s.pair.name, "reason": _why_skipped(s)} for s in scores if _why_skipped(s)],
        "keypoints_outside_the_image": sum(outside_count(s.pair) for s in scores),
    }


def common_results(evaluation: Evaluation, protocol: dict[str, Any]) -> dict[str, Any]:
    """What the results of every kind of evaluation hold beside the scores."""
    config = evaluation.config
    return {
        "method": config.name or (f"predictions:{config.predictions.name}" if config.predictions else config.method),
        "config": evaluation.resolved,
        "versions": versions(),
        "protocol": {"on_bad_input": config.on_bad_input, **protocol},
        "seeds": {"seed": config.seed},
        "hashes": {**_data_hashes(evaluation), **evaluation.hashes},
        "points_not_finite": sum(int((~np.isfinite(s.points)).any(1).sum()) for s in evaluation.scores if s.points is not None),
        "extra_predictions": evaluation.extra_predictions,
        "cache": dict(sorted(evaluation.cache.items())),
        "hardware": hardware(config.workers, evaluation.resolved["device"]),
        "latency": evaluation.latency,
        "memory": memory(evaluation.processes),
        "seconds": {stage: round(seconds, 3) for stage, seconds in evaluation.seconds.items()},
    }


def versions() -> dict[str, str]:
    """Versions of whatever the numbers depend on."""
    packages = {}
    for name in ("torch", "numpy", "scipy", "opencv-python-headless", "pillow", "safetensors", "transformers", "diffusers"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"semalign3d": __version__, "code": code_hash(), "python": platform.python_version(), **packages}


def _data_hashes(evaluation):
    """Hashes of the annotation that was scored and of the images as they were seen."""
    annotation = sha256()
    for score in evaluation.scores:
        pair = score.pair
        annotation.update(json.dumps([pair.name, list(pair.labels), pair.unit]).encode())
        annotation.update(pair.source_points.tobytes() + pair.target_points.tobytes())
    hashes = {"annotation": annotation.hexdigest()}
    if evaluation.digests:
        hashes["images"] = sha256(json.dumps(sorted(evaluation.digests.items())).encode()).hexdigest()
    return hashes


def write_tables(evaluation: Evaluation) -> None:
    """Writes results.csv, pairs.csv and results.json."""
    folder, scores = evaluation.config.output, evaluation.scores
    write_text(folder / "results.csv", csv_text(SCORE_COLUMNS, _score_rows(evaluation.results)))
    write_text(folder / "pairs.csv", csv_text(*_pair_table(scores, evaluation.config.alpha)))
    write_json(folder / "results.json", evaluation.results)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV of a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _score_rows(results):
    places = [*results["per_category"].items(), ("all", results["all"])]
    for category, entry in places:
        for metric in ("pck", "pck_dagger", "pck_dagger_inclusive", "pck_scored_only"):
            for alpha, values in (entry[metric] or {}).items():
                for aggregate, percent in values.items():
                    yield (
                        category,
                        metric,
                        alpha,
                        aggregate,
                        percent,
                        *_ends(entry, metric, alpha, aggregate),
                        entry["pairs"],
                        entry["skipped"],
                    )
        for variant, key in kap_keys(results["config"]["kap"]).items():
            for alpha, values in entry[key].items():
                for aggregate, percent in values.items():
                    counts = entry["kap_counts"]
                    ends = _ends(entry, key, alpha, aggregate)
                    yield category, f"kap_{variant}", alpha, aggregate, percent, *ends, counts["pairs"], counts["without_keypoints"]


def _ends(entry, metric, alpha, aggregate):
    """(low, high) of an interval; (None, None) where there is none."""
    found = entry["intervals"].get(metric) or entry.get(f"{metric}_intervals", {})
    return found.get(alpha, {}).get(aggregate) or (None, None)


def _pair_table(scores, alphas):
    header = ["pair", "category", "keypoints", *(f"right@{alpha_key(a)}" for a in alphas), "skipped"]
    rows = [(s.pair.name, s.pair.category, len(s.correct), *s.correct.sum(0).tolist(), _why_skipped(s)) for s in scores]
    return header, rows


def _why_skipped(score):
    return score.problem or ("no common keypoints" if score.unscorable else "")


def terminal_table(results: dict[str, Any]) -> str:
    """The table that a user sees: PCK per image and per point, per category and over all."""
    alphas = list(results["all"]["pck"])
    lines = ["", f"{results['method']}: PCK in percent, per image / per point (reference: {results['protocol']['reference_length']})"]
    lines.append(f"{'category':20s} {'pairs':>6s} {'skipped':>7s} " + " ".join(f"{'@' + a:>15s}" for a in alphas))
    for category, entry in results["per_category"].items():
        cells = (_pair_of(entry["pck"][a]["per_image"], entry["pck"][a]["per_point"]) for a in alphas)
        lines.append(f"{category:20s} {entry['pairs']:6d} {entry['skipped']:7d} " + " ".join(cells))
    total = results["all"]
    for label, image, point in (
        ("mean of categories", "mean_of_categories", "mean_of_categories_per_point"),
        ("weighted by pairs", "pair_weighted", "per_point"),
    ):
        cells = (_pair_of(total["pck"][a][image], total["pck"][a][point]) for a in alphas)
        lines.append(f"{label:20s} {total['pairs']:6d} {total['skipped']:7d} " + " ".join(cells))
    lines += _interval_lines(total) + _geometry_lines(results) + _kap_lines(results)
    if total["skipped"]:
        lines.append(f'{total["skipped"]} pairs skipped (see "skipped" in results.json); bad ones count as wrong above')
    if results["extra_predictions"]:
        lines.append(f"{results['extra_predictions']} predictions are of pairs that were not asked for; ignored")
    return "\n".join(lines)


def _interval_lines(total):
    """The intervals of the two usual means over all categories."""
    lines = ["", "95 % intervals (bootstrap over images):"]
    for label, name in (("mean of categories", "mean_of_categories"), ("weighted by pairs", "pair_weighted"), ("per point", "per_point")):
        found = {alpha: values[name] for alpha, values in total["intervals"]["pck"].items()}
        cells = (f"@{alpha} {ends[0]:.1f} to {ends[1]:.1f}" for alpha, ends in found.items() if ends)
        lines.append(f"  {label:20s} " + ",  ".join(cells))
    return lines


def kap_places(results: dict[str, Any]) -> list[tuple[str, Any, str, str]]:
    """[(label, entry, per-image key, pooled key)] of the rows of a table of KAP."""
    places = [(category, entry, "per_image", "pooled") for category, entry in results["per_category"].items()]
    total = results["all"]
    places.append(("mean of categories", total, "per_image_mean_of_categories", "pooled_mean_of_categories"))
    return [*places, ("weighted", total, "per_image_pair_weighted", "pooled_point_weighted")]


def _geometry_lines(results):
    """The geometry-aware subset beside the standard set (GeoAware-SC, Fig. 4), per image."""
    total, alphas = results["all"], list(results["all"]["pck"])
    if not total["geometry_aware"]["pairs"]:
        return []
    lines = ["", "Geometry-aware subset: PCK in percent per image, standard set / keypoints with a look-alike in the target"]
    lines.append(f"{'category':20s} {'pairs':>6s} {'':7s} " + " ".join(f"{'@' + a:>15s}" for a in alphas))
    places = [(name, entry, "per_image") for name, entry in results["per_category"].items() if entry["geometry_aware"]["pairs"]]
    for label, entry, key in [*places, ("weighted by pairs", total, "pair_weighted")]:
        subset = entry["geometry_aware"]
        cells = (_pair_of(entry["pck"][a][key], subset["pck"][a][key]) for a in alphas)
        lines.append(f"{label:20s} {subset['pairs']:6d} {'':7s} " + " ".join(cells))
    return lines


def _kap_lines(results):
    lines = []
    for variant, key in kap_keys(results["config"]["kap"]).items():
        lines += ["", f"KAP ({variant}) in percent, per image / pooled; of {results['protocol']['kap']['scores']}"]
        lines.append(f"{'category':20s} {'pairs':>6s} {'':7s} " + " ".join(f"{'@' + a:>15s}" for a in results["all"][key]))
        for label, entry, image, pooled in kap_places(results):
            cells = (_pair_of(values[image], values[pooled]) for values in entry[key].values())
            lines.append(f"{label:20s} {entry['kap_counts']['pairs']:6d} {'':7s} " + " ".join(cells))
    return lines


def _pair_of(image, point):
    return f"{'-':>15s}" if image is None else f"{image:7.2f}/{point:7.2f}"
