"""EM of the factor model: mean shape, full shape covariance, one pose and one completed shape per image.

Unknown per image: R, T and the displacement dX (K, 3) of the instance's keypoints; per category: the mean shape X0 and
the covariance S (3K x 3K) of dX. ``Y = R (X0 + dX) + T``; the diameter of X0 is 1. All images are solved as one batch.
Last rounds also use the masks: what they say of keypoints that are not annotated (:mod:`.hidden_keypoints`).
"""

from dataclasses import dataclass, replace

import torch

from semalign3d_core.category.annotations.constellations import MIRROR, Constellations, mirrored, symmetrised
from semalign3d_core.category.shape.hidden_keypoints import hidden_probability, places_around
from semalign3d_core.category.shape.silhouette import inner_pairs, outline_readings
from semalign3d_core.category.shape.weak_perspective import best_of_bank, refined
from semalign3d_core.category.surface.surface_map import best_plane, is_flat, normal
from semalign3d_core.geometry.rotations import cross_matrix, rotation_from_vector, shape_diameter, similarity_directions, uniform_rotations

NEAREST = 0.05  # diameters before the camera
SMALLEST_SPREAD = 1e-6  # units of L, of the place of a keypoint


@dataclass(frozen=True)
class EmOptions:
    """rounds: E and M steps; hidden_rounds: further ones, which use the masks; first_steps, steps: Gauss-Newton steps per round;
    start_sd: of every coordinate of dX;
    reprojection_sd: in units of the object's size / 0.6; depth_sd: in diameters, fixed (re-estimated it collapses);
    depth_weight: of the depth in the search of the first poses; bank: rotations searched; shrinkage: of S to isotropic;
    jitter: added to S; outlier: relative reprojection error at which an image's weight is halved."""

    rounds: int = 30
    hidden_rounds: int = 15
    first_steps: int = 6
    steps: int = 3
    start_sd: float = 0.05
    reprojection_sd: float = 0.012
    depth_sd: float = 0.1
    depth_weight: float = 0.1
    bank: int = 600
    shrinkage: float = 0.05
    jitter: float = 1e-5
    outlier: float = 0.03


@dataclass(frozen=True)
class FactorModel:
    """shape (K, 3), diameter 1, centred; covariance (3K, 3K); rotation (N, 3, 3), translation (N, 3);
    displacement (N, K, 3); error (N,): RMS reprojection error relative to the object's size; weight (N,);
    flat: whether the keypoints are coplanar; thickness: depth over width of the cross-section of a flat category whose keypoints are the
    two sides of its outline, else 0; hidden: (N, K) how probably the object itself hides a keypoint, None as long as nobody asked; spread:
    (N, K, 2, 2) Cholesky factor of the covariance of its place in the picture, None as long as nobody asked and where the keypoints are
    coplanar: then they are the object's outline, and half of their places lie beside the mask anyway."""

    shape: torch.Tensor
    covariance: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    displacement: torch.Tensor
    error: torch.Tensor
    weight: torch.Tensor
    flat: bool = False
    thickness: float = 0.0
    hidden: torch.Tensor | None = None
    spread: torch.Tensor | None = None

    @property
    def plane(self):
        """(2, K) of :class:`SurfaceMap`: that of the mean shape where it is flat, else zeros."""
        return best_plane(self.shape) if self.flat else torch.zeros_like(self.shape.T[:2])

    @property
    def completed(self):
        """(N, K, 3) completed shapes of all instances in the object frame."""
        return self.shape + self.displacement

    def in_camera(self):
        """(N, K, 3) completed keypoints in the camera frame, unit: diameters of the mean shape."""
        return self.completed @ self.rotation.transpose(1, 2) + self.translation[:, None]


def fit_factor_model(shape, data, options=None, progress=None):
    """EM from a start ``shape`` (K, 3), symmetric if the data has a flip. Returns :class:`FactorModel`."""
    options = options or EmOptions()
    model = continued(_first_poses(shape, data, options), data, options, progress)
    if data.masks is None or options.hidden_rounds == 0:
        return model
    return continued(_with_hidden(model, data, options), data, replace(options, rounds=options.hidden_rounds), progress)


def continued(model, data, options, progress=None):
    """EM from a :class:`FactorModel`."""
    for step in range(options.rounds):
        model, posterior = expectation(model, data, options, options.first_steps if step == 0 else options.steps)
        model = _maximisation(model, posterior, data.flip, options)
        if progress:
            progress(step + 1, options.rounds)
    return expectation(model, data, options, options.steps)[0]


def _first_poses(shape, data, options):
    rotations = uniform_rotations(options.bank, torch.float64)
    weak = refined(shape[None], data, best_of_bank(shape[None], data, rotations, options.depth_weight))
    depth = data.focal / weak.scale[0].clamp(min=1e-3)
    translation = torch.cat([weak.shift[0] * (depth / data.focal)[:, None], depth[:, None]], dim=1)
    size = 3 * data.count
    covariance = options.start_sd**2 * torch.eye(size, dtype=torch.float64)
    ones = torch.ones(len(depth), dtype=torch.float64)
    return FactorModel(shape, covariance, weak.rotation[0], translation, torch.zeros(len(depth), data.count, 3).double(), ones, ones)


def expectation(model, data: Constellations, options, steps):
    """Gauss-Newton on pose and displacement of all images; returns the model and the posterior covariance (N, 3K, 3K) of dX."""
    prior = _prior(model, options)
    for _ in range(steps):
        normal, gradient = _normal_equations(model, data, options, prior)
        step = torch.linalg.solve(normal, gradient[..., None])[..., 0]
        turn = step[:, :3] * (0.4 / step[:, :3].norm(dim=1, keepdim=True).clamp(min=0.4))
        shift = step[:, 3:6]
        # No image may jump through its camera.
        shorten = (0.3 * model.translation[:, 2:] / shift.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        model = replace(
            model,
            rotation=rotation_from_vector(turn) @ model.rotation,
            translation=model.translation + shift * shorten,
            displacement=model.displacement + step[:, 6:].reshape(-1, data.count, 3),
        )
    normal, _ = _normal_equations(model, data, options, prior)
    posterior = torch.linalg.inv(normal)
    error = relative_error(model, data)
    spread = None if model.spread is None else _place_spread(model, posterior, data)
    return replace(model, error=error, weight=1 / (1 + (error / options.outlier) ** 2), spread=spread), posterior[:, 6:, 6:]


def image_costs(model, data, options):
    """(N,) what the E step lessens: robust squared residuals of reprojection and depth, and the prior of the displacement."""
    camera = model.in_camera()
    projected = _places(camera, data)
    residual2 = (projected - data.points).square().sum(-1)
    sd = _reprojection_sd(data, options)
    cost = (data.visible * 9 * torch.log1p(residual2 / (9 * sd**2))).sum(1)
    if model.hidden is not None:
        distance = torch.stack([data.masks.beside(places)[0] for places in places_around(projected, model.spread)])
        cost = cost + (model.hidden * 9 * torch.log1p(distance**2 / (9 * sd**2)).mean(0)).sum(1)
    gap, known, _ = _depth_gap(*depth_readings(model, camera, data), data.slope)
    count = known.sum(1).clamp(min=1)
    cost = cost + (count - 2) / count * (4 * torch.log1p((gap / (2 * options.depth_sd)) ** 2)).sum(1)
    flat, prior = model.displacement.flatten(1), _prior(model, options)
    return cost + torch.einsum("na,ab,nb->n", flat, prior, flat)


def _with_hidden(model, data, options):
    """The model with ``hidden`` and ``spread``, from one that knows the annotated keypoints alone."""
    normal, _ = _normal_equations(model, data, options, _prior(model, options))
    spread = _place_spread(model, torch.linalg.inv(normal), data)
    distance, way = data.masks.beside(_places(model.in_camera(), data))
    variance = (way[..., None, :] @ spread).square().sum((-2, -1)) + _reprojection_sd(data, options) ** 2
    hidden = hidden_probability(distance, variance, data.visible, data.flip)
    return replace(model, hidden=hidden, spread=None if is_flat(model.shape, len(data.points)) else spread)


def _place_spread(model, posterior, data):
    """(N, K, 2, 2) Cholesky factor of the covariance of every keypoint's place in the picture; posterior: (N, 6 + 3K, 6 + 3K)."""
    camera = model.in_camera()
    _, jacobian = _place_jacobian(camera, _point_jacobian(model, camera), data)
    covariance = (jacobian.flatten(1, 2) @ posterior).view_as(jacobian) @ jacobian.transpose(-1, -2)
    return torch.linalg.cholesky(covariance + SMALLEST_SPREAD**2 * torch.eye(2, dtype=covariance.dtype))


def _prior(model, options):
    return torch.linalg.inv(model.covariance + options.jitter * torch.eye(len(model.covariance), dtype=torch.float64))


def relative_error(model, data):
    """(N,) RMS reprojection error of the visible keypoints relative to the object's size."""
    camera = model.in_camera()
    residual = (data.focal[:, None, None] * camera[..., :2] / camera[..., 2:] - data.points).square().sum(-1)
    visible = data.visible.double()
    return ((residual * visible).sum(1) / visible.sum(1).clamp(min=1)).sqrt() / data.size


def _normal_equations(model, data, options, prior):
    camera = model.in_camera()
    by_point = _point_jacobian(model, camera)
    flat, jacobian, weight = _reprojection(camera, by_point, data, options)
    weighted = jacobian.transpose(1, 2) * weight[:, None]
    normal, gradient = weighted @ jacobian, (weighted @ flat[..., None])[..., 0]
    gap, jacobian, weight = _depth_residual(model, camera, by_point, data, options)
    weighted = jacobian.transpose(1, 2) * weight[:, None]
    normal, gradient = normal + weighted @ jacobian, gradient + (weighted @ gap[..., None])[..., 0]
    if model.hidden is not None:
        _add_at_points(normal, gradient, model.rotation, by_point, *_beside_mask(model, camera, data, options))
    normal[:, 6:, 6:] += prior
    gradient[:, 6:] -= model.displacement.flatten(1) @ prior
    normal.diagonal(dim1=1, dim2=2)[:, :6] += 1e-6
    return normal, gradient


def _add_at_points(normal, gradient, rotation, by_point, curvature, pull):
    """Adds curvature (N, K, 3, 3) and pull (N, K, 3) on keypoints, which depend on the pose and their own dX, to the normal equations.

    by_point: (N, K, 3, 6 + 3K), of which the pose's part is read; that of dX is the rotation.
    """
    count, index, pose = pull.shape[1], torch.arange(pull.shape[1]), by_point[..., :6].transpose(-1, -2)  # (N, K, 6, 3)
    turned = curvature @ rotation[:, None]
    normal[:, :6, :6] += (pose @ curvature @ pose.transpose(-1, -2)).sum(1)
    mixed = (pose @ turned).transpose(1, 2).flatten(2)  # (N, 6, 3K)
    normal[:, :6, 6:] += mixed
    normal[:, 6:, :6] += mixed.transpose(1, 2)
    blocks = normal[:, 6:, 6:].unflatten(1, (count, 3)).unflatten(3, (count, 3))
    blocks[:, index, :, index] += (rotation.transpose(1, 2)[:, None] @ turned).transpose(0, 1)
    gradient[:, :6] += (pose @ pull[..., None])[..., 0].sum(1)
    gradient[:, 6:] += (pull @ rotation).flatten(1)


def _point_jacobian(model, camera):
    """(N, K, 3, 6 + 3K): derivative of the keypoints in the camera frame by (omega, T, dX)."""
    images, count = camera.shape[:2]
    jacobian = camera.new_zeros(images, count, 3, 6 + 3 * count)
    jacobian[..., :3] = -cross_matrix(camera - model.translation[:, None])
    jacobian[..., 3:6] = torch.eye(3, dtype=camera.dtype)
    blocks = jacobian[..., 6:].view(images, count, 3, count, 3)
    index = torch.arange(count)
    blocks[:, index, :, index] = model.rotation
    return jacobian


def _places(camera, data):
    """(N, K, 2) where keypoints (N, K, 3) in the camera frame are in the pictures; those behind the camera are taken just before it."""
    return data.focal[:, None, None] * camera[..., :2] / camera[..., 2:].clamp(min=NEAREST)


def _place_jacobian(camera, by_point, data):
    """Projected keypoints (N, K, 2) and their derivative (N, K, 2, 6 + 3K)."""
    depth, focal, projected = camera[..., 2:].clamp(min=NEAREST), data.focal[:, None, None], _places(camera, data)
    jacobian = (focal / depth)[..., None] * by_point[..., :2, :] - (projected / depth)[..., None] * by_point[..., 2:, :]
    return projected, jacobian


def _reprojection(camera, by_point, data, options):
    """Residual (N, 2K), Jacobian (N, 2K, 6 + 3K) and weights (N, 2K): Cauchy, in units of the object's size."""
    projected, jacobian = _place_jacobian(camera, by_point, data)
    residual = data.points - projected
    sd = _reprojection_sd(data, options)
    weight = data.visible / (1 + residual.square().sum(-1) / (9 * sd**2)) / sd**2
    return residual.flatten(1), jacobian.flatten(1, 2), weight.repeat_interleave(2, dim=1)


def _beside_mask(model, camera, data, options):
    """Curvature (N, K, 3, 3) and pull (N, K, 3) on keypoints in the camera frame, of those that the object hides and that lie beside the
    mask: weights as those of :func:`_reprojection`, mean over the places where each may be."""
    depth, focal = camera[..., 2:].clamp(min=NEAREST), data.focal[:, None, None]
    projected, sd = _places(camera, data), _reprojection_sd(data, options)
    curvature, pull = camera.new_zeros(*camera.shape, 3), torch.zeros_like(camera)
    around = places_around(projected, model.spread)
    for places in around:
        distance, way = data.masks.beside(places)
        # Of the distance by the point. The direction is kept: along the mask's outline a keypoint may slide.
        ahead = torch.cat([way, -(way * projected).sum(-1, keepdim=True) / focal], dim=-1) * focal / depth
        weight = model.hidden * (distance > 0) / (1 + distance.square() / (9 * sd**2)) / sd**2 / len(around)
        pull += (weight * distance)[..., None] * ahead
        curvature += (weight[..., None] * ahead)[..., None] * ahead[..., None, :]
    return curvature, pull


def _reprojection_sd(data, options):
    return options.reprojection_sd * data.size[:, None] / 0.6


def depth_readings(model, camera, data):
    """Where depth maps are compared with the shapes, M readings per image: z (N, M) of the shapes there, the maps' values (N, M), and
    which are known (N, M) bool. The keypoints; for a flat category with thickness also the middles between its two sides."""
    if not model.thickness:
        return camera[..., 2], data.inverse, data.measured
    z = torch.cat([camera[..., 2], (camera + camera[:, data.flip])[..., 2] / 2], dim=1) + outline_readings(model, camera, data)[0]
    middles = data.outline.measured & inner_pairs(model.shape, data.flip)
    return z, torch.cat([data.inverse, data.outline.middle], dim=1), torch.cat([data.measured, middles], dim=1)


def _readings_jacobian(model, camera, by_point, data):
    """(N, M, 6 + 3K): derivative of the z of :func:`depth_readings`."""
    jacobian = by_point[..., 2, :]
    if not model.thickness:
        return jacobian
    jacobian = torch.cat([jacobian, (jacobian + jacobian[:, data.flip]) / 2], dim=1)
    jacobian[..., :3] += outline_readings(model, camera, data)[1]
    return jacobian


def _depth_residual(model, camera, by_point, data, options):
    """Residual (N, M), Jacobian and weights of the depth at the readings, free of the map's affine.

    1/z of the current shape is regressed on the map's values (without offset where depth is known up to scale); the
    residual is predicted minus current z, minus its mean, so the affine never becomes a parameter.
    """
    gap, known, usable = _depth_gap(*depth_readings(model, camera, data), data.slope)
    count = known.sum(1)
    share = known / count.clamp(min=1)[:, None]
    jacobian = _readings_jacobian(model, camera, by_point, data)
    jacobian = jacobian - torch.einsum("nk,nkp->np", share, jacobian)[:, None]
    weight = known * ((count - 2) / count.clamp(min=1))[:, None] / (1 + (gap / (2 * options.depth_sd)) ** 2) / options.depth_sd**2
    return gap, jacobian, weight * usable[:, None]


def _depth_gap(z, value, known, slope):
    """Predicted minus current z, minus its mean, (N, M); known (N, M) float; and which images can be used, (N,)."""
    known = known.double()
    predicted, usable = _predicted_depth(z.clamp(min=NEAREST), value, known, slope)
    gap = (predicted - z) * known
    return (gap - gap.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)) * known, known, usable


def _predicted_depth(depth, value, known, slope):
    """z (N, M) from the regression of 1/z on the map, and which images' regression is usable (4 points, positive slope)."""
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
    return predicted, (count >= 4) & (slope > 0)


def _maximisation(model, posterior, flip, options):
    """New mean shape and covariance from the posterior of the displacements, mirror images added."""
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
    covariance = (1 - options.shrinkage) * covariance + options.shrinkage * isotropic
    return _regauged(replace(model, shape=shape, displacement=displacement, covariance=covariance), flip)


def _height(shape):
    """(K, 3) vectors from the best plane of a shape to its keypoints."""
    centred = shape - shape.mean(0)
    axis = normal(best_plane(shape), shape)
    return (centred @ axis)[:, None] * axis


def _mirrored_covariance(covariance, flip):
    count = len(flip)
    blocks = covariance.view(count, 3, count, 3)[flip][:, :, flip]
    return (blocks * MIRROR[:, None, None] * MIRROR).reshape(3 * count, 3 * count)


def _free_projection(shape):
    """(3K, 3K) projection that removes translation, rotation and scale of the shape."""
    # Singular vectors rather than QR: a straight shape has fewer than seven independent directions.
    _, values, basis = torch.linalg.svd(similarity_directions(shape), full_matrices=False)
    basis = basis[values > 1e-6 * values[0]]
    return torch.eye(shape.numel(), dtype=shape.dtype) - basis.T @ basis


def _regauged(model, flip):
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


def deformation_modes(covariance, count, labels, limit):
    """Largest eigenvectors of the covariance as modes (M, count, 3), unit norm, and their variances (M,).

    labels: (K,) rows of the covariance among the ``count`` keypoints of the category; other rows are 0.
    """
    values, vectors = torch.linalg.eigh(covariance)
    keep = values.argsort(descending=True)[: min(limit, len(values))]
    keep = keep[values[keep] > 1e-12]
    modes = covariance.new_zeros(len(keep), count, 3)
    modes[:, labels] = vectors[:, keep].T.reshape(len(keep), -1, 3)
    return modes, values[keep]


def mirrored_shapes(shapes, flip):
    """Completed shapes (N, K, 3) with their mirror images appended, (2N, K, 3)."""
    return shapes if flip is None else torch.cat([shapes, mirrored(shapes, flip)])
