"""The points of a category under rigid pose and deformation modes: where they project, and the derivative of that."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.gauss_newton.poses import FOCAL, MODES, NEAREST, SCALE, Poses
from semalign3d_core.runtime.values import ShortRepr

RIGID = 3 + MODES  # unknowns besides the modes: rotation vector, then the layout of ``Poses.parameters``


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
