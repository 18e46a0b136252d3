"""Which of several solutions is the object: energy, depth order, facing, and the margin to a distant rival."""

import math
from dataclasses import dataclass

import torch

from semalign3d_core.alignment.projected_solutions import picked

FLATNESS = 0.35  # smallest over middle extent of a cloud that counts as flat
NO_RIVAL = 0.5  # margin where no rival exists
REJECTED = 10.0  # added to the score of a solution that shows the wrong face


@dataclass(frozen=True)
class Selection:
    """The winner among B candidates: its index () int64, score (B,) and the same without the
    check of the face, energies (B,), depth-order correlation (B,), the margin () to its best rival, and the lead () of the best start over
    its best rival while the solver still had all of its starts: later, rivals have moved to the winner or are gone."""

    winner: torch.Tensor
    score: torch.Tensor
    energies: torch.Tensor
    depth_order: torch.Tensor
    margin: torch.Tensor
    lead: torch.Tensor


def select(image, candidates, placed, energies, facing, weight, rival_degrees, axis=None, known=None):
    """:class:`Selection` among candidates with energies (B,), of which ``placed`` tells where they are in the picture.

    facing: (3,) object-frame normal that must look at the camera, or None; weight: of the depth-order correlation;
    axis: (3,) undetermined axis, about which solutions do not count as rivals; known: (2,) margin and lead, if known from elsewhere.
    """
    rotations = candidates.rotations
    order = torch.zeros_like(energies) if image.layout.depth is None else depth_order(image, placed)
    checked = score = energies - weight * order
    if facing is not None:
        score = score + REJECTED * ~faces_camera(candidates.keypoints, rotations, facing)
    winner = score.argmin()
    if known is not None:
        margin, lead = known
    else:
        margin = _gap(rotations, score, rival_degrees, axis)
        lead = margin if candidates.early is None else _gap(*candidates.early, rival_degrees, axis)
    return Selection(winner, score, checked, order, margin, lead)


def _gap(rotations, score, rival_degrees, axis):
    """() by which the best of solutions with rotations (B, 3, 3) and scores (B,) is better than the best one far from it."""
    best = score.argmin()
    far = rotation_distance(rotations, picked(rotations, best), axis) > math.radians(rival_degrees)
    return (torch.where(far, score, torch.inf).amin() - picked(score, best)).clamp(max=NO_RIVAL)


def rotation_distance(rotations, reference, axis=None):
    """Angle in radians between rotations (B, 3, 3) and one (3, 3); with an undetermined axis (3,), the angle between the axes."""
    if axis is None:
        return (((rotations * reference).sum((-2, -1)) - 1) / 2).clamp(-1, 1).acos()
    return (rotations @ axis * (reference @ axis)).sum(-1).clamp(-1, 1).acos()


def front_normal(points, pose_rotations, share):
    """The object-frame normal (3,) of a flat category that nearly all training poses turn to the camera; None otherwise.

    points: (P, 3) cloud; pose_rotations: (N, 3, 3).
    """
    if len(pose_rotations) < 5:
        return None
    centred = points - points.mean(0)
    values, axes = torch.linalg.eigh(centred.T @ centred)
    if (values[0] / values[1].clamp(min=1e-12)).sqrt() > FLATNESS:
        return None
    toward = -(pose_rotations @ axes[:, 0])[:, 2]  # cosine to the direction of the camera
    sign = toward.median().sign()
    return axes[:, 0] * sign if float((toward * sign > 0).float().mean()) >= share else None


def faces_camera(keypoints, rotations, normal):
    """(B,) bool: the normal, turned by (B, 3, 3), looks from the object's centre (mean of (B, K, 3)) toward the camera."""
    return ((rotations @ normal) * keypoints.mean(1)).sum(-1) < 0


def depth_order(image, placed):
    """Spearman correlation (B,) of 1/z of the front-most cloud points with the inverse depth at their pixels."""
    cloud = placed.front.shape[1]
    seen = image.inverse_depth(placed.projected[:, :cloud])
    usable = placed.front & torch.isfinite(seen)
    if placed.distance is not None:
        usable &= placed.distance <= 0
    return masked_spearman(1 / placed.points[:, :cloud, 2].clamp(min=1e-3), seen.nan_to_num(), usable)


def masked_spearman(first, second, usable):
    """Rank correlation (B,) of the usable entries of (B, P) arrays; 0 where fewer than 5 are usable."""
    ranks = [_ranks(values, usable) for values in (first, second)]
    count = usable.sum(-1, keepdim=True)
    centred = [torch.where(usable, rank - (count - 1) / 2, torch.zeros_like(rank)) for rank in ranks]
    norm = ((centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1)).sqrt()
    correlation = (centred[0] * centred[1]).sum(-1) / norm.clamp(min=1e-9)
    return torch.where(count[:, 0] >= 5, correlation, torch.zeros_like(correlation))


def _ranks(values, usable):
    order = torch.where(usable, values, torch.inf).argsort(-1)
    ranks = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device).expand_as(values)
    return torch.zeros_like(values).scatter(-1, order, ranks)
