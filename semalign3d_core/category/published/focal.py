"""Focal lengths of the training images from the constancy of shape (paper Eq. 1-3)."""

import torch
from torch import Tensor

from semalign3d_core.category.statistics.geometric_features import masked_mean_variance, triple_features, triple_mask
from semalign3d_core.geometry.camera import back_project

START = 0.2  # inverse focal length
RATE, DECAY = 1e-3, 0.01  # of AdamW


def back_project_keypoints(points: Tensor, depth: Tensor, inverse_focal: Tensor, principal: Tensor) -> Tensor:
    """Camera-frame keypoints (I, K, 3) from normalised points (I, K, 2), depths (I, K) and inverse focal lengths (I,).

    The inverse focal length enters through its absolute value; principal: (I, 2) in units of L.
    """
    focal = 1 / inverse_focal.abs()
    return back_project(points, depth, focal[:, None, None], principal[:, None, :])


def focal_loss(inverse_focal: Tensor, points: Tensor, depth: Tensor, visible: Tensor, principal: Tensor) -> Tensor:
    """Summed variance of all triple features across images (Eq. 3); everything as in :func:`back_project_keypoints`.

    visible: (I, K) bool. Each unordered triple counts several times, as published.
    """
    cosine, ratio = triple_features(back_project_keypoints(points, depth, inverse_focal, principal))  # Eq. 1, 2
    mask = triple_mask(visible)
    return masked_mean_variance(cosine, mask)[1].sum() + masked_mean_variance(ratio, mask)[1].sum()  # Eq. 3


def optimise_focal(points: Tensor, depth: Tensor, visible: Tensor, principal: Tensor, steps: int, known: Tensor) -> Tensor:
    """Inverse focal lengths (I,) of all images together, by AdamW from 0.2 as published (section 1.1).

    known: (I,) inverse focal lengths that stay as they are, NaN where unknown; the rest as in :func:`focal_loss`.
    """
    fixed = torch.isfinite(known)
    if fixed.all():
        return known.abs()
    inverse_focal = torch.full_like(depth[:, 0], START).requires_grad_()
    optimiser = torch.optim.AdamW([inverse_focal], lr=RATE, weight_decay=DECAY)
    for _ in range(steps):
        loss = focal_loss(torch.where(fixed, known, inverse_focal), points, depth, visible, principal)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.where(fixed, known, inverse_focal.detach()).abs()
