"""Poses with deformation: the unknowns of the fast solver, and candidates: what every solver returns."""

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
        shape = category.shape + torch.einsum("bm,mkc->bkc", self.coefficients, category.modes)
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
    keypoints = keypoints / keypoints[..., 2:].mean(1, keepdim=True)
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
