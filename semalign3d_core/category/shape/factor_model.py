"""The factor model of a category: mean shape and covariance, and one pose and one completed shape per training image.

``Y = R (X0 + dX) + T`` in the camera frame, in units of the diameter of X0; dX is normal with mean 0 and covariance S.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.shape.mirror import MIRROR, symmetrised
from semalign3d_core.category.surface.surface_map import best_plane, normal
from semalign3d_core.geometry.rotations import shape_diameter, similarity_directions

NEAREST = 0.05  # diameters before the camera
SHRINKAGE = 0.05  # share of S that is made isotropic
SMALLEST_VARIANCE = 1e-12  # of a deformation mode


@dataclass(frozen=True)
class FactorModel:
    """What EM finds; all float64.

    shape:        (K, 3) X0, diameter 1, centred
    covariance:   (3K, 3K) S of the displacements
    rotation, translation: (N, 3, 3), (N, 3) poses, object to camera
    displacement: (N, K, 3) dX of each image's object
    error:        (N,) RMS reprojection error relative to the object's size
    weight:       (N,) of the images in the M step
    flat:         whether the keypoints are coplanar
    thickness:    depth over width of the cross-section of a flat category whose keypoints are the two sides of its outline, else 0
    hidden:       (N, K) how probably the object itself hides a keypoint; None before the masks are used
    spread:       (N, K, 2, 2) Cholesky factor of the covariance of each keypoint's place in the image; None before the masks are used,
                  and where the keypoints are coplanar: they are then the object's outline, and half of their places lie beside the mask
    """

    shape: Tensor
    covariance: Tensor
    rotation: Tensor
    translation: Tensor
    displacement: Tensor
    error: Tensor
    weight: Tensor
    flat: bool = False
    thickness: float = 0.0
    hidden: Tensor | None = None
    spread: Tensor | None = None

    @property
    def plane(self) -> Tensor:
        """(2, K) of :class:`SurfaceMap`: that of the mean shape where it is flat, else zeros."""
        return best_plane(self.shape) if self.flat else torch.zeros_like(self.shape.T[:2])

    @property
    def completed(self) -> Tensor:
        """(N, K, 3) completed shapes of all instances in the object frame."""
        return self.shape + self.displacement

    def in_camera(self) -> Tensor:
        """(N, K, 3) completed keypoints in the camera frame, unit: diameters of the mean shape."""
        return self.completed @ self.rotation.transpose(1, 2) + self.translation[:, None]


def rigid_model(shape: Tensor, covariance: Tensor, rotation: Tensor, translation: Tensor, data: Constellations) -> FactorModel:
    """The :class:`FactorModel` whose objects all have the mean shape, images with equal weights."""
    ones = torch.ones(len(rotation), dtype=shape.dtype)
    model = FactorModel(shape, covariance, rotation, translation, torch.zeros(len(rotation), *shape.shape).double(), ones, ones)
    return replace(model, error=relative_error(model, data))


def projected(camera: Tensor, data: Constellations) -> Tensor:
    """(N, K, 2) where keypoints (N, K, 3) in the camera frame are in the images; those behind the camera are taken just before it."""
    return data.focal[:, None, None] * camera[..., :2] / camera[..., 2:].clamp(min=NEAREST)


def relative_error(model: FactorModel, data: Constellations) -> Tensor:
    """(N,) RMS reprojection error of the visible keypoints relative to the object's size."""
    camera = model.in_camera()
    residual = (data.focal[:, None, None] * camera[..., :2] / camera[..., 2:] - data.points).square().sum(-1)
    visible = data.visible.double()
    return ((residual * visible).sum(1) / visible.sum(1).clamp(min=1)).sqrt() / data.size


def updated_mean(model: FactorModel, posterior: Tensor, flip: Tensor | None) -> FactorModel:
    """The M step: new mean shape and covariance, mirror images added.

    posterior: (N, 3K, 3K) covariances of the displacements; flip: (K,) or None.
    """
    weight = model.weight / model.weight.sum()
    mean = symmetrised((weight[:, None, None] * model.displacement).sum(0), flip)
    if model.thickness:  # both sides of an outline lie in one plane
        mean = mean - _height(model.shape + mean)
    shape, displacement = model.shape + mean, model.displacement - mean
    flat = displacement.flatten(1)
    covariance = (weight[:, None] * flat).T @ flat + (weight[:, None, None] * posterior).sum(0)
    if flip is not None:
        covariance = (covariance + _mirrored_covariance(covariance, flip)) / 2
    free = _free_projection(shape)
    covariance = free @ covariance @ free
    isotropic = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * isotropic
    return _normalised(replace(model, shape=shape, displacement=displacement, covariance=covariance), flip)


def _height(shape: Tensor) -> Tensor:
    """(K, 3) vectors from the best plane of a shape to its keypoints."""
    centred = shape - shape.mean(0)
    axis = normal(best_plane(shape), shape)
    return (centred @ axis)[:, None] * axis


def _mirrored_covariance(covariance: Tensor, flip: Tensor) -> Tensor:
    count = len(flip)
    blocks = covariance.view(count, 3, count, 3)[flip][:, :, flip]
    return (blocks * MIRROR[:, None, None] * MIRROR).reshape(3 * count, 3 * count)


def _free_projection(shape: Tensor) -> Tensor:
    """(3K, 3K) projection that removes translation, rotation and scale of the shape."""
    # Singular vectors rather than QR: a straight shape has fewer than seven independent directions.
    _, values, basis = torch.linalg.svd(similarity_directions(shape), full_matrices=False)
    basis = basis[values > 1e-6 * values[0]]
    return torch.eye(shape.numel(), dtype=shape.dtype) - basis.T @ basis


def _normalised(model: FactorModel, flip: Tensor | None) -> FactorModel:
    """The same images with X0 symmetric, centred and of diameter 1."""
    shape = symmetrised(model.shape, flip)
    centre = shape.mean(0)
    shape = shape - centre
    scale = shape_diameter(shape)
    return replace(
        model,
        shape=shape / scale,
        displacement=model.displacement / scale,
        covariance=model.covariance / scale**2,
        translation=(model.translation + model.rotation @ centre) / scale,
    )


def deformation_modes(covariance: Tensor, count: int, labels: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvectors of the covariance as modes (M, count, 3), unit norm, and their variances (M,), at most ``limit``.

    labels: (K,) rows of the covariance among the ``count`` keypoints of the category; other rows are 0.
    """
    values, vectors = torch.linalg.eigh(covariance)
    keep = values.argsort(descending=True)[: min(limit, len(values))]
    keep = keep[values[keep] > SMALLEST_VARIANCE]
    modes = covariance.new_zeros(len(keep), count, 3)
    modes[:, labels] = vectors[:, keep].T.reshape(len(keep), -1, 3)
    return modes, values[keep]
