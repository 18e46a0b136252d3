"""Mean shape, covariance and poses of a category from keypoints, masks and depth: which start, which method, which hand."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.progress import Progress, no_progress
from semalign3d_core.category.published.shape import reference_shape
from semalign3d_core.category.shape.disparity_start import disparity_start
from semalign3d_core.category.shape.em import FIRST_STEPS, expectation, fit_factor_model, image_costs, posed_anew
from semalign3d_core.category.shape.factor_model import FactorModel
from semalign3d_core.category.shape.flat import fit_outline_model
from semalign3d_core.category.shape.mirror import MIRROR, mirrored
from semalign3d_core.category.shape.multiview import multiview_start, view_diversity
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.category.surface.surface_map import is_flat
from semalign3d_core.runtime.threads import one_thread

DIVERSITY = 0.2  # smallest RMS component of the viewing directions for the multi-view start
KNOWN_DEPTHS = 4  # keypoints of an image, and such images, to start from depth


@dataclass(frozen=True)
class ShapeResult:
    """What the shape part of a build found.

    data: what the model explains (focal lengths as found); report: for the build report; placed: (K,) bool, keypoints of the given data
    that are in model and data; table: the Betas it came from, or None (then those of the completed shapes are fitted)
    """

    model: FactorModel
    data: Constellations
    report: dict[str, Any]
    placed: Tensor
    table: BetaTable | None


@one_thread()
def find_shape(data: Constellations, config: BuildConfig, progress: Progress = no_progress) -> ShapeResult:
    """Mean shape, covariance and poses of all images from keypoints, masks and depth alone.

    Raises :class:`InputError` where too few keypoints have valid statistics.
    """
    if config.method == "reference":
        model, data, table, placed = reference_shape(data, config, progress)
        report = {"start": "reference", "diversity": view_diversity(model.rotation, data.flip)}
        return ShapeResult(replace(model, flat=is_flat(model.shape, len(data.points))), data, report, placed, table)
    start, report = _start(data, config, progress)
    model = fit_factor_model(start, data, config.em, lambda done, total: progress("EM", done, total))
    if is_flat(model.shape, len(data.points)):
        model = replace(model, flat=True)
        model = model if data.flip is None else fit_outline_model(model, data, config.em.rounds)
        report |= {"thickness": model.thickness}
    else:  # a flat shape is its own reversal
        report |= {"handedness_evidence": round(handedness_evidence(model, data), 2)}
    return ShapeResult(model, data, report, torch.ones(data.count, dtype=torch.bool), None)


def _start(data: Constellations, config: BuildConfig, progress: Progress) -> tuple[Tensor, dict[str, Any]]:
    """The start (K, 3) that the configuration or the diversity of the views asks for, and its report."""
    generator = torch.Generator().manual_seed(config.seed)
    report: dict[str, Any] = {}
    if config.start != "disparity":
        progress("multi-view start", 0, 1)
        multiview = multiview_start(data, generator)
        report = {"diversity": multiview.diversity, "multiview_residual": multiview.cost, "depth_correlation": multiview.correlation}
        usable = int((data.measured.sum(1) >= KNOWN_DEPTHS).sum()) >= KNOWN_DEPTHS
        if config.start == "multiview" or multiview.diversity >= DIVERSITY or not usable:
            return multiview.shape, {"start": "multiview", **report}
    progress("disparity start", 0, 1)
    return disparity_start(data, generator), {"start": "disparity", **report}


def handedness_evidence(model: FactorModel, data: Constellations) -> float:
    """How surely the images tell a shape from its reversal in depth: the mean advantage in cost per image over its standard error.

    Keypoints alone tell them apart only by perspective, so hardly, and a few depth readings may all be wrong. The reversed model is fitted
    first. For flat shapes that fit would lead back to the model itself and say nothing.
    """
    reversed_model = expectation(depth_reversed(model), data, FIRST_STEPS)[0]
    advantage = image_costs(reversed_model, data) - image_costs(model, data)
    return float(advantage.mean() / (advantage.std() / len(advantage) ** 0.5).clamp(min=1e-9))


@one_thread()
def exchange_evidence(model: FactorModel, data: Constellations) -> tuple[Tensor, Tensor]:
    """By how well a pose explains it: (N,) logarithm of the odds that left and right are exchanged in an image, and what that pose is.

    Exchanged labels are explained by the pose reversed in depth, but for perspective, the mask and known depths. Costs are twice the
    negative logarithm of a likelihood. NaN without left and right.
    Returns the odds and the keypoints (N, K, 3) in the camera frame in the best pose of the labels as they are.
    """
    flip = data.flip
    if flip is None:
        return torch.full((len(data.points),), torch.nan), model.in_camera()
    mirror_model = replace(
        model,
        rotation=_reversed_in_depth(model) * MIRROR,
        displacement=mirrored(model.displacement, flip),
        hidden=None if model.hidden is None else model.hidden[:, flip],
        spread=None if model.spread is None else model.spread[:, flip],
    )
    cost, camera = _best_explanation(model, data)
    return (cost - _best_explanation(mirror_model, data.exchanged)[0]) / 2, camera


def _best_explanation(model: FactorModel, data: Constellations) -> tuple[Tensor, Tensor]:
    """Least costs (N,) of the images, and keypoints (N, K, 3) in the camera frame, from the poses of the model or from new ones.

    A nearly flat shape is explained by two poses, one the other's reversal in depth. Chance decides which one is found, so both are tried.
    """
    anew = posed_anew(model, data)
    reversals = [replace(anew, rotation=_reversed_in_depth(anew) * MIRROR.roll(axis)) for axis in (1, 2)]  # of shapes flat in y, in z
    found = [expectation(start, data, 2 * FIRST_STEPS)[0] for start in (model, anew, *reversals)]
    cost, best = torch.stack([image_costs(one, data) for one in found]).min(0)
    return cost, torch.stack([one.in_camera() for one in found])[best, torch.arange(len(best))]


def depth_reversed(model: FactorModel) -> FactorModel:
    """The model whose keypoints in the camera frame are those of ``model`` reversed along the line of sight.

    R' = (I - 2 v v^T) R M, X' = M X with v the direction to the object and M a reflection of the object frame.
    """
    sign = MIRROR.flip(0)
    signs = sign.repeat(len(model.shape))
    return replace(
        model,
        shape=model.shape * sign,
        displacement=model.displacement * sign,
        covariance=model.covariance * signs[:, None] * signs,
        rotation=_reversed_in_depth(model) * sign,
    )


def _reversed_in_depth(model: FactorModel) -> Tensor:
    """(N, 3, 3) rotations followed by the reflection that reverses the depth, (I - 2 v v^T) R with v the direction to the object."""
    v = torch.nn.functional.normalize(model.translation, dim=-1)
    return (torch.eye(3, dtype=v.dtype) - 2 * v[:, :, None] * v[:, None]) @ model.rotation
