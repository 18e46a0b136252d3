"""Axes about which a category's pose is not determined, such as that of a bottle."""

import math

import torch

from semalign3d_core.alignment.placed import Placed
from semalign3d_core.alignment.solvers import evaluate
from semalign3d_core.geometry import rotation_from_vector
from semalign3d_core.threads import in_parallel

ANGLES = (-135, -90, -45, 45, 90, 135, 180)  # degrees
IMAGES = 12
FREE_SHARE = 0.18  # of the loss by turning about the stiffest axis, below which an axis is free
FREE_LOSS = 0.09  # largest relative loss of the dense term about a free axis
UNTURNED_DEGREES = 15.0  # circular standard deviation of the side from which an axis was always seen
UNTURNED_SHARE, UNTURNED_LOSS = 0.52, 0.48  # the same limits about such an axis: its model has only one side


def undetermined_axis_of(aligner, evidences, workers=None):
    """The object-frame axis (3,) about which aligned objects can be turned without loss of the dense term; None if there is none.

    Median over images and mean over angles of the loss, for the principal axes of the cloud. Only Eq. 7 is asked:
    keypoints on a silhouette are placed by convention and would hide that a body of revolution has no azimuth. By that convention all
    training views also show one side of it, of which the cloud then consists, so that less similarity under turns is asked for.
    workers: images worked on at a time, as in :func:`~semalign3d_core.threads.in_parallel`.
    """
    if not len(evidences):
        return None
    step = max(len(evidences) // IMAGES, 1)
    numbers = range(0, len(evidences), step)
    losses = torch.stack(list(in_parallel(lambda n: _losses(aligner, evidences[n]), numbers, workers)))
    loss, axes = losses.median(0).values, principal_axes(aligner.category)
    free = int(loss.argmin())
    unturned = azimuth_spread(axes[free], aligner.model.pose_rotations) < UNTURNED_DEGREES
    share, largest = (UNTURNED_SHARE, UNTURNED_LOSS) if unturned else (FREE_SHARE, FREE_LOSS)
    return axes[free] if loss[free] <= largest and loss[free] <= share * loss.amax() else None


def azimuth_spread(axis, pose_rotations):
    """Circular standard deviation in degrees of the side from which an object-frame axis (3,) was seen; infinite without poses.

    pose_rotations: (N, 3, 3) object to camera.
    """
    if not len(pose_rotations):
        return math.inf
    toward = -pose_rotations[:, 2]
    across = toward - (toward @ axis)[:, None] * axis
    resultant = (across / across.norm(dim=1, keepdim=True).clamp(min=1e-9)).mean(0).norm()
    return math.degrees(math.sqrt(-2 * math.log(min(max(float(resultant), 1e-9), 1.0))))


def principal_axes(category):
    """Rows (3, 3): principal axes of the dense cloud, the first with the least extent."""
    cloud = category.points[: category.dense]
    centred = cloud - cloud.mean(0)
    return torch.linalg.eigh(centred.T @ centred)[1].T


def _losses(aligner, evidence):
    """(3,) relative loss of the dense term, averaged over angles, by turning the winner about each principal axis."""
    category, image = aligner.category, aligner.prepare(evidence)
    observation = aligner.observe(image)
    candidates = aligner.solver.solve(observation)
    solution = aligner.judge(image, observation, candidates)
    winner = int(solution.selection.winner)
    keypoints, rotation = candidates.keypoints[winner], candidates.rotations[winner]
    axes = principal_axes(category) @ rotation.T
    angles = torch.tensor([math.radians(a) for a in ANGLES]).to(axes)
    turns = rotation_from_vector(axes[:, None] * angles[:, None]).reshape(-1, 3, 3)
    centre = (category.lift @ keypoints)[: category.dense].mean(0)
    turned, focal = (keypoints - centre) @ turns.transpose(1, 2) + centre, candidates.focal[winner].expand(len(turns), 2)
    terms, _ = evaluate(category, aligner.betas, observation, Placed.of(category, observation, turned, focal), aligner.config)
    before = solution.terms["dense"][winner]
    return ((terms["dense"] - before) / before.abs().clamp(min=1e-6)).reshape(3, -1).mean(1)
