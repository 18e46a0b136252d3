"""Whether a build is to be trusted: what speaks against it without knowing the truth."""

from dataclasses import replace

import torch

from semalign3d_core.category.annotations.checks import trust_ratio
from semalign3d_core.category.shape.factor_model import expectation, image_costs
from semalign3d_core.category.surface.surface_map import normal

LOOK = "look at the model with semalign3d inspect, annotate more images"


def handedness_evidence(model, data, options):
    """How surely the images tell a shape from its reversal in depth: the mean advantage in cost per image over its standard error.

    Keypoints alone hardly do (only by perspective), few depth readings may err together. The reversed model descends first; those of flat
    shapes would descend to the model itself, which tells nothing.
    """
    rival = expectation(depth_reversed(model), data, options, options.first_steps)[0]
    advantage = image_costs(rival, data, options) - image_costs(model, data, options)
    return float(advantage.mean() / (advantage.std() / len(advantage) ** 0.5).clamp(min=1e-9))


def depth_reversed(model):
    """The :class:`FactorModel` whose keypoints in the camera frame are those of ``model`` reversed along the line of sight.

    R' = (I - 2 v v^T) R M, X' = M X with v the direction to the object and M a reflection of the object frame.
    """
    sign = torch.tensor([1.0, 1.0, -1.0], dtype=model.shape.dtype)
    v = torch.nn.functional.normalize(model.translation, dim=-1)
    signs = sign.repeat(len(model.shape))
    return replace(
        model,
        shape=model.shape * sign,
        displacement=model.displacement * sign,
        covariance=model.covariance * signs[:, None] * signs,
        rotation=(torch.eye(3, dtype=sign.dtype) - 2 * v[:, :, None] * v[:, None]) @ model.rotation * sign,
    )


def surface_behind(surface, model):
    """Whether the :class:`SurfaceMap` of an object known by the two sides of its outline lies behind their plane, where no camera sees."""
    if not model.thickness:
        return False
    axis = model.rotation @ normal(surface.plane.to(model.shape), model.shape)
    toward_camera = -(axis * model.translation).sum(-1).sign()
    return bool((surface.offsets.mean() * toward_camera.mean()) < 0)


def shape_warnings(data, report, policy):
    """Warnings about the shape part of a build: few annotations, hardly known handedness.

    data: :class:`Constellations`; report: of the shape, see :class:`ShapeResult`; policy: :class:`DataPolicy`
    """
    points, images = int(data.visible.sum()), len(data.points)
    ratio, evidence = trust_ratio(points, images, data.count), report.get("handedness_evidence")
    warnings = []
    if ratio < policy.trust_ratio:
        warnings.append(
            f"{points} annotated points in {images} images are few for {data.count} keypoints (ratio {ratio:.2f}, reliable from "
            f"{policy.trust_ratio}): {LOOK}"
        )
    if evidence is not None and evidence < policy.handedness:
        warnings.append(
            f"the images hardly tell the shape from its reversal in depth (evidence {evidence:.1f}, reliable from {policy.handedness}); "
            f"left and right may be exchanged: {LOOK}"
        )
    return warnings


def surface_warnings(surface, model):
    """Warnings about a dense cloud: see :func:`surface_behind`."""
    if not surface_behind(surface, model):
        return []
    return [f"the surface came out behind the outline that it lies before: the depth maps mislead or are too few: {LOOK}"]
