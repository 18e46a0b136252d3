"""Percentage of correct keypoints (PCK), per keypoint, and its dagger version.

Positions are (x, y) in any one frame, thresholds in the same unit. K keypoints, A alphas; leading axes (pairs) broadcast.
NaN positions are never correct: a prediction that is missing counts as wrong. Scores are aggregated in ``aggregate.py``.
"""

from collections.abc import Sequence

import numpy as np


def pck_correct(pred: np.ndarray, truth: np.ndarray, threshold: float | np.ndarray, alphas: np.ndarray | Sequence[float]) -> np.ndarray:
    """(..., K, A) bool: distance of ``pred`` (..., K, 2) to ``truth`` (..., K, 2) < alpha * ``threshold`` (...), strictly.

    The strict comparison is that of GeoAware-SC, SphericalMaps and SD+DINO; see :func:`pck_correct_inclusive`.
    """
    distance, limit = _distances_and_limits(pred, truth, threshold, alphas)
    return distance < limit


def pck_correct_inclusive(pred: np.ndarray, truth: np.ndarray, threshold: float | np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """As :func:`pck_correct` with ``<=``, the comparison of SFNet and of "Demystifying Unsupervised Semantic Correspondence" (2022)."""
    distance, limit = _distances_and_limits(pred, truth, threshold, alphas)
    return distance <= limit


def nearest_is_own(pred: np.ndarray, truth: np.ndarray, common: np.ndarray | list[bool]) -> np.ndarray:
    """(..., K) bool: among the common keypoints, the true one nearest to prediction i is keypoint i (first index on ties).

    ``common`` (..., K) bool marks keypoints annotated in both images; only they compete. Rows that are not common, and NaN
    predictions, are False.
    """
    pred, truth, common = np.asarray(pred, np.float64), np.asarray(truth, np.float64), np.asarray(common, bool)
    if not common.shape[-1]:
        return common
    distance = np.linalg.norm(pred[..., :, None, :] - truth[..., None, :, :], axis=-1)
    distance = np.where(common[..., None, :], distance, np.inf)
    distance = np.where(np.isnan(distance), np.inf, distance)
    own = distance.argmin(axis=-1) == np.arange(pred.shape[-2])
    return own & common & np.isfinite(pred).all(axis=-1)


def pck_dagger_correct(
    pred: np.ndarray,
    truth: np.ndarray,
    common: np.ndarray | list[bool],
    threshold: float | np.ndarray,
    alphas: np.ndarray | Sequence[float],
) -> np.ndarray:
    """(..., K, A) bool PCK-dagger as the GeoAware protocol's later evaluation has it: strictly correct, and :func:`nearest_is_own`."""
    return pck_correct(pred, truth, threshold, alphas) & nearest_is_own(pred, truth, common)[..., None]


def pck_dagger_correct_inclusive(
    pred: np.ndarray, truth: np.ndarray, common: np.ndarray, threshold: float | np.ndarray, alphas: Sequence[float]
) -> np.ndarray:
    """(..., K, A) bool PCK-dagger as defined in 2022 by Aygun and Mac Aodha: ``<=``, and :func:`nearest_is_own`."""
    return pck_correct_inclusive(pred, truth, threshold, alphas) & nearest_is_own(pred, truth, common)[..., None]


def _distances_and_limits(pred, truth, threshold, alphas):
    """Distances (..., K, 1) and limits (..., 1, A), float64."""
    distance = np.linalg.norm(np.asarray(pred, np.float64) - np.asarray(truth, np.float64), axis=-1)
    limit = np.asarray(threshold, np.float64)[..., None] * np.asarray(alphas, np.float64)
    return distance[..., None], limit[..., None, :]
