"""Poses of all images under weak perspective: every rotation of a bank in closed form, then a few Gauss-Newton steps.

A constellation seen under weak perspective is ``p = s P R X + t`` with P dropping z. Batched over B candidate shapes (B, K, 3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.geometry.rotations import cross_matrix, rotation_from_vector, uniform_rotations

BANK = 600  # rotations that are searched
STEPS = 4  # of Gauss-Newton
TINY = 1e-12


@dataclass(frozen=True)
class WeakPoses:
    """Weak-perspective poses of B shapes in N views.

    rotation: (B, N, 3, 3);  scale: (B, N);  shift: (B, N, 2);  residual: (B, N) squared, relative to the spread of the points;
    correlation: (B, N) of -z with the relative inverse depth, 0 where fewer than three depths are known
    """

    rotation: Tensor
    scale: Tensor
    shift: Tensor
    residual: Tensor
    correlation: Tensor


def best_of_bank(shapes: Tensor, data: Constellations, depth_weight: float) -> WeakPoses:
    """The best of ``BANK`` rotations for every image and shape.

    The cost is the relative squared residual plus ``depth_weight (1 - correlation)``; the search is in single precision, its result in
    that of the shapes.
    """
    rotations = uniform_rotations(BANK, torch.float64)
    visible, points = data.visible.float(), data.points.float()
    count = visible.sum(1)
    turned = torch.einsum("rij,bkj->brik", rotations.float(), shapes.float())
    flat, depth = turned[:, :, :2], turned[:, :, 2]
    mean = torch.einsum("brik,nk->bnri", flat, visible) / count[:, None, None]
    spread = torch.einsum("brk,nk->bnr", flat.square().sum(2), visible) - count[:, None] * mean.square().sum(-1)
    centred = _centred(points, visible)
    product = torch.einsum("brik,nki->bnr", flat, centred)
    energy = centred.square().sum((1, 2))[:, None].clamp(min=TINY)
    scale = (product / spread.clamp(min=TINY)).clamp(min=0)
    residual = 1 - scale * product / energy
    correlation = _bank_correlation(depth, data)
    best = (residual + depth_weight * (1 - correlation)).argmin(-1)
    return closed_form(shapes, data, rotations[best])


def _centred(points: Tensor, visible: Tensor) -> Tensor:
    mean = (points * visible[..., None]).sum(1, keepdim=True) / visible.sum(1)[:, None, None]
    return (points - mean) * visible[..., None]


def _bank_correlation(depth: Tensor, data: Constellations) -> Tensor:
    known = data.measured.to(depth)
    count = known.sum(1)
    inverse = _centred(data.inverse[..., None].to(depth), known)[..., 0] if known.any() else torch.zeros_like(known)
    inverse = inverse.nan_to_num(nan=0.0)
    covariance = -torch.einsum("brk,nk->bnr", depth, inverse)
    mean = torch.einsum("brk,nk->bnr", depth, known) / count.clamp(min=1)[:, None]
    variance = torch.einsum("brk,nk->bnr", depth.square(), known) - count[:, None] * mean.square()
    scale = (variance.clamp(min=TINY) * inverse.square().sum(1)[:, None]).clamp(min=TINY).sqrt()
    return torch.where((count >= 3)[:, None], covariance / scale, 0.0)


def closed_form(shapes: Tensor, data: Constellations, rotation: Tensor) -> WeakPoses:
    """:class:`WeakPoses` of given rotations (B, N, 3, 3) with the best scale and shift."""
    visible = data.visible.double()
    turned = torch.einsum("bnij,bkj->bnki", rotation, shapes)
    flat = turned[..., :2]
    weight = visible[..., None]
    count = visible.sum(1)[:, None]
    mean, target = (flat * weight).sum(2) / count, (data.points * weight).sum(1) / count
    a, b = (flat - mean[:, :, None]) * weight, (data.points - target[:, None]) * weight
    energy, spread = b.square().sum((1, 2)).clamp(min=TINY), a.square().sum((2, 3)).clamp(min=TINY)
    # A constellation that fits badly would shrink to a point; half the size that equal spreads have is small enough.
    scale = ((a * b).sum((2, 3)) / spread).maximum(0.5 * (energy / spread).sqrt())
    residual = (scale[..., None, None] * a - b).square().sum((2, 3)) / energy
    return WeakPoses(rotation, scale, target - scale[..., None] * mean, residual, _correlation(turned[..., 2], data))


def _correlation(depth: Tensor, data: Constellations) -> Tensor:
    known = data.measured.double()
    count = known.sum(1)
    mean = (depth * known).sum(-1) / count.clamp(min=1)
    away = (depth - mean[..., None]) * known
    inverse = ((data.inverse - ((data.inverse * known).sum(1) / count.clamp(min=1))[:, None]) * known).expand_as(away)
    scale = (away.square().sum(-1) * inverse.square().sum(-1)).clamp(min=TINY).sqrt()
    return torch.where(count >= 3, -(away * inverse).sum(-1) / scale, 0.0)


def refined(shapes: Tensor, data: Constellations, poses: WeakPoses) -> WeakPoses:
    """Gauss-Newton on rotation, log scale and shift of every image (reprojection only); poses that get worse stay as they were."""
    rotation, scale, shift = poses.rotation, poses.scale, poses.shift
    weight = data.visible.double()
    for _ in range(STEPS):
        turned = torch.einsum("bnij,bkj->bnki", rotation, shapes)
        flat = scale[..., None, None] * turned[..., :2]
        residual = (data.points - flat - shift[..., None, :]) * weight[..., None]
        by_rotation = -scale[..., None, None, None] * cross_matrix(turned)[..., :2, :]
        identity = torch.eye(2, dtype=flat.dtype).expand(*flat.shape, 2)
        jacobian = torch.cat([by_rotation, flat[..., None], identity], -1) * weight[..., None, None]
        jacobian = jacobian.flatten(2, 3)
        normal = jacobian.transpose(-1, -2) @ jacobian
        damping = 1e-3 * normal.diagonal(dim1=-2, dim2=-1) + 1e-9
        gradient = (jacobian.transpose(-1, -2) @ residual.flatten(2)[..., None])[..., 0]
        step = torch.linalg.solve(normal + torch.diag_embed(damping), gradient)
        turn = _at_most(step[..., :3], 0.4)
        rotation = rotation_from_vector(turn) @ rotation
        scale = scale * step[..., 3].clamp(-0.3, 0.3).exp()
        shift = shift + step[..., 4:]
    moved = closed_form(shapes, data, rotation)
    better = moved.residual < poses.residual
    return WeakPoses(
        *(
            torch.where(better.reshape(*better.shape, *[1] * (new.ndim - 2)), new, old)
            for new, old in zip(vars(moved).values(), vars(poses).values(), strict=True)
        )
    )


def _at_most(vector: Tensor, limit: float) -> Tensor:
    return vector * (limit / vector.norm(dim=-1, keepdim=True).clamp(min=limit))
