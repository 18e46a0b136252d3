"""Focal lengths of the training images from the constancy of shape (paper Eq. 1-3)."""

import torch

from semalign3d_core.category.statistics.geometric_features import masked_mean_variance, triple_features, triple_mask
from semalign3d_core.geometry.camera import back_project

START = 0.2


def back_project_keypoints(points, depth, inverse_focal, principal):
    """Camera-frame keypoints (I, K, 3) from normalised points (I, K, 2), depths (I, K) and inverse focal lengths (I,).

    The inverse focal length enters through its absolute value; principal: (I, 2) in units of L.
    """
    focal = 1 / inverse_focal.abs()
    return back_project(points, depth, focal[:, None, None], principal[:, None, :])


def focal_loss(inverse_focal, points, depth, visible, principal):
    """Summed variance of all triple features across images (Eq. 3); everything as in :func:`back_project_keypoints`.

    visible: (I, K) bool. Each unordered triple counts several times, as published.
    """
    features = triple_features(back_project_keypoints(points, depth, inverse_focal, principal))
    mask = triple_mask(visible)
    return sum(masked_mean_variance(feature, mask)[1].sum() for feature in features)


def optimise_focal(points, depth, visible, principal, steps=1000, rate=1e-3, decay=0.01, record=(), known=None):
    """Inverse focal lengths (I,) of all images together, by AdamW from 0.2 (section 1.1; the decay is the published one).

    record: steps after which the values are kept; known: (I,) inverse focal lengths that stay as they are, NaN where unknown.
    Returns the result and {step: (loss before it, values after it)}.
    """
    known = torch.full_like(depth[:, 0], torch.nan) if known is None else known
    fixed = torch.isfinite(known)
    if fixed.all():
        return known.abs(), {}
    inverse_focal = torch.full_like(depth[:, 0], START).requires_grad_()
    optimiser = torch.optim.AdamW([inverse_focal], lr=rate, weight_decay=decay)
    trace = {}
    for step in range(1, steps + 1):
        loss = focal_loss(torch.where(fixed, known, inverse_focal), points, depth, visible, principal)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in record:
            trace[step] = float(loss.detach()), inverse_focal.detach().clone()
    return torch.where(fixed, known, inverse_focal.detach()).abs(), trace
