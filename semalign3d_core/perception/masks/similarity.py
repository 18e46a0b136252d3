"""The object's mask from nothing but the features' similarity to a category model."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.mask_field import inside_box, on_image
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.masks import Box, KnownObject, MaskSource, Points
from semalign3d_core.runtime.errors import InputError

CHUNK = 1024  # cells at a time


@dataclass(frozen=True)
class SimilarityConfig:
    """Settings of :class:`SimilarityMasks`.

    level:    threshold between background and object, from Otsu's threshold (0) to the object's median similarity (1)
    band:     width of the zone around the coarse outline that the picture's colours decide, in cells; 0 leaves it coarse
    side:     longer side in pixels of the picture in which the outline is refined
    keep:     a refined mask that holds less than this share of the coarse one is not taken
    smallest: masks of a smaller share of the image count as "nothing found"
    """

    level: float = 0.55
    band: float = 2.0
    side: int = 160
    keep: float = 0.4
    smallest: float = 0.0005


class SimilarityMasks(MaskSource):
    """Finds the object by how well each cell is explained by the dense features of a :class:`CategoryModel`.

    model: :class:`CategoryModel`;  backbone: extracts features where :meth:`segment` gets a bare image, or None
    """

    name = "similarity"
    reads_features = True

    compares_with: KnownObject

    def __init__(self, model: KnownObject, backbone: FeatureBackbone | None = None, config: SimilarityConfig | None = None) -> None:
        self.compares_with, self.backbone, self.config = model, backbone, config or SimilarityConfig()
        self.own_features = "" if backbone is None else backbone.name

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """(h, w) bool mask of the object in ``image``; None if nothing resembles it. ``box`` limits where it is looked for."""
        return self.segment_features(self.features(image), image, box, points)

    def segment_features(
        self, features: FeatureMap, image: ImageInput, box: Box | None = None, points: Points | None = None
    ) -> torch.Tensor | None:
        """As :meth:`segment`, for an image whose :class:`FeatureMap` is there already; ``points`` are not used."""
        mask = coarse_mask(similarity_map(self.compares_with, features), features.grid, self.config, box)
        if mask is not None and self.config.band > 0:
            mask = refine_by_colour(image.rgb, mask, self.config, features.grid.cells)
        return None if mask is None else torch.from_numpy(mask)

    def prompts(self, features: FeatureMap, image: ImageInput) -> tuple[Any, Any]:
        """(box, points) that show a promptable segmenter the object; (None, None) if nothing resembles it."""
        similarity = similarity_map(self.compares_with, features)
        mask = coarse_mask(similarity, features.grid, self.config)
        if mask is None:
            return None, None
        found = torch.from_numpy(mask)
        rows, columns = torch.nonzero(found, as_tuple=True)
        box = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
        inside = features.grid.cells_inside(found) > 0.5
        best = torch.where(inside, similarity, -torch.inf).flatten().topk(min(3, max(1, int(inside.sum())))).indices
        return box, features.grid.cell_centres()[best].numpy()

    def features(self, image: ImageInput) -> FeatureMap:
        """The :class:`FeatureMap` of ``image``; raises :class:`InputError` without a backbone."""
        if self.backbone is None:
            raise InputError(f"{image.name}: similarity masks need the features of the image; give them, or a backbone")
        return self.backbone.extract(image)


def similarity_map(model: KnownObject, features: FeatureMap) -> torch.Tensor:
    """(cells, cells) float on the CPU: cosine of each cell with the dense point it resembles most."""
    cells = features.values.flatten(1).T
    dense = model.dense_features.to(cells)
    return torch.cat([(part @ dense.T).amax(1) for part in cells.split(CHUNK)]).reshape(features.values.shape[1:]).cpu()


def coarse_mask(
    similarity: torch.Tensor, grid: SquareGrid, config: SimilarityConfig = SimilarityConfig(), box: Box | None = None
) -> np.ndarray | None:  # noqa: B008 (frozen)
    """(h, w) bool array: the connected region of ``similarity`` (cells, cells) with most evidence above the threshold, or None.

    The threshold comes from this image alone, so that backbones with high and with low cosines are treated alike: Otsu's,
    raised towards the median of what lies above it, because the background is wider spread than the object.
    """
    inside = grid.cells_inside(torch.ones(grid.height, grid.width)) > 0.5
    values = similarity[inside].double().numpy() if inside.any() else similarity.flatten().double().numpy()
    threshold = _otsu(values)
    above = values[values > threshold]
    if not len(above):
        return None
    threshold += config.level * (np.median(above) - threshold)
    evidence = on_image(similarity, grid) - threshold
    evidence[~grid.covered().numpy()] = -1  # features of a window say nothing about the rest
    if box is not None:
        evidence[~inside_box(evidence.shape, box)] = -1
    regions, labels = cv2.connectedComponents((evidence > 0).astype(np.uint8))
    if regions < 2:
        return None
    weight = np.bincount(labels.ravel(), np.clip(evidence, 0, None).ravel(), regions)
    mask = _without_holes(labels == weight[1:].argmax() + 1)
    return mask if mask.mean() >= config.smallest else None


def refine_by_colour(rgb: np.ndarray, mask: np.ndarray, config: SimilarityConfig, cells: int) -> np.ndarray:
    """The outline of ``mask`` (h, w) moved to where the colours of ``rgb`` change, inside a band around it (GrabCut).

    What lies further inside or outside than the band stays. A result that loses most of the mask is not taken.
    """
    height, width = mask.shape
    scale = min(1.0, config.side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    radius = max(2, round(config.band * max(size) / cells))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    labels = np.where(small > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(small, disc, borderValue=1) > 0] = cv2.GC_FGD
    labels[cv2.dilate(small, disc) == 0] = cv2.GC_BGD
    if small.all() or small.sum() < 30 or not (labels == cv2.GC_BGD).any():  # too few pixels for colour models
        return mask
    picture = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA)
    if picture[(labels == cv2.GC_PR_FGD) | (labels == cv2.GC_PR_BGD)].std(axis=0).max() < 4:  # grey levels: no edge to find
        return mask
    cv2.setRNGSeed(0)  # the colour clusters start at random: the same image must give the same mask
    cv2.grabCut(picture, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    if (found * small).sum() < config.keep * small.sum():
        return mask
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold of ``values`` (N,), to 1/255 of their range."""
    low, extent = values.min(), np.ptp(values)
    if extent < 1e-9:
        return low
    level, _ = cv2.threshold(np.rint(255 * (values - low) / extent).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    return low + level / 255 * extent


def _without_holes(mask: np.ndarray) -> np.ndarray:
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2
