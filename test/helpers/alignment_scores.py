"""Scores of alignments of simulated images."""

import math

from semalign3d_core.geometry.rotations import rotation_angle


def keypoint_pck(alignment, image, alpha=0.1):
    """Share of the visible keypoints within ``alpha`` of the longer side of the object's box."""
    rows, columns = image.evidence.mask.nonzero().unbind(1)
    longer = max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
    distance = (alignment.keypoints_2d - image.keypoints).norm(dim=-1)[image.visible]
    return float((distance < alpha * longer).float().mean())


def rotation_error(alignment, image):
    """Degrees."""
    return math.degrees(float(rotation_angle(alignment.rotation, image.rotation)))


def mean(values):
    values = list(values)
    return sum(values) / len(values)
