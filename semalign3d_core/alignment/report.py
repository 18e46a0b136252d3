"""From the winning candidate to the :class:`Alignment` that others read."""

import torch

from semalign3d_core.alignment.poses import project_points
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.alignment.visibility import behind_depth_map, front_most, metric_scale
from semalign3d_core.geometry import shape_diameter, similarity_alignment


def make_alignment(aligner, observation, evidence, solution, belief, previous=None):
    """:class:`Alignment` of the winner of a :class:`Solution`; belief: {map: probability}."""
    category, candidates, winner = aligner.category, solution.candidates, solution.selection.winner
    camera = evidence.camera if evidence.camera.known else evidence.camera.with_focal(candidates.focal[winner].cpu())
    points = (category.lift @ candidates.keypoints[winner])[None]
    projected = project_points(points, candidates.focal[winner : winner + 1], observation.principal)
    longer = camera.longer_side
    scale = similarity_alignment(category.shape, candidates.keypoints[winner])[0]
    diameter = float(scale * shape_diameter(category.shape))
    seen = _seen(category, points, projected, diameter)
    cloud, pixels = points[0, : category.dense], projected[0] * longer
    usable = seen[: category.dense] & _on_mask(observation, projected[0, : category.dense])
    visible = seen[category.dense :] & _in_picture(pixels[category.dense :], camera)
    if evidence.depth is not None:
        inverse, dense = evidence.depth.inverse().to(points), category.dense
        visible &= ~behind_depth_map(inverse, cloud, pixels[:dense], usable, points[0, dense:], pixels[dense:], diameter)
    factor = _metres(aligner, evidence, cloud, pixels[: category.dense], usable, diameter)
    points = points[0] * (factor or 1.0)
    scale, rotation, translation = similarity_alignment(category.shape, points[category.dense :])
    dense_cloud = aligner.model.surface.over(category.keypoints) @ points[category.dense :]  # all of the model, also stray points
    present = belief["present"]
    keypoint_confidence = _keypoint_confidence(observation, category, projected[0]) * belief["keypoints"] * present
    return Alignment(
        category=aligner.model.category, model_hash=aligner.model_hash, keypoint_names=aligner.model.keypoint_names,
        keypoints_3d=_scattered(aligner.model, category, points[category.dense :]),
        keypoints_2d=_scattered(aligner.model, category, pixels[category.dense :]),
        visible=_scattered(aligner.model, category, visible, False),
        keypoint_confidence=_scattered(aligner.model, category, keypoint_confidence, 0.0),
        cloud_3d=dense_cloud, rotation=rotation, translation=translation, scale=float(scale), camera=camera,
        scale_kind="relative" if factor is None else "metric",
        energy=float(solution.energies[winner]), terms={name: float(value[winner]) for name, value in solution.terms.items()},
        confidence=belief["pose"] * present, found=belief["pose"] * present >= aligner.config.selection.found_threshold,
        undetermined_axis=aligner.axis, diagnostics=_diagnostics(observation, solution, belief, longer, previous),
    )  # fmt: skip


def _seen(category, points, projected, diameter):
    """(J,) bool: not hidden by the object's own cloud."""
    dense = category.dense
    return front_most(projected[:, :dense], points[:, :dense, 2], projected, points[..., 2], diameter)[0]


def _on_mask(observation, projected):
    if observation.field is None:
        return torch.ones(len(projected), dtype=torch.bool, device=projected.device)
    return observation.field.sample(projected) <= 0


def _in_picture(pixels, camera):
    return (pixels > -0.5).all(-1) & (pixels[:, 0] < camera.width - 0.5) & (pixels[:, 1] < camera.height - 0.5)


def _metres(aligner, evidence, cloud, pixels, usable, diameter):
    """Factor to metres from a known diameter or from metric depth; None if neither is at hand."""
    if aligner.known_diameter is not None:
        return aligner.known_diameter / diameter
    if evidence.depth is None or evidence.depth.kind != "metric":
        return None
    return metric_scale(evidence.depth.values.to(cloud), cloud, pixels, usable)


def _keypoint_confidence(observation, category, projected):
    """(K,) best likelihood (Eq. 6) of every keypoint near its place; from 0.5, for the others place an occluded keypoint too."""
    keypoints = projected[category.dense :]
    distance2 = ((observation.keypoint_cells - keypoints[:, None]) ** 2).sum(-1)
    sigma = 0.05 * observation.unit
    best = (observation.keypoint_log - 0.5 * distance2 / sigma**2).amax(-1).exp()
    return 0.5 + 0.5 * best


def _scattered(model, category, values, missing=float("nan")):
    """Values of present keypoints at their places among all keypoints of the model."""
    full = torch.full((len(model.present), *values.shape[1:]), missing, dtype=values.dtype, device=values.device)
    full[category.keypoints] = values
    return full


def _diagnostics(observation, solution, belief, longer, previous):
    candidates, selection = solution.candidates, solution.selection
    result = {
        "statistics": solution.statistics, "probabilities": belief, "margin": solution.statistics["margin"],
        "scores": selection.score, "rotations": selection.rotations, "depth_order": selection.depth_order,
        "candidates_2d": project_points(candidates.keypoints, candidates.focal, observation.principal) * longer,
        "trace": candidates.trace, "box": observation.boxes[0],
        "warm_frames": 0 if previous is None else previous.diagnostics["warm_frames"] + 1,
    }  # fmt: skip
    if candidates.starts is not None:
        focal = observation.focal.expand(len(candidates.starts), 2)
        result["starts_2d"] = project_points(candidates.starts, focal, observation.principal) * longer
    if candidates.start_scores is not None:
        result["start_scores"] = candidates.start_scores
    return result
