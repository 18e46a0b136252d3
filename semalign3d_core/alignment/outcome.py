"""What an alignment says, as tensors of fixed shapes: the last step before the host reads anything."""

import math

import torch

from semalign3d_core.alignment.gauss_newton.poses import Poses, poses_of_keypoints, project_points
from semalign3d_core.alignment.keypoint_bias import with_offsets
from semalign3d_core.alignment.projected_solutions import picked
from semalign3d_core.alignment.visibility import behind_depth_map, front_most, metric_scale
from semalign3d_core.geometry.rotations import shape_diameter

KEPT_ON_DEVICE = ("state",)  # what only the next frame asks for
PACKED = "packed"  # on a GPU: the rest in one tensor, in the order of the outcome


def outcome_of(aligner, image, observation, solution):
    """{name: tensor} of everything that is reported of the winner of a :class:`Solution`."""
    category, candidates, selection, dense = aligner.category, solution.candidates, solution.selection, aligner.category.dense
    principal = observation.principal
    keypoints = with_offsets(candidates.keypoints, candidates.rotations, category.shape, aligner.offsets)
    focal = picked(candidates.focal, selection.winner)
    points = category.lift @ picked(keypoints, selection.winner)
    projected = project_points(points[None], focal[None], principal)[0]
    diameter = shape_diameter(points[dense:])
    seen = front_most(projected[None, :dense], points[None, :dense, 2], projected[None], points[None, :, 2], diameter)[0]
    usable = seen[:dense]
    if observation.field is not None:
        usable = usable & (observation.field.sample(projected[:dense]) <= 0)
    visible, readings = seen[dense:], image.inverse_depth(projected)
    if aligner.axis is not None:
        visible = torch.ones_like(visible)  # the turn about the axis is arbitrary, and with it what the object hides of itself
    if image.layout.depth is not None:
        visible = visible & ~behind_depth_map(readings[:dense], points[:dense, 2], usable, readings[dense:], points[dense:, 2], diameter)
    metric = torch.full_like(diameter, torch.nan)
    if image.layout.depth == "metric":
        metric = metric_scale(1 / readings[:dense], points[:dense, 2], usable)
    result = {
        "keypoints": points[dense:], "projected": projected[dense:], "focal": focal,
        "diameter": diameter, "metric": metric, "visible": visible, "belief": solution.belief, "statistics": solution.statistics,
        "keypoint_evidence": solution.evidence, "winner": selection.winner,
        "score": selection.score, "energies": solution.energies,
        "terms": torch.stack(list(solution.terms.values())), "depth_order": selection.depth_order,
        "rotations": candidates.rotations, "trace": candidates.trace, "box": observation.boxes[0],
        "candidates_3d": keypoints, "candidates_focal": candidates.focal,
        "candidates_2d": project_points(keypoints, candidates.focal, principal),
        "state": pose_state(category, observation, candidates, selection),
    }  # fmt: skip
    if candidates.starts is not None:
        result["starts_2d"] = project_points(candidates.starts, observation.focal.expand(len(candidates.starts), 2), principal)
    if candidates.start_scores is not None:
        result["start_scores"] = candidates.start_scores
    return packed(result) if points.is_cuda else result


def packed(outcome):
    """The outcome, and besides all of it that the host reads in one tensor, so that there is one transfer."""
    read = [value.flatten().to(outcome["keypoints"].dtype) for name, value in outcome.items() if name not in KEPT_ON_DEVICE]
    return outcome | {PACKED: torch.cat(read)}


def pose_state(category, observation, candidates, selection):
    """What the next frame starts from, in one tensor: pose (9 + 5 + M), log of the mean focal length, margin, lead, and box (4)."""
    focal = picked(candidates.focal, selection.winner).log().mean()
    if candidates.poses is not None:
        poses = Poses(*(picked(value, selection.winner)[None] for value in (candidates.poses.rotation, candidates.poses.rest)))
    else:
        keypoints = picked(candidates.keypoints, selection.winner)[None]
        poses = poses_of_keypoints(category, keypoints, torch.zeros_like(keypoints[:, 0, 0]))
    known = torch.stack([focal, selection.margin, selection.lead])
    return torch.cat([poses.rotation.flatten(), poses.rest[0], known, observation.boxes[0]])


def state_in_picture(state, share, box):
    """The state of a crop as one of the whole picture, of whose longer side the crop's is a ``share``; box: (4,) filled there.

    The camera frame is the same for both; only the focal length, in units of the longer side, and the box are not.
    """
    pose, focal, known, _ = state_parts(state)
    return torch.cat([pose, focal + math.log(share), known, box.to(state)])


def state_parts(state):
    """Of a state: pose (9 + 5 + M), log of the mean focal length (1), margin and lead (2,), and box (4,)."""
    return state.split((len(state) - 7, 1, 2, 4))
