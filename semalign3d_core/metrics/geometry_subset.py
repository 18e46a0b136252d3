"""The geometry-aware subset (GeoAware-SC, CVPR 2024): keypoints that can be confused with a visible counterpart.

Groups are lists of keypoint labels that look alike (left and right wing tip, four wheels); see ``datasets/tables.py``.
Their columns are raw labels. Pairs without any such keypoint do not belong to the subset.
"""

import numpy as np


def geometry_aware(groups, source_visible, target_visible):
    """(..., K) bool: keypoints visible in both images whose group has at least two members visible in the target."""
    source, target = np.asarray(source_visible, bool), np.asarray(target_visible, bool)
    common = source & target
    subset = np.zeros_like(common)
    for group in groups:
        members = np.asarray(group)
        confusable = target[..., members].sum(axis=-1, keepdims=True) >= 2
        subset[..., members] |= common[..., members] & confusable
    return subset


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
