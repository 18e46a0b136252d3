"""The object's mask from the embedded backbone, which was trained to tell the synthetic categories from their surroundings."""

from collections.abc import Callable

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.image_grid import LARGEST, SquareGrid
from semalign3d_core.geometry.mask_field import inside_box, on_image
from semalign3d_core.perception.backbones.compact import CompactBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.masks import Box, MaskSource, Points
from semalign3d_core.perception.masks.finder import ImageNetFinder

LEAST_PART = 0.1  # parts of the object (seen behind an occluder) count from this share of the largest part's evidence on
OTHER = 0.05  # what a cell counts of which the network is sure that it shows an object, but of another category
SMALLEST = 0.0005  # share of the image below which nothing counts as found


class CompactMasks(MaskSource):
    """Pixels that the embedded backbone takes for an object, where that is most likely of the category.

    On photographs it tells well what is an object and what is background, but not of which category an object is: that decides only
    which of several objects is taken.

    backbone: :class:`~semalign3d_core.perception.backbones.compact.CompactBackbone`; category: name of the category to find; of one that
    the backbone was not trained on, all objects count alike; shared: whether the features of an
    image that callers have are those of ``backbone``; finder: asked by :meth:`search`.
    """

    name = "compact"
    reads_features = True
    glances = True
    concurrent = True

    def __init__(self, backbone: CompactBackbone, category: str = "", shared: bool = False, finder: ImageNetFinder | None = None):
        self.backbone, self.shared, self.own_features, self.finder = backbone, shared, backbone.name, finder
        known = backbone.categories
        self.wanted = [1 + known.index(category)] if category in known else list(range(1, 1 + len(known)))

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """(h, w) bool mask of the object in ``image``; None if there is none. ``box`` limits where it is looked for."""
        return self._segment(self.backbone.extract(image), box)

    def segment_features(
        self, features: FeatureMap, image: ImageInput, box: Box | None = None, points: Points | None = None
    ) -> torch.Tensor | None:
        """As :meth:`segment`, for an image whose :class:`FeatureMap` is there already; ``points`` are not used."""
        return self._segment(features if self.shared else self.backbone.extract(image), box)

    def glance(self, image: ImageInput, box: Box | None = None) -> torch.Tensor | None:
        """As :meth:`segment`, in half the time and coarser: enough to know where to look closely."""
        grid, probabilities = self.backbone.glance(image)
        return self._mask(grid, probabilities, box)

    def search(self, image: ImageInput) -> Box | None:
        """Where the finder sees the object; see :class:`MaskSource`."""
        return None if self.finder is None else self.finder.search(image)

    def rest(self) -> None:
        """See :meth:`ImageNetFinder.rest`."""
        if self.finder is not None:
            self.finder.rest()

    def _segment(self, features: FeatureMap, box: Box | None) -> torch.Tensor | None:
        return self._mask(features.grid, self.backbone.class_probabilities(features), box)

    def _mask(self, grid: SquareGrid, probabilities: torch.Tensor, box: Box | None) -> torch.Tensor | None:
        factor = max(grid.height, grid.width) / LARGEST
        if factor > 1:  # cells are larger than these pixels by far
            smaller_box = None if box is None else (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor)
            small = self._mask(grid.scaled(factor), probabilities, smaller_box)
            if small is None:
                return None
            full = cv2.resize(small.numpy().view(np.uint8), (grid.width, grid.height), interpolation=cv2.INTER_NEAREST)
            return torch.from_numpy(full.view(bool))
        thing = (1 - probabilities[0]).clamp(1e-4, 1 - 1e-4)
        wanted = OTHER + (1 - OTHER) * probabilities[self.wanted].sum(0) / thing
        evidence, (rows, columns) = on_image(torch.logit(thing).cpu(), grid), grid.covered_part
        for unseen in np.s_[: rows.start], np.s_[rows.stop :], np.s_[:, : columns.start], np.s_[:, columns.stop :]:
            evidence[unseen] = -1
        if box is not None:
            evidence[~inside_box(evidence.shape, box)] = -1
        mask = strongest_parts(evidence, lambda: on_image(wanted.cpu(), grid))
        return None if mask is None else torch.from_numpy(mask)


def strongest_parts(evidence: np.ndarray, share: Callable[[], np.ndarray]) -> np.ndarray | None:
    """The connected regions that hold most of the evidence, as a bool array (h, w); None if there are none.

    evidence: (h, w), positive where the object may be; share: gives by how much every pixel counts, (h, w), where regions compete.
    """
    positive = (evidence > 0).view(np.uint8)
    x, y, columns, rows = cv2.boundingRect(positive)
    if not columns:
        return None
    part = np.s_[y : y + rows, x : x + columns]  # where nothing is positive, nothing can be found
    regions, labels = cv2.connectedComponents(positive[part])
    mask = positive.astype(bool)
    if regions > 2:  # the first is the background
        counted = (evidence[part] * share()[part])[labels > 0]
        weight = np.bincount(labels[labels > 0], counted, regions)
        mask[part] = (weight >= LEAST_PART * weight.max())[labels] & (labels > 0)
    return mask if np.count_nonzero(mask) >= SMALLEST * mask.size else None
