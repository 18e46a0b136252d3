"""What a build says about its result: warnings, the report for people, and where a model came from."""

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.annotations.checks import Problems, trust_ratio
from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.annotations.swaps import depth_scores, left_right_scores, look_swapped, swapped_odds
from semalign3d_core.category.annotations.views import Providers, View
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.progress import Clock
from semalign3d_core.category.shape.factor_model import FactorModel
from semalign3d_core.category.shape.find import ShapeResult, exchange_evidence
from semalign3d_core.category.surface.surface_map import SurfaceMap, normal
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.version import __version__

TRUST_RATIO = 1.6  # equations per unknown below which a build is warned about
HANDEDNESS = 2.5  # standard errors by which a shape must explain the images better than its reversal in depth
DEPTH_HELPS = "depth maps would show it (--depth depth_anything_v2:small, or Depth/ in the data set folder)"
LOOK = "look at the model with semalign3d inspect, annotate more images"


def shape_warnings(data: Constellations, report: dict[str, Any]) -> list[str]:
    """Warnings about the shape part of a build: few annotations, hardly known handedness. report: of :class:`ShapeResult`."""
    points, images = int(data.visible.sum()), len(data.points)
    ratio, evidence = trust_ratio(points, images, data.count), report.get("handedness_evidence")
    warnings = []
    if ratio < TRUST_RATIO:
        warnings.append(
            f"{points} annotated points in {images} images are few for {data.count} keypoints (ratio {ratio:.2f}, reliable from "
            f"{TRUST_RATIO}): {LOOK}"
        )
    if evidence is not None and evidence < HANDEDNESS:
        warnings.append(
            f"the images hardly distinguish the shape from its reversal in depth (evidence {evidence:.1f}, reliable from {HANDEDNESS}); "
            f"left and right may be exchanged: {LOOK if data.measured.any() else DEPTH_HELPS}"
        )
    return warnings


def surface_warnings(surface: SurfaceMap, model: FactorModel) -> list[str]:
    """A warning if the surface of an object known by the two sides of its outline lies behind their plane, where no camera sees."""
    if not model.thickness:
        return []
    axis = model.rotation @ normal(surface.plane.to(model.shape), model.shape)
    toward_camera = -(axis * model.translation).sum(-1).sign()
    if not surface.offsets.mean() * toward_camera.mean() < 0:
        return []
    return [f"the surface lies behind the outline instead of in front of it: the depth maps mislead or are too few: {LOOK}"]


def build_report(
    views: Sequence[View],
    shape: ShapeResult,
    labels: Tensor,
    names: Sequence[str],
    flip: Tensor | None,
    config: BuildConfig,
    problems: Problems,
    clock: Clock,
) -> dict[str, Any]:
    """What a person wants to know about a build: JSON-serialisable.

    labels: (K',) the present keypoints, names: of all K; flip: (K,) their mirror partners, None without left and right
    """
    model, data = shape.model, shape.data
    camera = model.in_camera()
    difference = data.focal[:, None, None] * camera[..., :2] / camera[..., 2:] - data.points
    present = [names[k] for k in labels.tolist()]
    scores = left_right_odds(views, shape, flip)
    swapped = look_swapped(scores)
    return {
        "method": config.method,
        **shape.report,
        "images": [
            _image_report(view, model, n, difference[n], data.visible[n], present)
            | {"left_right_odds": None if np.isnan(scores[n]) else round(float(scores[n]), 3), "swapped": bool(swapped[n])}
            for n, view in enumerate(views)
        ],
        "absent_keypoints": [name for name in names if name not in present],
        "skipped_images": problems.skipped,
        "dropped_keypoints": problems.dropped,
        "warnings": problems.warnings,
        "trust_ratio": round(trust_ratio(int(data.visible.sum()), len(views), data.count), 3),
        "seconds": clock.times,
    }


def left_right_odds(views: Sequence[View], shape: ShapeResult, flip: Tensor | None) -> np.ndarray:
    """(N,) logarithm of the odds that left and right are exchanged in an image, :func:`swapped_odds`; NaN without left and right."""
    if flip is None:
        return np.full(len(views), np.nan)
    explained, camera = exchange_evidence(shape.model, shape.data)
    nearer = depth_scores(camera[..., 2], shape.data.visible)
    return swapped_odds(left_right_scores(views, flip), nearer, explained=explained.numpy())


def _image_report(view: View, model: FactorModel, n: int, difference: Tensor, visible: Tensor, names: list[str]) -> dict[str, Any]:
    """How well the model explains an image; difference: (K', 2) model minus annotation in units of L."""
    pixels = torch.where(visible, difference.norm(dim=-1) * view.longer_side, 0.0)
    worst = int(pixels.argmax())
    return {
        "name": view.name,
        "keypoints": int(visible.sum()),
        "reprojection_error_pixels": round(float(pixels[visible].square().mean().sqrt()), 3),
        "reprojection_error_relative": round(float(model.error[n]), 5),
        "worst_keypoint": names[worst],
        "worst_error_pixels": round(float(pixels[worst]), 3),
        "weight": round(float(model.weight[n]), 4),
        "model_minus_annotation_pixels": {
            names[k]: [round(v, 1) for v in (difference[k] * view.longer_side).tolist()] for k in visible.nonzero()[:, 0].tolist()
        },
    }


def provenance(category: str, providers: Providers, views: Sequence[View], config: BuildConfig) -> dict[str, Any]:
    """{name: value} of what a model was built from and by, stored in it (JSON-serialisable)."""
    versions = {"semalign3d": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "category": category,
        "image_names": [v.name for v in views],
        "providers": {name: "none" if provider is None else provider.name for name, provider in vars(providers).items()},
        "config": to_dict(config),
        "versions": versions | {"python": platform.python_version()},
    }
