"""Start without depth values: alternation of weak-perspective poses and shape, with the mirror symmetry built in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.shape.mirror import MIRROR, symmetrised, with_mirror_poses
from semalign3d_core.category.shape.weak_perspective import WeakPoses, best_of_bank, closed_form, refined
from semalign3d_core.geometry.rotations import shape_diameter

STARTS = 8  # random shapes that are tried together
BANK_ROUNDS, ROUNDS = 20, 10  # alternations that search all rotations, and further ones that go on from the last
DEPTH_WEIGHT = 0.3  # of 1 - correlation of -z with the inverse depth, in the search
RIDGE = 0.02  # pull to the last shape


@dataclass(frozen=True)
class MultiviewStart:
    """A shape found from many views.

    shape: (K, 3), diameter 1;  cost: mean clipped residual;  diversity: smallest RMS component of the viewing directions in the object
    frame (0.58 for views from everywhere);  correlation: mean of -z with the inverse depth before the sign was chosen
    """

    shape: Tensor
    cost: float
    diversity: float
    correlation: float


def multiview_start(data: Constellations, generator: torch.Generator) -> MultiviewStart:
    """The shape that best explains all images under weak perspective; see :class:`MultiviewStart`."""
    shapes = torch.randn(STARTS, data.count, 3, generator=generator, dtype=torch.float64)
    shapes = _normalised(symmetrised(shapes, data.flip))
    for _ in range(BANK_ROUNDS):
        poses = refined(shapes, data, best_of_bank(shapes, data, DEPTH_WEIGHT))
        shapes = _normalised(_solved_shape(shapes, data, poses))
    for _ in range(ROUNDS):
        poses = refined(shapes, data, closed_form(shapes, data, poses.rotation))
        shapes = _normalised(_solved_shape(shapes, data, poses))
    poses = refined(shapes, data, closed_form(shapes, data, poses.rotation))
    cost = poses.residual.clamp(max=0.1).mean(1)
    best = int(cost.argmin())
    return _handed(shapes[best], poses.rotation[best], poses.correlation[best], data, float(cost[best]))


def _handed(shape: Tensor, rotation: Tensor, correlation: Tensor, data: Constellations, cost: float) -> MultiviewStart:
    """The start from a shape or its reversal in depth: orthographic views allow both, the sign of the correlation with depth decides.

    Where no depth is known, what the images show decides: keypoints that are annotated are nearer than those that the object hides.
    """
    seen = data.measured.sum(1) >= 3
    mean = float(correlation[seen].mean()) if seen.any() else _shown_are_near(shape, rotation, data)
    return MultiviewStart(shape * MIRROR if mean < 0 else shape, cost, view_diversity(rotation, data.flip), mean)


def _shown_are_near(shape: Tensor, rotation: Tensor, data: Constellations) -> float:
    """Correlation of -z with being annotated, over the keypoints of each image, mean over the images; 0 where all are annotated."""
    depth = -(rotation @ shape.T)[:, 2]
    shown = data.visible.to(depth)
    a, b = (values - values.mean(1, keepdim=True) for values in (depth, shown))
    found = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt().clamp(min=1e-9)
    return float(found.mean())


def view_diversity(rotations: Tensor, flip: Tensor | None) -> float:
    """Smallest root-mean-square component of the viewing directions (N, 3, 3 -> R^T e_z) in the object frame."""
    directions = with_mirror_poses(rotations, flip)[:, 2]
    moments = directions.T @ directions / len(directions)
    return float(torch.linalg.eigvalsh(moments)[0].clamp(min=0).sqrt())


def _solved_shape(shapes: Tensor, data: Constellations, poses: WeakPoses) -> Tensor:
    """Linear least squares for the shape (per keypoint 3 x 3), residuals in units of the object, mirrored partners added."""
    weight = 1 / (1 + poses.residual / 0.05)
    flat = poses.rotation[:, :, :2]
    target = (data.points - poses.shift[:, :, None]) / poses.scale[..., None, None]
    each = weight[:, :, None] * data.visible
    normal = torch.einsum("bnk,bnia,bnic->bkac", each, flat, flat)
    right = torch.einsum("bnk,bnia,bnki->bka", each, flat, target)
    if data.flip is not None:
        sign = MIRROR[:, None] * MIRROR
        normal = normal + sign * normal[:, data.flip]
        right = right + MIRROR * right[:, data.flip]
    # The shift of each image is free, so the ridge also ties down keypoints that too few images see.
    pull = RIDGE * normal.diagonal(dim1=-2, dim2=-1).mean((1, 2))[:, None, None, None] + 1e-9
    identity = torch.eye(3, dtype=normal.dtype)
    return torch.linalg.solve(normal + pull * identity, (right + pull[..., 0] * shapes)[..., None])[..., 0]


def _normalised(shapes: Tensor) -> Tensor:
    centred = shapes - shapes.mean(-2, keepdim=True)
    return centred / shape_diameter(centred).clamp(min=1e-9)[..., None, None]
