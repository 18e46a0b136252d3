"""Where the objects of an image are: from the labels of a mask, from boxes, or from the parts of a mask source's own mask."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.mask_field import mask_box
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.look import Box
from semalign3d_core.perception.masks import MaskSource

MOST_OBJECTS = 20  # of one image that are looked at, the largest first
MOST_LABELS = 64  # different numbers of a mask that still are labels; more of them are shades
LEAST_PART = 0.25  # of the largest part's area, from which on a part of a mask counts as an object of its own


@dataclass(frozen=True)
class Proposal:
    """An object that is to be looked at: its ``mask`` (h, w) bool, or a detector's ``box``, or neither (the whole image).

    category: name, where it is known, else empty
    """

    mask: torch.Tensor | None = None
    box: Box | None = None
    category: str = ""

    def extent(self) -> Box | None:
        """The box of the object in pixels; None if nothing is known."""
        if self.mask is None:
            return self.box
        x0, y0, x1, y1 = (float(edge) for edge in mask_box(self.mask.numpy()))
        return x0, y0, x1, y1


def proposals_of_labels(labels: np.ndarray) -> list[Proposal]:
    """One proposal for every label of a mask (h, w) int, 0 being background; one for all of a mask of many shades."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(values):
        return []
    if len(values) > MOST_LABELS:
        return [Proposal(torch.from_numpy(labels > 0))]
    return [Proposal(torch.from_numpy(labels == value)) for value in values[np.argsort(-counts, kind="stable")][:MOST_OBJECTS]]


def proposals_of_source(image: ImageInput, source: MaskSource | None) -> list[Proposal]:
    """One proposal for every larger part of the mask that a mask source finds; the whole image where it finds at most one."""
    mask = None if source is None else source.glance(image) if source.glances else source.segment(image)
    if mask is None:
        return [Proposal()]
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.cpu().numpy().astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    large = [1 + part for part in np.argsort(-areas, kind="stable") if areas[part] >= LEAST_PART * areas.max()][:MOST_OBJECTS]
    if count < 3 or len(large) < 2:
        return [Proposal()]
    return [Proposal(box=_grown(statistics[part], image)) for part in large]


def _grown(statistics, image):
    """The box of a part, a little larger, for a first glance is coarse."""
    x, y, width, height = statistics[:4]
    margin = 0.1 * max(width, height)
    return max(x - margin, 0.0), max(y - margin, 0.0), min(x + width + margin, image.width), min(y + height + margin, image.height)
