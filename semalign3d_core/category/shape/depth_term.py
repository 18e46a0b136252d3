"""What the depth map of an image says about pose and shape, whatever the unknown scale and offset of its values.

The keypoints of some objects, such as a bottle, are the two sides of their outline and lie in one plane. An image shows its tilt only by
foreshortening, which the proportions of the object hide, and by a depth map of unknown scale. But the surface between the two sides
bulges towards the camera, as a body of revolution does by half its width: how much the map rises there tells its scale, and with it
the tilt. The cross-section is taken as an ellipse.
"""

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations, Outline
from semalign3d_core.category.shape.factor_model import NEAREST, FactorModel
from semalign3d_core.category.surface.surface_map import best_plane, normal

DEPTH_SD = 0.1  # of depth readings, in diameters; fixed: re-estimated it collapses
STEEPEST = 0.3  # least |cosine| between plane normal and ray; steeper views do not show the bulge
ENDS = 0.02  # share of the object's length at both ends, where the camera may see a lid or the ground between the two sides
ENOUGH = 4  # readings that determine scale and offset of a map

Readings = tuple[Tensor, Tensor, Tensor]


def depth_readings(model: FactorModel, camera: Tensor, data: Constellations) -> Readings:
    """Where depth maps are compared with the shapes: z (N, M) of the shapes, the maps' values (N, M), and where known (N, M) bool.

    M readings per image: the keypoints (N, K, 3) ``camera``, and, for a flat category with thickness, the middles between its two sides.
    """
    if not model.thickness or data.outline is None or data.flip is None:
        return camera[..., 2], data.inverse, data.measured
    z = torch.cat([camera[..., 2], (camera + camera[:, data.flip])[..., 2] / 2], dim=1)
    z = z + bulge(model, camera, data, data.outline)[0]
    middles = data.outline.measured & inner_pairs(model.shape, data.flip)
    return z, torch.cat([data.inverse, data.outline.middle], dim=1), torch.cat([data.measured, middles], dim=1)


def depth_residual(model: FactorModel, camera: Tensor, by_point: Tensor, data: Constellations) -> Readings:
    """Residual (N, M), Jacobian (N, M, 6 + 3K) and weights (N, M) of the depth readings.

    1/z of the current shape is regressed on the map's values (without offset where depth is known up to scale); the
    residual is predicted minus current z, minus its mean, so that scale and offset of the map never become parameters.
    """
    gap, known, usable = _depth_gap(*depth_readings(model, camera, data), data.slope)
    count = known.sum(1)
    share = known / count.clamp(min=1)[:, None]
    jacobian = _readings_jacobian(model, camera, by_point, data)
    jacobian = jacobian - torch.einsum("nk,nkp->np", share, jacobian)[:, None]
    weight = known * ((count - 2) / count.clamp(min=1))[:, None] / (1 + (gap / (2 * DEPTH_SD)) ** 2) / DEPTH_SD**2
    return gap, jacobian, weight * usable[:, None]


def depth_costs(model: FactorModel, camera: Tensor, data: Constellations) -> Tensor:
    """(N,) robust squared residuals of the depth readings."""
    gap, known, _ = _depth_gap(*depth_readings(model, camera, data), data.slope)
    count = known.sum(1).clamp(min=1)
    return (count - 2) / count * (4 * torch.log1p((gap / (2 * DEPTH_SD)) ** 2)).sum(1)


def bulge(model: FactorModel, camera: Tensor, data: Constellations, outline: Outline) -> tuple[Tensor, Tensor]:
    """How much nearer than the keypoints' plane the surface is where depth maps are read, as a change of z, and its derivative.

    Returns (N, 2K) for the keypoints, then for the middles, and (N, 2K, 3) by the rotation vector.
    """
    half = (model.completed - model.completed[:, data.flip]).norm(dim=-1) / 2
    half_in_image = data.focal[:, None] * half / camera[..., 2]
    across = (1 - outline.inset / half_in_image.clamp(min=1e-6)).clamp(0, 1)
    height = model.thickness * half * (1 - across * across).sqrt()
    height = torch.cat([height, model.thickness * half], dim=1)
    middle = (camera + camera[:, data.flip]) / 2
    ray = torch.cat([camera / camera[..., 2:], middle / middle[..., 2:]], dim=1)
    axis = torch.nn.functional.normalize(normal(best_plane(model.shape), model.completed), dim=-1)
    axis = (model.rotation @ axis[..., None])[..., 0][:, None].expand_as(ray)
    cosine = (axis * ray).sum(-1)
    steep = cosine.abs().clamp(min=STEEPEST)
    turning = torch.linalg.cross(axis, ray) * (cosine.sign() * (cosine.abs() > STEEPEST) * height / steep**2)[..., None]
    return -height / steep, turning


def inner_pairs(shape: Tensor, flip: Tensor) -> Tensor:
    """(K,) bool: the first keypoint of every mirrored pair between the ends of a flat shape (K, 3) in its mirror frame."""
    plane = best_plane(shape) @ shape
    along = shape @ plane[plane[:, 0].abs().argmin()]  # the direction in the plane that the mirror leaves as it is
    span = along.max() - along.min()
    inner = (along > along.min() + ENDS * span) & (along < along.max() - ENDS * span)
    return inner & (torch.arange(len(flip)) < flip)


def _readings_jacobian(model: FactorModel, camera: Tensor, by_point: Tensor, data: Constellations) -> Tensor:
    """(N, M, 6 + 3K): derivative of the z of :func:`depth_readings`."""
    jacobian = by_point[..., 2, :]
    if not model.thickness or data.outline is None:
        return jacobian
    jacobian = torch.cat([jacobian, (jacobian + jacobian[:, data.flip]) / 2], dim=1)
    jacobian[..., :3] += bulge(model, camera, data, data.outline)[1]
    return jacobian


def _depth_gap(z: Tensor, value: Tensor, known: Tensor, slope: Tensor) -> Readings:
    """Predicted minus current z, minus its mean, (N, M); known (N, M) float; and which images can be used, (N,)."""
    known = known.double()
    predicted, usable = _predicted_depth(z.clamp(min=NEAREST), value, known, slope)
    gap = (predicted - z) * known
    return (gap - gap.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)) * known, known, usable


def _predicted_depth(depth: Tensor, value: Tensor, known: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Depth z (N, M) from the regression of 1/z on the map, and which images' regression is usable (enough points, positive slope)."""
    count = known.sum(1)
    target = 1 / depth
    has_offset = torch.isnan(slope)
    # Depth up to scale: 1/z is proportional to 1 + b v, a regression through the origin.
    value = torch.where(has_offset[:, None], value, 1 + slope.nan_to_num(nan=0.0)[:, None] * value)
    safe = count.clamp(min=1)
    mean_value = (value * known).sum(1) / safe * has_offset
    mean_target = (target * known).sum(1) / safe * has_offset
    a, b = value - mean_value[:, None], target - mean_target[:, None]
    slope = (a * b * known).sum(1) / (a * a * known).sum(1).clamp(min=1e-12)
    inverse = mean_target[:, None] + slope.clamp(min=0)[:, None] * a
    predicted = 1 / inverse.clamp(min=0.2 * target.mean(1, keepdim=True))
    return predicted, (count >= ENOUGH) & (slope > 0)
