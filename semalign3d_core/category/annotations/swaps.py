"""Pictures whose left and right labels look exchanged, by three cues.

One is how well a pose explains them: labels exchanged in one picture are, but for perspective, explained by a pose reversed in depth, so
this tells little where objects are far away. The left part of an object does not look like the right part of others, as its neighbourhood
lies on the other side of it. And in the reversed pose the annotated keypoints lie on the far side of the object, where nobody sees them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor
from torch.nn.functional import normalize

from semalign3d_core.category.annotations.views import View

FREEDOM = 3.0  # degrees of freedom of Student's t: pictures that are odd for other reasons prove little
ERRORS = 0.02  # share of the pictures in which a cue misleads altogether
ENOUGH = -0.5  # logarithm of the odds from which a picture is named: a picture looked at in vain costs less than an exchanged one missed
OUTLIER = 3.0  # robust standard deviations above the usual odds


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


def depth_scores(depth: Tensor, visible: Tensor) -> np.ndarray:
    """(N,) by how much deeper the annotated keypoints of a picture lie than the others, which are mostly hidden; NaN if all are annotated.

    depth: (N, K) z of all keypoints in the camera frame, in diameters of the object;  visible: (N, K) bool
    """
    seen, hidden = visible.double(), (~visible).double()
    return ((depth * seen).sum(1) / seen.sum(1) - (depth * hidden).sum(1) / hidden.sum(1)).numpy()


def swapped_odds(*cues: np.ndarray, explained: np.ndarray | None = None) -> np.ndarray:
    """(N,) logarithm of the odds that left and right are exchanged in a picture; NaN where nothing (N,) is known.

    Exchanging the labels of a picture changes the sign of its cue. So cues of right pictures lie around the median and those of exchanged
    pictures around minus the median, and a cue that tells nothing has its median near 0. Cues are taken as independent.
    explained: logarithm of the odds by how well a pose explains the picture, which tells more the more there is of perspective
    """
    odds = [] if explained is None else [_bounded(explained)]
    for cue in cues:
        known = cue[np.isfinite(cue)]
        middle = np.median(known) if len(known) else 0.0
        spread = max(_spread(known), 1e-9) if len(known) else 1.0
        odds.append(_bounded(_log_t((cue + middle) / spread) - _log_t((cue - middle) / spread)))
    stacked = np.stack(odds)
    return np.where(np.isfinite(stacked).any(0), np.nansum(stacked, 0), np.nan)


def look_swapped(odds: np.ndarray) -> np.ndarray:
    """(N,) bool: odds (logarithms) above ``ENOUGH`` and far above the usual ones, so that cues which tell nothing accuse nobody."""
    known = odds[np.isfinite(odds)]
    if not len(known):
        return np.zeros(len(odds), bool)
    return np.nan_to_num(odds, nan=-np.inf) > max(ENOUGH, np.median(known) + OUTLIER * _spread(known))


def _spread(values: np.ndarray) -> float:
    """Robust standard deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _log_t(x: np.ndarray) -> np.ndarray:
    """Logarithm of the density of Student's t, up to a constant."""
    return -(FREEDOM + 1) / 2 * np.log1p(x * x / FREEDOM)


def _bounded(odds: np.ndarray) -> np.ndarray:
    """Odds (logarithms) of a cue that is wrong altogether in a share ``ERRORS`` of the pictures."""
    return logit(ERRORS + (1 - 2 * ERRORS) * expit(odds))
