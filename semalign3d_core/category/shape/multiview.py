"""Start without depth values: alternation of weak-perspective poses and shape, with the mirror symmetry built in."""

from dataclasses import dataclass

import torch

from semalign3d_core.category.annotations.constellations import MIRROR, mirror_rotation, symmetrised
from semalign3d_core.category.shape.weak_perspective import WeakPoses, best_of_bank, closed_form, refined
from semalign3d_core.geometry.rotations import shape_diameter, uniform_rotations


@dataclass(frozen=True)
class MultiviewOptions:
    """starts: random shapes; rounds: alternations, of which the first ``bank_rounds`` search all rotations;
    bank: rotations searched; depth_weight: of 1 - correlation of -z with the inverse depth; ridge: pull to the last shape."""

    starts: int = 8
    rounds: int = 30
    bank_rounds: int = 20
    bank: int = 600
    depth_weight: float = 0.3
    ridge: float = 0.02


@dataclass(frozen=True)
class MultiviewStart:
    """shape (K, 3), diameter 1; cost: mean clipped residual; diversity: smallest RMS component of the viewing directions
    in the object frame (0.58 for views from everywhere); correlation: mean of -z with the inverse depth before the sign was chosen."""

    shape: torch.Tensor
    cost: float
    diversity: float
    correlation: float


def multiview_start(data, options=None, generator=None):
    """The shape that best explains all images under weak perspective; see :class:`MultiviewStart`."""
    options = options or MultiviewOptions()
    generator = generator or torch.Generator().manual_seed(0)
    rotations = uniform_rotations(options.bank, torch.float64)
    shapes = torch.randn(options.starts, data.count, 3, generator=generator, dtype=torch.float64)
    shapes = _normalised(symmetrised(shapes, data.flip))
    poses = None
    for step in range(options.rounds):
        if step < options.bank_rounds:
            poses = best_of_bank(shapes, data, rotations, options.depth_weight)
        else:
            poses = closed_form(shapes, data, poses.rotation)
        poses = refined(shapes, data, poses)
        shapes = _normalised(_solved_shape(shapes, data, poses, options.ridge))
    poses = refined(shapes, data, closed_form(shapes, data, poses.rotation))
    cost = poses.residual.clamp(max=0.1).mean(1)
    best = int(cost.argmin())
    return _handed(shapes[best], _only(poses, best), data, float(cost[best]))


def _only(poses, index):
    return WeakPoses(**{name: value[index : index + 1] for name, value in vars(poses).items()})


def _handed(shape, poses, data, cost):
    """Orthographic views allow the depth-reversed shape; the sign of the correlation with depth decides."""
    seen = data.measured.sum(1) >= 3
    correlation = float(poses.correlation[0][seen].mean()) if seen.any() else 0.0
    if correlation < 0:
        shape = shape * MIRROR
    return MultiviewStart(shape, cost, view_diversity(poses.rotation[0], data.flip), correlation)


def view_diversity(rotations, flip):
    """Smallest root-mean-square component of the viewing directions (N, 3, 3 -> R^T e_z) in the object frame."""
    rotations = rotations if flip is None else torch.cat([rotations, mirror_rotation(rotations)])
    directions = rotations[:, 2]
    moments = directions.T @ directions / len(directions)
    return float(torch.linalg.eigvalsh(moments)[0].clamp(min=0).sqrt())


def _solved_shape(shapes, data, poses, ridge):
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
    pull = ridge * normal.diagonal(dim1=-2, dim2=-1).mean((1, 2))[:, None, None, None] + 1e-9
    identity = torch.eye(3, dtype=normal.dtype)
    return torch.linalg.solve(normal + pull * identity, (right + pull[..., 0] * shapes)[..., None])[..., 0]


def _normalised(shapes):
    centred = shapes - shapes.mean(-2, keepdim=True)
    return centred / shape_diameter(centred).clamp(min=1e-9)[..., None, None]
