"""Pictures whose left and right labels look exchanged, by what the keypoints look like.

Geometry alone hardly tells: labels exchanged in one picture are, but for perspective, explained by a pose reversed in depth. Features do:
the left part of an object does not look like the right part of others, as its neighbourhood lies on the other side of it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from semalign3d_core.category.annotations.views import View

OUTLIER = 3.0  # robust standard deviations above the usual score


def left_right_scores(views: Sequence[View], flip: Tensor | None) -> np.ndarray:
    """(N,) by how much the paired keypoints of a picture look more like their mirror partners in the other pictures than like themselves.

    A mean over keypoints of differences of cosines, of the picture and of its mirror image; NaN where no pair is annotated.
    """
    if flip is None or not views:
        return np.full(len(views), np.nan)
    own = torch.stack([view.keypoint_features for view in views]).float()  # (N, K, C), 0 where not annotated
    has, mirrored = torch.tensor([len(view.mirrored_keypoint_features) > 0 for view in views]), torch.zeros_like(own)
    for n in has.nonzero()[:, 0].tolist():
        mirrored[n] = views[n].mirrored_keypoint_features.float()
    total = own.sum(0) + mirrored[:, flip].sum(0)
    paired, scores = flip != torch.arange(len(flip)), []
    for n, view in enumerate(views):
        mean = normalize(total - own[n] - mirrored[n][flip], dim=-1)
        gain = (own[n] * (mean[flip] - mean)).sum(-1) + (mirrored[n] * (mean - mean[flip])).sum(-1)
        used = view.annotated & paired
        scores.append(float(gain[used].mean()) / (2 if has[n] else 1) if used.any() else np.nan)
    return np.array(scores)


def look_swapped(scores: np.ndarray) -> np.ndarray:
    """(N,) bool: scores above 0 that also lie far above the usual score, so that features which tell nothing accuse nobody."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return np.zeros(len(scores), bool)
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle))
    return np.nan_to_num(scores, nan=-1.0) > max(0.0, middle + OUTLIER * spread)
