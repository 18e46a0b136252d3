"""Poses with deformation: the unknowns of the fast solver, and candidates: what every solver returns."""

from dataclasses import dataclass

import torch

from semalign3d_core.geometry.camera import project
from semalign3d_core.geometry.rotations import similarity_alignment

NEAREST = 0.2  # points are kept at least this far in front of the camera (the object's mean depth is 1)
SHIFT, SCALE, FOCAL, MODES = slice(0, 2), 3, 4, 5  # layout of ``Poses.rest``; 2 is the depth of the origin, which stays 1


@dataclass(frozen=True)
class Poses:
    """B placements ``x = exp(log_scale) R (X0 + sum a_m modes_m) + (shift, 1)`` seen with focal length ``focal exp(log_focal)``.

    rotation: (B, 3, 3); rest: (B, 5 + M): shift (2), 1, log scale, log focal, mode coefficients a (M)
    """

    rotation: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def rigid(cls, rotation, shift, log_scale, modes):
        """Undeformed poses at the observation's own focal length."""
        return cls.deformed(rotation, shift, log_scale, torch.zeros_like(log_scale), shift.new_zeros(len(shift), modes))

    @classmethod
    def deformed(cls, rotation, shift, log_scale, log_focal, coefficients):
        """From its parts."""
        return cls(rotation, torch.cat([shift, torch.ones_like(shift[:, :1]), log_scale[:, None], log_focal[:, None], coefficients], 1))

    def __getitem__(self, index):
        return Poses(self.rotation[index], self.rest[index])

    @property
    def shift(self):
        """(B, 2)."""
        return self.rest[:, SHIFT]

    @property
    def translation(self):
        """(B, 3)."""
        return self.rest[:, :SCALE]

    @property
    def log_scale(self):
        """(B,)."""
        return self.rest[:, SCALE]

    @property
    def log_focal(self):
        """(B,)."""
        return self.rest[:, FOCAL]

    @property
    def coefficients(self):
        """(B, M)."""
        return self.rest[:, MODES:]

    def keypoints(self, category):
        """Keypoints X (B, K, 3) in the camera frame."""
        shape = category.shape + torch.einsum("bm,mkc->bkc", self.coefficients, category.modes)
        moved = self.log_scale.exp()[:, None, None] * shape @ self.rotation.transpose(1, 2)
        return moved + self.translation[:, None]


@dataclass(frozen=True)
class Candidates:
    """B solutions of one image: keypoints (B, K, 3) in the camera frame (mean depth near 1), focal (B, 2), rotations (B, 3, 3)
    object to camera, and the solver's own objective after every step, trace (steps,); where it began, starts (S, K, 3) and
    start_scores (S,); the :class:`Poses` of a solver that has them; of one that drops starts, early: their rotations (S, 3, 3) and
    objective (S,) before it did so for the first time."""

    keypoints: torch.Tensor
    focal: torch.Tensor
    rotations: torch.Tensor
    trace: torch.Tensor
    starts: torch.Tensor | None = None
    start_scores: torch.Tensor | None = None
    poses: Poses | None = None
    early: tuple | None = None


def poses_of_keypoints(category, keypoints, log_focal):
    """:class:`Poses` nearest to keypoints (B, K, 3) in the camera frame, seen with log_focal (B,): Procrustes, then the modes."""
    keypoints = keypoints / keypoints[..., 2:].mean(1, keepdim=True)
    scale, rotation, translation = similarity_alignment(category.shape.expand_as(keypoints), keypoints)
    shape = (keypoints - translation[:, None]) @ rotation / scale[:, None, None]
    coefficients = torch.einsum("mkc,bkc->bm", category.modes, shape - category.shape)
    shift, log_scale = translation[:, :2] / translation[:, 2:], (scale / translation[:, 2]).log()
    return Poses.deformed(rotation, shift, log_scale, log_focal, coefficients)


def project_points(points, focal, principal):
    """Camera-frame points (B, N, 3) to normalised positions (B, N, 2); points behind the camera are taken just before it."""
    safe = torch.cat([points[..., :2], points[..., 2:].clamp(min=NEAREST)], -1)
    return project(safe, focal[:, None], principal)


def poses_in_boxes(category, observation, rotations, boxes):
    """Rigid :class:`Poses` with the given rotations (B, 3, 3) that fill boxes (B, 4), by least squares on both extents."""
    q = reduced_projection(category.points, rotations)
    scale, centre = fit_box(q.amin(1), q.amax(1), boxes)
    offset = (centre - observation.principal) / observation.focal
    return Poses.rigid(rotations, offset, (scale / observation.focal.mean(-1)).log(), len(category.modes))


TYPICAL_SCALE = 0.4  # of an object of diameter 1 at depth 1 that fills 60 % of the image at f = 1.5


def reduced_projection(points, rotations):
    """Projection (B, J, 2) for f = 1 of points (J, 3) at a typical distance."""
    rotated = points @ rotations.transpose(1, 2)
    return rotated[..., :2] / (1 + TYPICAL_SCALE * rotated[..., 2:])


def fit_box(low, high, boxes):
    """Scale (...) and place of the origin (..., 2) that move extents [low, high] (..., 2) onto boxes (..., 4)."""
    extent, target = high - low, boxes[..., 2:] - boxes[..., :2]
    scale = (extent * target).sum(-1) / (extent * extent).sum(-1).clamp(min=1e-12)
    return scale, (boxes[..., 2:] + boxes[..., :2] - scale[..., None] * (high + low)) / 2
