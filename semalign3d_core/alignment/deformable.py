"""The points of a category under rigid pose and deformation modes: where they project, and the derivative of that."""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.poses import FOCAL, MODES, NEAREST, SCALE

RIGID = 3 + MODES  # unknowns besides the modes: rotation vector, then the layout of ``Poses.rest``


@dataclass(frozen=True)
class Projection:
    """B placements of J points. Image positions are normalised and relative to the principal point.

    places: (B, 2, J) projections; ray: (B, 2, J) x / z; slope: (B, 2, J) focal over depth; turning: (B, 3, 3) rotation times scale;
    turned: (B, 3, J) points after it; position: (B, 3, J) points in the camera frame
    """

    places: torch.Tensor
    ray: torch.Tensor
    slope: torch.Tensor
    turning: torch.Tensor
    turned: torch.Tensor
    position: torch.Tensor


class DeformableCloud:
    """Some dense points of a :class:`CategoryTensors`, then all its keypoints."""

    def __init__(self, category, dense):
        """dense: (P,) indices of the dense points."""
        self.dense, self.dense_index = len(dense), dense
        index = torch.cat([dense, torch.arange(category.dense, len(category.points), device=dense.device)])
        modes = category.point_modes[:, index]  # (3, J, M)
        self.mean = category.points[index].T.contiguous()
        self.mode_columns = modes.flatten(0, 1).T.contiguous()  # (M, 3 J)
        self.mode_rows = modes.permute(2, 0, 1)[:, :, None].contiguous()  # (M, 3, 1, J)
        self.ones = torch.ones_like(self.mean[:1])
        self.generators = tuple(_rigid_generators(self.mean, known) for known in (False, True))

    def project(self, poses, focal):
        """:class:`Projection` of :class:`Poses` with focal lengths (2,) times exp(log_focal)."""
        shape = torch.addmm(self.mean.view(-1), poses.coefficients, self.mode_columns).view(len(poses.rest), *self.mean.shape)
        turning = poses.log_scale.exp()[:, None, None] * poses.rotation
        turned = torch.bmm(turning, shape)
        position = turned + poses.translation[..., None]
        inverse = position[:, 2:].clamp(min=NEAREST).reciprocal_()
        ray = position[:, :2] * inverse
        focal = (focal * poses.log_focal.exp()[:, None])[..., None]
        return Projection(focal * ray, ray, focal * inverse, turning, turned, position)

    def jacobian(self, projection, focal_known):
        """Derivative (B, D, 2, J) of the places by rotation vector, shift, log scale, log focal and mode coefficients."""
        p, (batch, _, points) = projection, projection.turned.shape
        basis = torch.cat([p.turned, p.position, self.ones.expand(batch, -1, -1)], 1)
        moved = (self.generators[focal_known] @ basis).view(batch, RIGID, 3, points)
        result = torch.empty(batch, RIGID + len(self.mode_rows), 2, points, dtype=basis.dtype, device=basis.device)
        ray, slope = p.ray[:, None], p.slope[:, None]
        torch.mul(torch.addcmul(moved[:, :, :2], ray, moved[:, :, 2:], value=-1), slope, out=result[:, :RIGID])
        axes = p.turning.transpose(1, 2)[..., None]  # derivative of the camera-frame point by the coordinates of the object frame
        local = torch.addcmul(axes[:, :, :2], ray, axes[:, :, 2:], value=-1).mul_(slope)[:, None]  # of the place, (B, 1, 3, 2, J)
        bent = result[:, RIGID:]
        torch.mul(self.mode_rows[:, 0], local[:, :, 0], out=bent)
        bent.addcmul_(self.mode_rows[:, 1], local[:, :, 1]).addcmul_(self.mode_rows[:, 2], local[:, :, 2])
        return result


def _rigid_generators(like, focal_known):
    """(24, 7) matrix that makes of (turned point, x, y, z, 1) the derivatives (8 x 3) of a point by rotation vector, shift, nothing (the
    depth of the origin stays), log scale, and, as if it moved the point, log focal; a known focal length has none."""
    generators = torch.zeros(RIGID, 3, 7)
    generators[0, 1, 2], generators[0, 2, 1] = -1, 1  # e_x x turned
    generators[1, 0, 2], generators[1, 2, 0] = 1, -1
    generators[2, 0, 1], generators[2, 1, 0] = -1, 1
    generators[3, 0, 6] = generators[4, 1, 6] = 1
    generators[3 + SCALE, [0, 1, 2], [0, 1, 2]] = 1
    if not focal_known:
        generators[3 + FOCAL, 0, 3] = generators[3 + FOCAL, 1, 4] = 1
    return generators.reshape(-1, 7).to(like)
