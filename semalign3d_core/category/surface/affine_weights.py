"""Affine weights of points over keypoints: the constant matrix W with ``Y = W X`` (method, section 1.6)."""

import torch

LOCALITY = 2.0  # a keypoint's share falls with this power of its squared distance
SMOOTHING = 0.02  # squared distances below this (in squared diameters) count as near
RANK = 1e-6


def affine_weights(points, keypoints):
    """W (P, K): rows sum to 1, ``W keypoints = points``, least norm with near keypoints favoured.

    points: (P, 3); keypoints: (K, 3), any batch in front (..., K, 3) with (..., P, 3). Flat keypoints cannot express what
    lies off their plane: the nearest point in their plane is expressed instead.
    """
    scale2 = torch.cdist(keypoints, keypoints).amax((-2, -1))[..., None, None] ** 2
    distance2 = torch.cdist(points, keypoints) ** 2 / scale2
    share = 1 / (distance2 + SMOOTHING) ** LOCALITY  # D of the weighted least norm: small where a keypoint is far
    ones = torch.ones_like(keypoints[..., :1])
    augmented = torch.cat([keypoints - keypoints.mean(-2, keepdim=True), ones * scale2.sqrt()], dim=-1)
    target = torch.cat([points - keypoints.mean(-2, keepdim=True), torch.ones_like(points[..., :1]) * scale2.sqrt()], dim=-1)
    gram = torch.einsum("...pk,...ka,...kb->...pab", share, augmented, augmented)
    solution = torch.linalg.pinv(gram, rtol=RANK, hermitian=True) @ target[..., None]
    weights = share * torch.einsum("...pa,...ka->...pk", solution[..., 0], augmented)
    return weights / weights.sum(-1, keepdim=True)
