"""Keypoint average precision (KAP) of an evaluation: how the features tell a keypoint's place from all others, and its absence.

It judges the backbone's features, cell against cell, whatever the method reads off them; see :mod:`semalign3d_core.metrics.kap`.
Unlike PCK it looks at every keypoint of the source: those that the target does not show count too.
"""

import numpy as np
import torch

from semalign3d_core.image_grid import CANVAS_SIDE
from semalign3d_core.matchers.soft_argmax import cell_features
from semalign3d_core.metrics.kap import KapAccumulator, KapPair, kap_samples

KAP_PROTOCOL = {
    "features": "similarity of the source keypoint's cell to all cells of the target, the backbone's features, whatever the method",
    "per_image": "mean over pairs of the average precision of a pair",
    "pooled": "average precision of all samples of a category together",
    "point_weighted": "weighted by keypoints of the source",
    "skipped_pairs": "count with their keypoints never found and negatives of the largest score, 1",
    "pairs_without_common_keypoints": "count with their negatives",
}


def source_count(pair):
    """Number of source keypoints of an evaluation pair; of one that could not be read, the most there can be."""
    return pair.lost_points if pair.record is None else int(_visible(pair.record.source).sum())


def pair_samples(config, source, target, records, unit):
    """[(scores, labels)] at each alpha of one pair.

    source, target: :class:`~semalign3d_core.evidence.FeatureMap`;  records: the two :class:`ImageRecord`;
    unit: reference length in pixels of the target. Raises :class:`InputError` for features that are not finite.
    """
    seen = _visible(records[0])
    queries = cell_features(source, torch.from_numpy(records[0].keypoints[seen]))
    queries, which = queries.unique(dim=0, return_inverse=True)  # keypoints of one cell must tie; equal rows of a product may not
    similarity = target.similarity(queries)[which]
    scale = CANVAS_SIDE / target.grid.side
    on_canvas = (records[1].keypoints[seen] + np.array(target.grid.offset)) * scale
    visible = np.ones(len(on_canvas), bool), _visible(records[1])[seen]
    pair = KapPair(similarity.cpu().numpy(), on_canvas, *visible, unit * scale, CANVAS_SIDE)
    return [kap_samples(pair, alpha, config.kap) for alpha in config.alpha]


def add_kap(summary, pairs, samples, config):
    """Adds ``kap`` and ``kap_counts`` to every category of a summary of PCK and to ``all``.

    samples: {pair: result of :func:`pair_samples`}; pairs without one, for whatever reason, count with the worst there are.
    """
    accumulator = KapAccumulator(config.alpha, config.kap)
    for pair in pairs:
        found = samples.get(pair.name) or [_worst(pair, config.kap)] * len(config.alpha)
        accumulator.add_samples(pair.category, source_count(pair), found)
    kap = accumulator.summary()
    for entry, place in [(summary["all"], kap["all"]), *((e, kap["per_category"][c]) for c, e in summary["per_category"].items())]:
        entry["kap"] = place["kap"]
        entry["kap_counts"] = {"pairs": place["pairs"], "points": place["points"], "without_keypoints": place["skipped"]}


def _worst(pair, variant):
    """(scores, labels) that give the lowest average precision: nothing is found, and nothing scores higher than the negatives."""
    negatives = source_count(pair)
    positives = negatives if variant == "as_released" else pair.lost_points
    return np.repeat([-np.inf, 1.0], [positives, negatives]), np.repeat([1, 0], [positives, negatives])


def _visible(record):
    return np.isfinite(record.keypoints).all(1)
