"""Keypoint bias: how far annotations lie beside the places at which features look like the keypoints.

What it is and how it is added is in ``semalign3d_core.alignment.judgement``; here it is learned from aligned training images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from semalign3d_core.alignment.gauss_newton.poses import project_points
from semalign3d_core.alignment.judgement import with_keypoint_bias
from semalign3d_core.alignment.result import Alignment, Alternatives
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.geometry.camera import PinholeCamera

ACCEPTED = 0.15  # median error, in object sizes, up to which an aligned training image is used
CUSTOMARY = 0.08  # error in object sizes from which an observation counts less and less
RIDGE = 2.0  # observations without any bias that are added


def stored_keypoint_bias(bias: Tensor) -> dict[str, float]:
    """A bias (K, 3) as entries of ``CategoryModel.calibration``."""
    return {f"offset.{k}.{axis}": float(value) for k, row in enumerate(bias) for axis, value in zip("xyz", row, strict=True)}


def pixels_with_bias(alternatives: Alternatives, camera: PinholeCamera, model: CategoryModel, bias: Tensor) -> Tensor:
    """(B, K, 2) pixels of all solutions of an image that was aligned without bias, each keypoint moved by its bias (K, 3)."""
    present, keypoints = model.present.cpu(), alternatives.keypoints_3d
    keypoints = keypoints[:, present] / keypoints[:, present, 2:].mean(1, keepdim=True)
    moved = with_keypoint_bias(keypoints, alternatives.rotations, model.shape.cpu()[present], bias[present])
    pixels = torch.full_like(alternatives.keypoints_2d, torch.nan)
    pixels[:, present] = project_points(moved, alternatives.focal, camera.principal) * camera.longer_side
    return pixels


def estimated_keypoint_bias(model: CategoryModel, alignments: Sequence[Alignment], annotations: Tensor) -> Tensor:
    """(K, 3) keypoint bias by robust least squares over aligned training images.

    alignments: N, without bias; annotations: (N, K, 2) pixels, NaN where not annotated. An observation of a keypoint is also one of its
    mirror partner.
    """
    count = len(model.present)
    matrix, vector = (RIDGE * torch.eye(3).repeat(count, 1, 1)), torch.zeros(count, 3)
    mirror, flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.tensor(model.flip_permutation)
    for alignment, truth in zip(alignments, annotations, strict=True):
        known = torch.isfinite(truth).all(-1) & model.present
        if int(known.sum()) < 2:
            continue
        size = (truth[known].amax(0) - truth[known].amin(0)).amax().clamp(min=1e-6)
        miss = (truth - alignment.keypoints_2d)[known] / size
        if not float(miss.norm(dim=1).median()) < ACCEPTED:
            continue
        labels, slope = known.nonzero()[:, 0], _slopes(alignment)[known] / size
        weight = 1 / (1 + (miss.norm(dim=1) / CUSTOMARY) ** 2)
        for place, turned in ((labels, slope), (flip[labels], slope @ mirror)):
            matrix.index_add_(0, place, weight[:, None, None] * turned.transpose(1, 2) @ turned)
            vector.index_add_(0, place, weight[:, None] * (turned.transpose(1, 2) @ miss[..., None])[..., 0])
    return torch.linalg.solve(matrix, vector) * model.present[:, None]


def _slopes(alignment: Alignment) -> Tensor:
    """(K, 2, 3) derivative of the keypoints' pixels by their bias in diameters of the object frame."""
    focal, depth = alignment.camera.focal * alignment.camera.longer_side, alignment.keypoints_3d[:, 2]
    ray = alignment.keypoints_3d[:, :2] / depth[:, None]
    plane = alignment.rotation[None, :2] - ray[..., None] * alignment.rotation[None, 2:]
    return alignment.scale * (focal[:, None] * plane) / depth[:, None, None]
