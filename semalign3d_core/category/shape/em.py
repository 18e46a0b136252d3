"""EM of the factor model: poses and displacements of all images (E step), mean shape and covariance of the category (M step).

All images are solved as one batch. The last rounds also use the masks: what they say of keypoints that are not annotated.

Keypoints are not missing at random: rear corners are annotated where an object is deep enough to show them, so that the annotated ones
alone make the mean shape too deep. A hidden corner bounds the depth of its object from above, as a censored observation does: it may not
project beside the mask. Keypoints that an object lacks, or that something else hides, may project anywhere; how often each keypoint is
missing for such reasons is learnt from the images in which it would lie beside the mask by more than the shapes vary.

The mean shape is made of means, not of most probable values. The most probable place of a hidden corner may lie behind the mask while half
of its possible places lie beside it. So the mask acts on a few places that represent the distribution (variational Gaussian with cubature
points): it pulls as long as a noticeable part of the distribution lies beside it.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations, MaskFields
from semalign3d_core.category.config import EmOptions
from semalign3d_core.category.shape.depth_term import depth_costs, depth_residual
from semalign3d_core.category.shape.factor_model import FactorModel, projected, relative_error, rigid_model, updated_mean
from semalign3d_core.category.shape.image_terms import (
    add_hidden,
    place_spread,
    places_around,
    point_jacobian,
    reprojection,
    reprojection_sd,
)
from semalign3d_core.category.shape.weak_perspective import best_of_bank, refined
from semalign3d_core.category.surface.surface_map import is_flat
from semalign3d_core.geometry.rotations import rotation_from_vector

FIRST_STEPS, STEPS = 6, 3  # of Gauss-Newton in the first and in the other rounds
START_SD = 0.05  # of every coordinate of dX, in diameters
DEPTH_WEIGHT = 0.1  # of the depth in the search of the first poses
JITTER = 1e-5  # added to the diagonal of S
OUTLIER = 0.03  # relative reprojection error at which the weight of an image is halved
ABSENT_START, ABSENT_ROUNDS = 0.2, 50  # of the rates of absence and of their estimation

Done = Callable[[int, int], object]


def fit_factor_model(shape: Tensor, data: Constellations, options: EmOptions, progress: Done | None = None) -> FactorModel:
    """EM from a start ``shape`` (K, 3), symmetric if the data has a flip. progress: called as (rounds done, rounds)."""
    model = continued(_first_poses(shape, data), data, options.rounds, progress)
    if data.masks is None or options.hidden_rounds == 0:
        return model
    return continued(_with_hidden(model, data, data.masks), data, options.hidden_rounds, progress)


def continued(model: FactorModel, data: Constellations, rounds: int, progress: Done | None = None) -> FactorModel:
    """Further rounds of EM from a :class:`FactorModel`."""
    for step in range(rounds):
        model, posterior = expectation(model, data, FIRST_STEPS if step == 0 else STEPS)
        model = updated_mean(model, posterior, data.flip)
        if progress:
            progress(step + 1, rounds)
    return expectation(model, data, STEPS)[0]


def _first_poses(shape: Tensor, data: Constellations) -> FactorModel:
    weak = refined(shape[None], data, best_of_bank(shape[None], data, DEPTH_WEIGHT))
    depth = data.focal / weak.scale[0].clamp(min=1e-3)
    translation = torch.cat([weak.shift[0] * (depth / data.focal)[:, None], depth[:, None]], dim=1)
    covariance = START_SD**2 * torch.eye(3 * data.count, dtype=torch.float64)
    return rigid_model(shape, covariance, weak.rotation[0], translation, data)


def posed_anew(model: FactorModel, data: Constellations) -> FactorModel:
    """The model with poses found anew from its mean shape, without displacements."""
    first = _first_poses(model.shape, data)
    return replace(model, rotation=first.rotation, translation=first.translation, displacement=first.displacement)


def expectation(model: FactorModel, data: Constellations, steps: int) -> tuple[FactorModel, Tensor]:
    """The E step: Gauss-Newton on pose and displacement of all images.

    Returns the model with new poses, displacements and weights, and the posterior covariance (N, 3K, 3K) of the displacements.
    """
    prior = _prior(model)
    for _ in range(steps):
        normal, gradient = _normal_equations(model, data, prior)
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
    posterior = torch.linalg.inv(_normal_equations(model, data, prior)[0])
    error = relative_error(model, data)
    spread = None if model.spread is None else place_spread(model, posterior, data)
    return replace(model, error=error, weight=1 / (1 + (error / OUTLIER) ** 2), spread=spread), posterior[:, 6:, 6:]


def _normal_equations(model: FactorModel, data: Constellations, prior: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 6 + 3K, 6 + 3K) and (N, 6 + 3K) of the costs of :func:`image_costs`."""
    camera = model.in_camera()
    by_point = point_jacobian(model, camera)
    normal, gradient = _squared(*reprojection(camera, by_point, data))
    of_depth, pull_of_depth = _squared(*depth_residual(model, camera, by_point, data))
    normal, gradient = normal + of_depth, gradient + pull_of_depth
    add_hidden(normal, gradient, model, camera, by_point, data)
    normal[:, 6:, 6:] += prior
    gradient[:, 6:] -= model.displacement.flatten(1) @ prior
    normal.diagonal(dim1=1, dim2=2)[:, :6] += 1e-6
    return normal, gradient


def _squared(residual: Tensor, jacobian: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    weighted = jacobian.transpose(1, 2) * weight[:, None]
    return weighted @ jacobian, (weighted @ residual[..., None])[..., 0]


def image_costs(model: FactorModel, data: Constellations) -> Tensor:
    """(N,) what the E step minimises: robust squared residuals of keypoints, mask and depth, and the prior of the displacement."""
    camera = model.in_camera()
    places, sd = projected(camera, data), reprojection_sd(data)
    residual2 = (places - data.points).square().sum(-1)
    cost = (data.visible * 9 * torch.log1p(residual2 / (9 * sd**2))).sum(1)
    if model.hidden is not None and data.masks is not None:
        distance = torch.stack([data.masks.beside(some)[0] for some in places_around(places, model.spread)])
        cost = cost + (model.hidden * 9 * torch.log1p(distance**2 / (9 * sd**2)).mean(0)).sum(1)
    flat = model.displacement.flatten(1)
    return cost + depth_costs(model, camera, data) + torch.einsum("na,ab,nb->n", flat, _prior(model), flat)


def _prior(model: FactorModel) -> Tensor:
    """(3K, 3K) inverse covariance of the displacements."""
    return torch.linalg.inv(model.covariance + JITTER * torch.eye(len(model.covariance), dtype=torch.float64))


def _with_hidden(model: FactorModel, data: Constellations, masks: MaskFields) -> FactorModel:
    """The model with ``hidden`` and ``spread``, from one that knows the annotated keypoints alone."""
    normal, _ = _normal_equations(model, data, _prior(model))
    spread = place_spread(model, torch.linalg.inv(normal), data)
    distance, direction = masks.beside(projected(model.in_camera(), data))
    variance = (direction[..., None, :] @ spread).square().sum((-2, -1)) + reprojection_sd(data) ** 2
    hidden = hidden_probability(distance, variance, data.visible, data.flip)
    return replace(model, hidden=hidden, spread=None if is_flat(model.shape, len(data.points)) else spread)


def hidden_probability(distance: Tensor, variance: Tensor, visible: Tensor, flip: Tensor | None) -> Tensor:
    """(N, K) how probable it is that the object itself hides a keypoint; 0 where it is annotated.

    distance: (N, K) by which it would lie beside the mask by what the annotated keypoints say; variance: (N, K) of that place;
    visible: (N, K) bool, where annotated; flip: (K,) or None. EM of a mixture: a keypoint is absent at a rate of its own (then it may
    lie anywhere), else hidden, and lies beside the mask only by the error of its predicted place.
    """
    inside = torch.special.erfc(distance / (2 * variance).sqrt())
    rate = torch.full_like(distance[0], ABSENT_START)
    for _ in range(ABSENT_ROUNDS):
        absent = rate / (rate + (1 - rate) * inside).clamp(min=1e-300)  # always seen, and far beside the mask: 0 / 0
        rate = (absent * ~visible).mean(0)
        rate = rate if flip is None else (rate + rate[flip]) / 2
    return (1 - absent) * ~visible
