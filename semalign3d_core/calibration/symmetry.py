"""Axes about which a category's pose is not determined, such as that of a bottle."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.result import Alignment
from semalign3d_core.geometry.rotations import rotation_from_vector
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.threads import one_thread

ANGLES = (-135, -90, -45, 45, 90, 135, 180)  # degrees
FREE_SHARE = 0.18  # of the loss by turning about the stiffest axis, below which an axis is free
FREE_LOSS = 0.09  # largest relative loss of the dense term about a free axis
UNTURNED_DEGREES = 15.0  # circular standard deviation of the side from which an axis was always seen
UNTURNED_SHARE, UNTURNED_LOSS = 0.52, 0.48  # the same limits about such an axis: its model has only one side


def undetermined_axis_of(axes: Tensor, losses: Sequence[Tensor], pose_rotations: Tensor) -> Tensor | None:
    """The object-frame axis (3,) about which aligned objects can be turned without loss of the dense term; None if there is none.

    axes: (3, 3) rows, of :func:`principal_axes`;  losses: images of (3,), of :func:`turning_losses`;  pose_rotations: (N, 3, 3) of the
    training views, object to camera. Median over images. By convention all training views of a body of revolution show one side of it,
    of which the cloud then consists, so that less similarity under turns is required.
    """
    if not len(losses):
        return None
    loss = torch.stack(list(losses)).median(0).values
    free = int(loss.argmin())
    unturned = azimuth_spread(axes[free], pose_rotations) < UNTURNED_DEGREES
    share, largest = (UNTURNED_SHARE, UNTURNED_LOSS) if unturned else (FREE_SHARE, FREE_LOSS)
    return axes[free] if loss[free] <= largest and loss[free] <= share * loss.amax() else None


def azimuth_spread(axis: Tensor, pose_rotations: Tensor) -> float:
    """Circular standard deviation in degrees of the side from which an object-frame axis (3,) was seen; infinite without poses.

    pose_rotations: (N, 3, 3) object to camera.
    """
    if not len(pose_rotations):
        return math.inf
    toward = -pose_rotations[:, 2]
    across = toward - (toward @ axis)[:, None] * axis
    resultant = (across / across.norm(dim=1, keepdim=True).clamp(min=1e-9)).mean(0).norm()
    return math.degrees(math.sqrt(-2 * math.log(min(max(float(resultant), 1e-9), 1.0))))


def principal_axes(category: CategoryTensors) -> Tensor:
    """Rows (3, 3): principal axes of the dense cloud, the first with the least extent."""
    cloud = category.points[: category.dense]
    centred = cloud - cloud.mean(0)
    return torch.linalg.eigh(centred.T @ centred)[1].T


@one_thread()
@torch.no_grad()
def turning_losses(aligner: Aligner, evidence: ImageEvidence, alignment: Alignment, axes: Tensor) -> Tensor:
    """(3,) relative loss of the dense term, averaged over angles, by turning an aligned object about each of the axes (3, 3).

    aligner: one without keypoint bias, which made the alignment. Only Eq. 7 counts: keypoints on a silhouette are placed by convention
    and would hide that a body of revolution has no azimuth.
    """
    category = aligner.category
    keypoints = alignment.keypoints_3d.to(axes)  # in whatever unit: the image is the same
    angles = torch.tensor([0.0, *map(math.radians, ANGLES)]).to(axes)
    turns = rotation_from_vector((axes @ alignment.rotation.to(axes).T)[:, None] * angles[:, None]).reshape(-1, 3, 3)
    centre = (category.surface @ keypoints[category.keypoints])[: category.dense].mean(0)
    turned = (keypoints - centre) @ turns.transpose(1, 2) + centre
    dense = aligner.terms(evidence, turned, alignment.camera)["dense"].reshape(3, -1)
    return ((dense[:, 1:] - dense[:, :1]) / dense[:, :1].abs().clamp(min=1e-6)).mean(1)
