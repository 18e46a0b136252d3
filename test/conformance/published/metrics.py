"""Metrics and numberings of published evaluations that only their vectors use."""

import numpy as np

from semalign3d_core.datasets.tables import MIRROR_PAIRS, used_labels
from semalign3d_core.metrics.pck import nearest_is_own


def error_kinds(pred, truth, common, threshold, alpha):
    """Errors of common keypoints after Aygun and Mac Aodha (2022), a dictionary of (..., K) bool, with r = alpha * threshold:

    ``miss``: no common target within r;  ``jitter``: the own target between r and 2 r away (both included);
    ``swap``: nearest to another target, and some target within r (included). A missing prediction is a miss.
    """
    pred, truth, common = np.asarray(pred, np.float64), np.asarray(truth, np.float64), np.asarray(common, bool)
    radius = (alpha * np.asarray(threshold, np.float64))[..., None]
    every = np.linalg.norm(pred[..., :, None, :] - truth[..., None, :, :], axis=-1)
    every = np.where(common[..., None, :] & np.isfinite(every), every, np.inf)
    nearest = every.min(axis=-1, initial=np.inf)
    own = np.diagonal(every, axis1=-2, axis2=-1)
    return {
        "miss": common & (nearest >= radius),
        "jitter": common & (own >= radius) & (own <= 2 * radius),
        "swap": common & ~nearest_is_own(pred, truth, common) & (nearest <= radius),
    }


def mirror_aware(flip_permutation, source_visible, target_visible):
    """(..., K) bool: keypoints visible in both images whose mirror partner, another label, is visible in the source too."""
    source, target = np.asarray(source_visible, bool), np.asarray(target_visible, bool)
    flip = np.asarray(flip_permutation)
    paired = flip != np.arange(len(flip))
    return source & target & source[..., flip] & paired


def renumbered_groups(groups, used):
    """The groups as the published live evaluator numbers them: only for comparing with its per-point numbers.

    ``used`` are the raw labels kept as columns. Members are numbered in the order in which one meets them walking the table
    (groups and single labels by their smallest member), which is the true column only when that order ascends: the published
    per-point numbers of bus, car, potted plant, tv monitor and AP-10K are computed on wrong groups.
    """
    grouped = {label for group in groups for label in group}
    table = [list(g) for g in groups] + [[label] for label in used if label not in grouped]
    walk = [label for group in sorted(table, key=min) for label in group if label in set(used)]
    column = {label: i for i, label in enumerate(walk)}
    return [[column[label] for label in group if label in column] for group in groups]


def column_flip_permutation(category, used=None, visible=None):
    """:func:`flip_permutation` in the numbering that remains when labels not in ``used`` (default: the table's) are dropped."""
    used = used_labels(category) if used is None else list(used)
    column = {label: i for i, label in enumerate(used)}
    flip = list(range(len(used)))
    for a, b in MIRROR_PAIRS[category]:
        if a in column and b in column and (visible is None or (visible[column[a]] and visible[column[b]])):
            flip[column[a]], flip[column[b]] = column[b], column[a]
    return flip
