"""Poses with deformation, the unknowns of the fast solver: where points project, and the derivative of that. What solvers return."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.geometry.camera import project
from semalign3d_core.geometry.rotations import similarity_alignment
from semalign3d_core.runtime.values import ShortRepr

NEAREST = 0.2  # points are kept at least this far in front of the camera (the object's mean depth is 1)
SHIFT, SCALE, FOCAL, MODES = slice(0, 2), 3, 4, 5  # layout of ``Poses.parameters``; 2 is the depth of the origin, which stays 1
RIGID = 3 + MODES  # unknowns besides the modes: rotation vector, then the layout of ``Poses.parameters``
TYPICAL_SCALE = 0.4  # of an object of diameter 1 at depth 1 that fills 60 % of the image at f = 1.5


@dataclass(frozen=True, repr=False)
class Poses(ShortRepr):
    """B poses ``x = exp(log_scale) R (X0 + sum a_m modes_m) + (shift, 1)`` seen with focal length ``focal exp(log_focal)``.

    rotation: (B, 3, 3); parameters: (B, 5 + M): shift (2), 1, log scale, log focal, mode coefficients a (M)
    """

    rotation: Tensor
    parameters: Tensor

    @classmethod
    def rigid(cls, rotation: Tensor, shift: Tensor, log_scale: Tensor, modes: int) -> "Poses":
        """Undeformed poses at the observation's own focal length."""
        return cls.deformed(rotation, shift, log_scale, torch.zeros_like(log_scale), shift.new_zeros(len(shift), modes))

    @classmethod
    def deformed(cls, rotation: Tensor, shift: Tensor, log_scale: Tensor, log_focal: Tensor, coefficients: Tensor) -> "Poses":
        """From its parts."""
        return cls(rotation, torch.cat([shift, torch.ones_like(shift[:, :1]), log_scale[:, None], log_focal[:, None], coefficients], 1))

    def __getitem__(self, index: Tensor | slice) -> "Poses":
        return Poses(self.rotation[index], self.parameters[index])

    @property
    def shift(self) -> Tensor:
        """(B, 2)."""
        return self.parameters[:, SHIFT]

    @property
    def translation(self) -> Tensor:
        """(B, 3)."""
        return self.parameters[:, :SCALE]

    @property
    def log_scale(self) -> Tensor:
        """(B,)."""
        return self.parameters[:, SCALE]

    @property
    def log_focal(self) -> Tensor:
        """(B,)."""
        return self.parameters[:, FOCAL]

    @property
    def coefficients(self) -> Tensor:
        """(B, M)."""
        return self.parameters[:, MODES:]

    def keypoints(self, category: CategoryTensors) -> Tensor:
        """Keypoints X (B, K, 3) in the camera frame."""
        mean, modes = category.shape, category.modes
        shape = torch.addmm(mean.flatten(), self.coefficients, modes.flatten(1)).unflatten(1, mean.shape)
        moved = self.log_scale.exp()[:, None, None] * shape @ self.rotation.transpose(1, 2)
        return moved + self.translation[:, None]


@dataclass(frozen=True, repr=False)
class Candidates(ShortRepr):
    """B solutions of one image.

    keypoints: (B, K, 3) in the camera frame (mean depth near 1); focal: (B, 2); rotations: (B, 3, 3) object to camera
    trace:     (steps,) the solver's own objective after every step;  poses: of a solver that has them
    starts:    (S, K, 3) where it began; start_scores: (S,)
    early:     of a solver that drops starts: their rotations (S, 3, 3) and objective (S,) before it did so for the first time
    """

    keypoints: Tensor
    focal: Tensor
    rotations: Tensor
    trace: Tensor
    starts: Tensor | None = None
    start_scores: Tensor | None = None
    poses: Poses | None = None
    early: tuple[Tensor, Tensor] | None = None


def poses_of_keypoints(category: CategoryTensors, keypoints: Tensor, log_focal: Tensor) -> Poses:
    """:class:`Poses` nearest to keypoints (B, K, 3) in the camera frame, seen with log_focal (B,): Procrustes, then the modes."""
    scale, rotation, translation = similarity_alignment(category.shape.expand_as(keypoints), keypoints)
    shape = (keypoints - translation[:, None]) @ rotation / scale[:, None, None]
    coefficients = torch.einsum("mkc,bkc->bm", category.modes, shape - category.shape)
    shift, log_scale = translation[:, :2] / translation[:, 2:], (scale / translation[:, 2]).log()
    return Poses.deformed(rotation, shift, log_scale, log_focal, coefficients)


def project_points(points: Tensor, focal: Tensor, principal: Tensor) -> Tensor:
    """Camera-frame points (B, N, 3) to normalised positions (B, N, 2); points behind the camera are taken just before it."""
    safe = torch.cat([points[..., :2], points[..., 2:].clamp(min=NEAREST)], -1)
    return project(safe, focal[:, None], principal)


def poses_in_boxes(category: CategoryTensors, observation: Observation, rotations: Tensor, boxes: Tensor) -> Poses:
    """Rigid :class:`Poses` with the given rotations (B, 3, 3) that fill boxes (B, 4), by least squares on both extents."""
    projected, _ = reduced_projection(category.points, rotations)
    scale, centre = fit_box(projected.amin(1), projected.amax(1), boxes)
    offset = (centre - observation.principal) / observation.focal
    return Poses.rigid(rotations, offset, (scale / observation.focal.mean(-1)).log(), len(category.modes))


def reduced_projection(points: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """Projection (B, J, 2) for f = 1 of points (J, 3) at a typical distance, and their depth (B, J) relative to it."""
    rotated = points @ rotations.transpose(1, 2)
    return rotated[..., :2] / (1 + TYPICAL_SCALE * rotated[..., 2:]), rotated[..., 2]


def fit_box(low: Tensor, high: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (...) and place of the origin (..., 2) that move extents [low, high] (..., 2) onto boxes (..., 4)."""
    extent, target = high - low, boxes[..., 2:] - boxes[..., :2]
    scale = (extent * target).sum(-1) / (extent * extent).sum(-1).clamp(min=1e-12)
    return scale, (boxes[..., 2:] + boxes[..., :2] - scale[..., None] * (high + low)) / 2


# Where the points project, and the derivative of that.


@dataclass(frozen=True, repr=False)
class Projection(ShortRepr):
    """B poses of J points. Image positions are normalised and relative to the principal point.

    places: (B, 2, J) projections; ray: (B, 2, J) x / z; slope: (B, 2, J) focal over depth; turning: (B, 3, 3) rotation times scale;
    turned: (B, 3, J) points after it; position: (B, 3, J) points in the camera frame
    """

    places: Tensor
    ray: Tensor
    slope: Tensor
    turning: Tensor
    turned: Tensor
    position: Tensor


class DeformableCloud:
    """Some dense points of a :class:`CategoryTensors`, then all its keypoints."""

    def __init__(self, category: CategoryTensors, dense: Tensor):
        """dense: (P,) indices of the dense points."""
        self.dense, self.dense_index = len(dense), dense
        index = torch.cat([dense, torch.arange(category.dense, len(category.points), device=dense.device)])
        modes = category.point_modes[:, index]  # (3, J, M)
        self.mean = category.points[index].T.contiguous()
        self.mode_columns = modes.flatten(0, 1).T.contiguous()  # (M, 3 J)
        self.modes_of = torch.nn.functional.pad(modes.permute(1, 0, 2), (0, -modes.shape[2] % 16)).contiguous()  # for descend.c
        self.mode_rows = modes.permute(2, 0, 1)[:, :, None].contiguous().unbind(1)  # 3 of (M, 1, J)
        self.parts = (SCALE, 2, modes.shape[2])  # of ``Poses.parameters``: translation, logarithms, coefficients
        self.ones = torch.ones_like(self.mean[None, :1])
        self.generators = tuple(_rigid_generators(self.mean, known)[None] for known in (False, True))

    def project(self, poses: Poses, focal: Tensor) -> Projection:
        """:class:`Projection` of :class:`Poses` with focal lengths (2,) times exp(log_focal)."""
        translation, logarithms, coefficients = poses.parameters.split(self.parts, 1)
        scale, zoom = logarithms.exp().split(1, 1)
        shape = torch.addmm(self.mean.view(-1), coefficients, self.mode_columns).view(len(coefficients), *self.mean.shape)
        turning = poses.rotation * scale[..., None]
        turned = torch.bmm(turning, shape)
        position = turned + translation[..., None]
        plane, depth = position.split((2, 1), 1)
        inverse = depth.clamp(min=NEAREST).reciprocal_()
        ray, focal = plane * inverse, (focal * zoom)[..., None]
        return Projection(focal * ray, ray, focal * inverse, turning, turned, position)

    def jacobian(self, projection: Projection, focal_known: bool) -> Tensor:
        """Derivative (B, D, 2, J) of the places by rotation vector, shift, log scale, log focal and mode coefficients."""
        p, (batch, _, points) = projection, projection.turned.shape
        basis = torch.cat([p.turned, p.position, self.ones.expand(batch, -1, -1)], 1)
        moved = torch.bmm(self.generators[focal_known].expand(batch, -1, -1), basis).view(batch, RIGID, 3, points)
        result = torch.empty(batch, RIGID + self.parts[2], 2, points, dtype=basis.dtype, device=basis.device)
        rigid, bent = result.split((RIGID, self.parts[2]), 1)
        ray, slope = p.ray[:, None], p.slope[:, None]
        torch.mul(_across(moved, ray), slope, out=rigid)
        # Derivative of the place by the coordinates of the object frame, 3 of (B, 1, 2, J), applied to those of the modes.
        local = _across(p.turning.transpose(1, 2)[..., None], ray).mul_(slope)[:, None].unbind(2)
        torch.mul(self.mode_rows[0], local[0], out=bent)
        bent.addcmul_(self.mode_rows[1], local[1]).addcmul_(self.mode_rows[2], local[2])
        return result


def _across(motion: Tensor, ray: Tensor) -> Tensor:
    """(..., 2, J) how far motions (..., 3, J) in the camera frame move a point in the image, at unit slope."""
    plane, depth = motion.split((2, 1), -2)
    return torch.addcmul(plane, ray, depth, value=-1)


def _rigid_generators(like: Tensor, focal_known: bool) -> Tensor:
    """The (24, 7) matrix that gives the derivatives of a point by the rigid unknowns.

    It makes of (turned point, x, y, z, 1) the derivatives (8 x 3) by rotation vector, shift, nothing (the depth of the origin stays), log
    scale, and, as if it moved the point, log focal; a known focal length has none.
    """
    generators = torch.zeros(RIGID, 3, 7)
    generators[0, 1, 2], generators[0, 2, 1] = -1, 1  # e_x x turned
    generators[1, 0, 2], generators[1, 2, 0] = 1, -1
    generators[2, 0, 1], generators[2, 1, 0] = -1, 1
    generators[3, 0, 6] = generators[4, 1, 6] = 1
    generators[3 + SCALE, [0, 1, 2], [0, 1, 2]] = 1
    if not focal_known:
        generators[3 + FOCAL, 0, 3] = generators[3 + FOCAL, 1, 4] = 1
    return generators.reshape(-1, 7).to(like)
