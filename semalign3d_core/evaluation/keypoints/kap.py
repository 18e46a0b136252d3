"""Keypoint average precision (KAP) of an evaluation: how well a keypoint's place is told from all others, and its absence noticed.

It judges what rates the cells of the target: the method's own likelihood where it has one, else the similarity of the backbone's
features; see :mod:`semalign3d_core.metrics.kap`. Unlike PCK it looks at every keypoint of the source: those that the target does
not show count too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.evaluation.keypoints.pairs import EvaluationPair
from semalign3d_core.evaluation.keypoints.uncertainty import add_kap_intervals
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.geometry.image_grid import CANVAS_SIDE, SquareGrid
from semalign3d_core.matchers.soft_argmax import cell_features
from semalign3d_core.metrics.kap import KAP_VARIANTS, KapAccumulator, KapPair, kap_samples
from semalign3d_core.perception.evidence import FeatureMap

SCORES = {
    "features": "similarity of the source keypoint's cell to all cells of the target, the backbone's features, whatever the method",
    "method": "the method's own likelihood of the keypoint at all cells of the target",
}
KAP_PROTOCOL = {
    "per_image": "mean over pairs of the average precision of a pair",
    "pooled": "average precision of all samples of a category together",
    "point_weighted": "weighted by keypoints of the source",
    "skipped_pairs": "count with their keypoints never found and negatives of the largest score, 1",
    "pairs_without_common_keypoints": "count with their negatives",
}


def source_count(pair: EvaluationPair) -> int:
    """Number of source keypoints of an evaluation pair; of one that could not be read, the most there can be."""
    return pair.lost_points if pair.record is None else int(_visible(pair.record.source).sum())


def source_keypoints(record: ImageRecord) -> torch.Tensor:
    """(K, 2) float32 tensor of the annotated keypoints of a record."""
    return torch.from_numpy(record.keypoints[_visible(record)])


def feature_similarity(source: FeatureMap, target: FeatureMap, points: torch.Tensor) -> torch.Tensor:
    """(K, cells * cells) similarity of the cells in which ``points`` lie to all cells of the target; two feature maps."""
    queries = cell_features(source, points)
    queries, which = queries.unique(dim=0, return_inverse=True)  # keypoints of one cell must tie; equal rows of a product may not
    return target.similarity(queries)[which]


def pair_samples(
    config: EvaluationConfig, similarity: torch.Tensor, grid: SquareGrid, records: tuple[ImageRecord, ImageRecord], unit: float
) -> dict[str, list[Any]]:
    """{variant: [(scores, labels)] at each alpha} of one pair.

    similarity: (K, cells * cells) of the source's annotated keypoints to the target's cells, which ``grid`` places on its image
    records: the two :class:`ImageRecord`;  unit: reference length in pixels of the target
    Raises :class:`InputError` for similarities that are not finite.
    """
    seen, scale = _visible(records[0]), CANVAS_SIDE / grid.side
    on_canvas = (records[1].keypoints[seen] + np.array(grid.offset)) * scale
    visible = np.ones(len(on_canvas), bool), _visible(records[1])[seen]
    pair = KapPair(similarity.cpu().numpy(), on_canvas, *visible, unit * scale, CANVAS_SIDE)
    return {variant: [kap_samples(pair, alpha, variant) for alpha in config.alpha] for variant in kap_keys(config.kap)}


def kap_keys(kap: str) -> dict[str, str]:
    """{variant: where its scores stand in results} of the option ``--kap``; the first of all variants is the default of the metric."""
    variants = [v for v in KAP_VARIANTS if kap in ("all", v)]
    return {variant: "kap" if variant == variants[0] else f"kap_{variant}" for variant in variants}


def add_kap(summary: dict[str, Any], pairs: Sequence[EvaluationPair], samples: dict[str, Any], config: EvaluationConfig) -> None:
    """Adds ``kap`` (and with all variants ``kap_<variant>``) and ``kap_counts`` to every category of a summary of PCK and to ``all``.

    samples: {pair: result of :func:`pair_samples`}; pairs without one, for whatever reason, count with the worst there are.
    """
    for variant, key in kap_keys(config.kap).items():
        accumulator = KapAccumulator(config.alpha, variant)
        scored = []
        for pair in pairs:
            found = samples[pair.name][variant] if pair.name in samples else [_worst(pair, variant)] * len(config.alpha)
            if accumulator.add_samples(pair.category, source_count(pair), found) is not None:
                scored.append((pair, source_count(pair), found))
        kap = accumulator.summary()
        for entry, place in [(summary["all"], kap["all"]), *((e, kap["per_category"][c]) for c, e in summary["per_category"].items())]:
            entry[key] = place["kap"]
            entry["kap_counts"] = {"pairs": place["pairs"], "points": place["points"], "without_keypoints": place["skipped"]}
        if scored:
            add_kap_intervals(summary, key, *zip(*scored, strict=True))


def _worst(pair, variant):
    """(scores, labels) that give the lowest average precision: nothing is found, and nothing scores higher than the negatives."""
    negatives = source_count(pair)
    positives = negatives if variant == "as_released" else pair.lost_points
    return np.repeat([-np.inf, 1.0], [positives, negatives]), np.repeat([1, 0], [positives, negatives])


def _visible(record):
    return np.isfinite(record.keypoints).all(1)
