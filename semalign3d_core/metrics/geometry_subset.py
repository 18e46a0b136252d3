"""The geometry-aware subset (GeoAware-SC, CVPR 2024): keypoints that can be confused with a visible counterpart.

Groups are lists of keypoint labels that look alike (left and right wing tip, four wheels); see ``datasets/tables.py``.
Their columns are raw labels. Pairs without any such keypoint do not belong to the subset.
"""

from collections.abc import Sequence

import numpy as np


def geometry_aware(groups: Sequence[Sequence[int]], source_visible: np.ndarray, target_visible: np.ndarray) -> np.ndarray:
    """(..., K) bool: keypoints visible in both images whose group has at least two members visible in the target."""
    source, target = np.asarray(source_visible, bool), np.asarray(target_visible, bool)
    common = source & target
    subset = np.zeros_like(common)
    for group in groups:
        members = np.asarray(group)
        confusable = target[..., members].sum(axis=-1, keepdims=True) >= 2
        subset[..., members] |= common[..., members] & confusable
    return subset
