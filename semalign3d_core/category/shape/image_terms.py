"""What the keypoints and the mask of an image say about pose and shape: residuals and their derivatives.

Parameters of an image, 6 + 3K: rotation vector and translation of the pose, displacement dX of the shape.
"""

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations, MaskFields
from semalign3d_core.category.shape.factor_model import NEAREST, FactorModel, projected
from semalign3d_core.geometry.rotations import cross_matrix

REPROJECTION_SD = 0.02  # of the object's size in the image
SMALLEST_SPREAD = 1e-6  # units of L, of the place of a keypoint


def reprojection_sd(data: Constellations) -> Tensor:
    """(N, 1) standard deviation of annotated keypoints in units of L."""
    return REPROJECTION_SD * data.size[:, None]


def point_jacobian(model: FactorModel, camera: Tensor) -> Tensor:
    """(N, K, 3, 6 + 3K): derivative of the keypoints (N, K, 3) in the camera frame by the parameters."""
    images, count = camera.shape[:2]
    jacobian = camera.new_zeros(images, count, 3, 6 + 3 * count)
    jacobian[..., :3] = -cross_matrix(camera - model.translation[:, None])
    jacobian[..., 3:6] = torch.eye(3, dtype=camera.dtype)
    blocks = jacobian[..., 6:].view(images, count, 3, count, 3)
    index = torch.arange(count)
    blocks[:, index, :, index] = model.rotation
    return jacobian


def reprojection(camera: Tensor, by_point: Tensor, data: Constellations) -> tuple[Tensor, Tensor, Tensor]:
    """Residual (N, 2K), Jacobian (N, 2K, 6 + 3K) and Cauchy weights (N, 2K) of the annotated keypoints.

    camera: (N, K, 3) keypoints in the camera frame; by_point: their :func:`point_jacobian`.
    """
    residual = data.points - projected(camera, data)
    sd = reprojection_sd(data)
    weight = data.visible / (1 + residual.square().sum(-1) / (9 * sd**2)) / sd**2
    return residual.flatten(1), _projection_jacobian(camera, by_point, data).flatten(1, 2), weight.repeat_interleave(2, dim=1)


def _projection_jacobian(camera: Tensor, by_point: Tensor, data: Constellations) -> Tensor:
    """(N, K, 2, 6 + 3K): derivative of the projected keypoints by the parameters."""
    depth, focal, place = camera[..., 2:].clamp(min=NEAREST), data.focal[:, None, None], projected(camera, data)
    return (focal / depth)[..., None] * by_point[..., :2, :] - (place / depth)[..., None] * by_point[..., 2:, :]


def place_spread(model: FactorModel, posterior: Tensor, data: Constellations) -> Tensor:
    """(N, K, 2, 2) Cholesky factor of the covariance of every keypoint's place in the image.

    posterior: (N, 6 + 3K, 6 + 3K) covariance of the parameters.
    """
    camera = model.in_camera()
    jacobian = _projection_jacobian(camera, point_jacobian(model, camera), data)
    covariance = (jacobian.flatten(1, 2) @ posterior).view_as(jacobian) @ jacobian.transpose(-1, -2)
    return torch.linalg.cholesky(covariance + SMALLEST_SPREAD**2 * torch.eye(2, dtype=covariance.dtype))


def places_around(places: Tensor, spread: Tensor | None) -> Tensor:
    """(4, N, K, 2) equally weighted cubature points of normal distributions in the image, exact for polynomials of third degree.

    places: (N, K, 2) their means; spread: (N, K, 2, 2) Cholesky factors of their covariances, or None: the means alone, (1, N, K, 2).
    """
    if spread is None:
        return places[None]
    axes = 2**0.5 * spread.movedim(-1, 0)
    return torch.cat([places + axes, places - axes])


def add_hidden(normal: Tensor, gradient: Tensor, model: FactorModel, camera: Tensor, by_point: Tensor, data: Constellations) -> None:
    """Adds to the normal equations (N, P, P) and (N, P), in place, that keypoints which the object hides lie behind its mask.

    Such a term depends on the pose and on the keypoint's own dX, whose derivative is the rotation: most blocks stay as they are.
    """
    if model.hidden is None or data.masks is None:
        return
    curvature, pull = mask_pull(model, model.hidden, camera, data, data.masks)
    rotation, count, index = model.rotation, pull.shape[1], torch.arange(pull.shape[1])
    pose = by_point[..., :6].transpose(-1, -2)  # (N, K, 6, 3)
    turned = curvature @ rotation[:, None]
    normal[:, :6, :6] += (pose @ curvature @ pose.transpose(-1, -2)).sum(1)
    mixed = (pose @ turned).transpose(1, 2).flatten(2)  # (N, 6, 3K)
    normal[:, :6, 6:] += mixed
    normal[:, 6:, :6] += mixed.transpose(1, 2)
    blocks = normal[:, 6:, 6:].unflatten(1, (count, 3)).unflatten(3, (count, 3))
    blocks[:, index, :, index] += (rotation.transpose(1, 2)[:, None] @ turned).transpose(0, 1)
    gradient[:, :6] += (pose @ pull[..., None])[..., 0].sum(1)
    gradient[:, 6:] += (pull @ rotation).flatten(1)


def mask_pull(model: FactorModel, hidden: Tensor, camera: Tensor, data: Constellations, masks: MaskFields) -> tuple[Tensor, Tensor]:
    """Curvature (N, K, 3, 3) and pull (N, K, 3) towards the mask, on keypoints in the camera frame that lie beside it.

    hidden: (N, K) how probably the object hides each; weights as in :func:`reprojection`, mean over the places where each may be.
    """
    depth, focal = camera[..., 2:].clamp(min=NEAREST), data.focal[:, None, None]
    place, sd = projected(camera, data), reprojection_sd(data)
    curvature, pull = camera.new_zeros(*camera.shape, 3), torch.zeros_like(camera)
    around = places_around(place, model.spread)
    for places in around:
        distance, direction = masks.beside(places)
        # Derivative of the distance by the point. The direction counts as constant: along the mask's outline a keypoint may slide.
        ahead = torch.cat([direction, -(direction * place).sum(-1, keepdim=True) / focal], dim=-1) * focal / depth
        weight = hidden * (distance > 0) / (1 + distance.square() / (9 * sd**2)) / sd**2 / len(around)
        pull += (weight * distance)[..., None] * ahead
        curvature += (weight[..., None] * ahead)[..., None] * ahead[..., None, :]
    return curvature, pull
