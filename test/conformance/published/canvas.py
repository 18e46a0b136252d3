"""Boxes and labels in the published evaluation frame, the 840-pixel square canvas."""

import numpy as np

from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.geometry.image_grid import CANVAS_SIDE, canvas_placement


def canvas_threshold(record: ImageRecord, side: int = CANVAS_SIDE) -> float:
    """Longest side of a record's box on the canvas."""
    assert record.box is not None, f"{record.name} has no box"
    x1, y1, x2, y2 = (float(v) for v in record.box)
    return max(x2 - x1, y2 - y1) * canvas_placement(record.width, record.height, side)[0]


def annotated_labels(keypoints: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """Labels (columns) of ``keypoints`` (n, K, 3) that at least one image shows; published evaluations drop the others."""
    return np.flatnonzero((np.asarray(keypoints)[..., 2] != 0).any(axis=0))
