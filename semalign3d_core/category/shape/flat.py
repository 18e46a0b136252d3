"""EM of flat categories: poses by how much the surface bulges between the two sides of the outline."""

from dataclasses import replace

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.shape.depth_term import ENOUGH, depth_readings
from semalign3d_core.category.shape.em import FIRST_STEPS, continued, expectation, image_costs
from semalign3d_core.category.shape.factor_model import FactorModel
from semalign3d_core.category.surface.surface_map import best_plane, normal

THICKNESSES = (0.0, 0.25, 0.5, 1.0, 2.0)  # depth over width of the cross-section
ROUND = 1.0  # that of a body of revolution, the usual reason to mark the sides of an outline
CLEARLY = 0.8  # share of what ROUND leaves unexplained that another thickness must beat: noise flattens what is seen


def fit_outline_model(model: FactorModel, data: Constellations, rounds: int) -> FactorModel:
    """The :class:`FactorModel` of a flat category, from one that was fitted to its keypoints alone; rounds: of EM.

    The thickness is the one whose poses agree best with the depth maps; with 0 the keypoints' model stays.
    """
    candidates = [without_reversals(replace(model, thickness=thickness), data) for thickness in THICKNESSES]
    best = min(candidates, key=lambda candidate: unexplained_depth(candidate, data) / (CLEARLY if candidate.thickness != ROUND else 1))
    return continued(best, data, rounds) if best.thickness else model


def unexplained_depth(model: FactorModel, data: Constellations) -> float:
    """Share of the variance of the depth maps' values that the shapes do not explain, mean of the images.

    The middles between the two sides always count, also without thickness, so that all thicknesses are judged by the same readings.
    """
    z, value, known = depth_readings(replace(model, thickness=max(model.thickness, 1e-9)), model.in_camera(), data)
    weight = known / known.sum(1, keepdim=True).clamp(min=1)
    inverse = 1 / z.clamp(min=0.05)
    a, b = (v - (weight * v).sum(1, keepdim=True) for v in (value, inverse))
    covariance, product = (weight * a * b).sum(1), (weight * a * a).sum(1) * (weight * b * b).sum(1)
    return float((1 - covariance.clamp(min=0).square() / product.clamp(min=1e-12))[known.sum(1) >= ENOUGH].mean())


def without_reversals(model: FactorModel, data: Constellations) -> FactorModel:
    """The model with every image's pose or its reversal, whichever explains the image better.

    A flat shape tilted away from the camera looks (nearly) as if it were tilted towards it: only the depth map tells them apart, and a
    descent does not get from one to the other.
    """
    candidates = [expectation(candidate, data, FIRST_STEPS)[0] for candidate in (model, reversed_poses(model))]
    first = image_costs(candidates[0], data) <= image_costs(candidates[1], data)

    def chosen(value: Tensor, other: Tensor) -> Tensor:
        return torch.where(first.reshape(-1, *[1] * (value.ndim - 1)), value, other)

    a, b = candidates
    return replace(
        model,
        rotation=chosen(a.rotation, b.rotation),
        translation=chosen(a.translation, b.translation),
        displacement=chosen(a.displacement, b.displacement),
        error=chosen(a.error, b.error),
        weight=chosen(a.weight, b.weight),
    )


def reversed_poses(model: FactorModel) -> FactorModel:
    """The model with all poses reversed along the line of sight: R' = (I - 2 v v^T) R (I - 2 n n^T), v the direction to the object."""
    identity = torch.eye(3, dtype=model.shape.dtype)
    n = torch.nn.functional.normalize(normal(best_plane(model.shape), model.completed), dim=-1)
    v = torch.nn.functional.normalize(model.translation, dim=-1)
    mirrors = [identity - 2 * axis[:, :, None] * axis[:, None] for axis in (v, n)]
    return replace(model, rotation=mirrors[0] @ model.rotation @ mirrors[1])
