"""What a data set hands to the rest of the package."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class KeypointSpec:
    """The keypoints of a category: K names and the label each becomes in the mirror image (K indices)."""

    names: tuple
    flip_permutation: tuple


@dataclass(frozen=True)
class ImageRecord:
    """One annotated image.

    category, name: together they identify the image in its data set (``name`` has no suffix)
    path:       the image file;  height, width: its size in pixels
    keypoints:  (K, 2) float32 pixels, NaN where not annotated
    box:        (4,) float32 x1, y1, x2, y2 of the object, or None
    attributes: further annotation, as published (azimuth_id, truncated, pose, ...)
    """

    category: str
    name: str
    path: Path
    height: int
    width: int
    keypoints: np.ndarray
    box: np.ndarray | None = None
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PairRecord:
    """One evaluation pair: its published name, the two images, and its published attributes
    (viewpoint_variation, scale_variation, truncation, occlusion, ...)."""

    name: str
    source: ImageRecord
    target: ImageRecord
    attributes: dict = field(default_factory=dict)
