"""Poses with deformation: the unknowns of the fast solver, and candidates: what every solver returns."""

from dataclasses import dataclass, fields

import torch

from semalign3d_core.camera import project
from semalign3d_core.geometry import similarity_alignment

NEAREST = 0.2  # points are kept at least this far in front of the camera (the object's mean depth is 1)


@dataclass(frozen=True)
class Poses:
    """B placements ``x = exp(log_scale) R (X0 + sum a_m modes_m) + (shift, 1)`` seen with focal length ``focal exp(log_focal)``.

    rotation: (B, 3, 3); shift: (B, 2); log_scale: (B,); log_focal: (B,); coefficients: (B, M)
    """

    rotation: torch.Tensor
    shift: torch.Tensor
    log_scale: torch.Tensor
    log_focal: torch.Tensor
    coefficients: torch.Tensor

    def __getitem__(self, index):
        return Poses(*(getattr(self, f.name)[index] for f in fields(self)))

    def keypoints(self, category):
        """Keypoints X (B, K, 3) in the camera frame."""
        shape = category.shape + torch.einsum("bm,mkc->bkc", self.coefficients, category.modes)
        return self.place(shape)

    def place(self, points):
        """Object-frame points (B, N, 3) to the camera frame."""
        moved = self.log_scale.exp()[:, None, None] * points @ self.rotation.transpose(1, 2)
        return moved + torch.cat([self.shift, torch.ones_like(self.shift[:, :1])], -1)[:, None]


@dataclass(frozen=True)
class Candidates:
    """B solutions of one image: keypoints (B, K, 3) in the camera frame (mean depth near 1), focal (B, 2), and the
    solver's own objective after every step, trace (steps,); where it began, starts (S, K, 3) and start_scores (S,)."""

    keypoints: torch.Tensor
    focal: torch.Tensor
    trace: torch.Tensor
    starts: torch.Tensor | None = None
    start_scores: torch.Tensor | None = None

    def rotations(self, category):
        """(B, 3, 3) object-to-camera rotations by Procrustes of X to X0."""
        return similarity_alignment(category.shape.expand_as(self.keypoints), self.keypoints)[1]


def project_points(points, focal, principal):
    """Camera-frame points (B, N, 3) to normalised positions (B, N, 2); points behind the camera are taken just before it."""
    safe = torch.cat([points[..., :2], points[..., 2:].clamp(min=NEAREST)], -1)
    return project(safe, focal[:, None], principal)


def poses_in_boxes(category, observation, rotations, boxes):
    """Rigid :class:`Poses` with the given rotations (B, 3, 3) that fill boxes (B, 4), by least squares on both extents."""
    q = _reduced_projection(category.points, rotations)
    low, high = q.amin(1), q.amax(1)
    scale, centre = fit_box(low, high, boxes)
    offset = (centre - observation.principal) / observation.focal
    zero = torch.zeros_like(scale)
    log_scale = (scale / observation.focal.mean(-1)).log()
    return Poses(rotations, offset, log_scale, zero, zero[:, None].expand(-1, len(category.modes)).contiguous())


TYPICAL_SCALE = 0.4  # of an object of diameter 1 at depth 1 that fills 60 % of the image at f = 1.5


def _reduced_projection(points, rotations):
    """Projection (B, J, 2) for f = 1 of points (J, 3) at a typical distance."""
    rotated = points @ rotations.transpose(1, 2)
    return rotated[..., :2] / (1 + TYPICAL_SCALE * rotated[..., 2:])


def fit_box(low, high, boxes):
    """Scale (...) and place of the origin (..., 2) that move extents [low, high] (..., 2) onto boxes (..., 4)."""
    extent, target = high - low, boxes[..., 2:] - boxes[..., :2]
    scale = (extent * target).sum(-1) / (extent * extent).sum(-1).clamp(min=1e-12)
    return scale, (boxes[..., 2:] + boxes[..., :2] - scale[..., None] * (high + low)) / 2


