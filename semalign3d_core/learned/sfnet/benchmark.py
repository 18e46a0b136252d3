"""SFNet's own protocols: PF-WILLOW, PF-PASCAL and any data set with keypoint pairs; Caltech-101 and its masks.

Target points are carried to the source through the T to S grid and compared there, PCK is inclusive and a mean over pairs
(:mod:`semalign3d_core.metrics.grid_transfer`). Source: SFNet (CVPR 2019), section 4, and its code.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from semalign3d_core.datasets.records import ImageRecord, PairRecord
from semalign3d_core.learned.sfnet.network import Levels, SFNet, Size
from semalign3d_core.learned.sfnet.pictures import canvas
from semalign3d_core.metrics.grid_transfer import inner_grid, pair_pck, transfer_points
from semalign3d_core.metrics.mask_transfer import intersection_over_union, label_transfer_accuracy, warp_mask
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, choice

SIDE = 288  # of the pictures without their ring, in the mode "image"
IMAGES_IN_MEMORY = 100
Measure = tuple[Size, Size, list[np.ndarray], float]  # sizes of source and target, factors of their pixels, unit of the threshold


class FrozenLevels:
    """What a pyramid says of images, the last ones in memory: networks above the same pyramid share it."""

    def __init__(self, pyramid: nn.Module, cells: int) -> None:
        self.pyramid, self.cells = pyramid, cells
        self._kept: OrderedDict[Any, Levels] = OrderedDict()

    @torch.no_grad()
    def __call__(self, record: ImageRecord) -> Levels:
        """Both levels (1, C, h, w) of an :class:`ImageRecord`."""
        if record.path not in self._kept:
            while len(self._kept) >= IMAGES_IN_MEMORY:
                self._kept.popitem(last=False)
            self._kept[record.path] = frozen_levels(self.pyramid, self.cells, read_image(record.path, record).rgb)
        return self._kept[record.path]


class ImageLevels:
    """A network's adapted levels of images, the last ones in memory.

    frozen: :class:`FrozenLevels` to share, or None
    """

    def __init__(self, network: SFNet, frozen: FrozenLevels | None = None) -> None:
        self.network = network
        self._kept: OrderedDict[Any, Levels] = OrderedDict()
        self.frozen = frozen or FrozenLevels(network.pyramid, network.config.cells)

    @torch.no_grad()
    def __call__(self, record: ImageRecord) -> Levels:
        """Adapted levels (1, C, h, w) of an :class:`ImageRecord`."""
        if record.path not in self._kept:
            while len(self._kept) >= IMAGES_IN_MEMORY:
                self._kept.popitem(last=False)
            self._kept[record.path] = self.network.adapted(*self.frozen(record))
        return self._kept[record.path]


def frozen_levels(pyramid: nn.Module, cells: int, rgb: np.ndarray) -> Levels:
    """Both levels of a pyramid, (1, C, h, w), of a picture (h, w, 3) uint8 as the published protocol frames it."""
    return pyramid(canvas(rgb, cells)[None].to(next(pyramid.parameters()).device))


@torch.no_grad()
def adapted_levels(network: SFNet, rgb: np.ndarray) -> Levels:
    """The adapted levels of a picture (h, w, 3) uint8, each (1, C, cells, cells)."""
    return network.adapted(*frozen_levels(network.pyramid, network.config.cells, rgb))


@torch.no_grad()
def pixel_grid(network: SFNet, start: Levels, end: Levels, size: Size) -> torch.Tensor:
    """Sampling grid (h, w, 2) of an image of ``size`` (h, w): where its pixels are in the other image, x and y from -1 to 1 there.

    start, end: adapted levels of the image and of the other one
    """
    _, grid = network.carry(start, end)
    return inner_grid(grid[0], *size)


def _image_mode(pair: PairRecord) -> Measure:
    """Both images stretched to 288 x 288, threshold relative to 288."""
    scales = [np.array([SIDE / image.width, SIDE / image.height]) for image in (pair.source, pair.target)]
    return (SIDE, SIDE), (SIDE, SIDE), scales, SIDE


def _bbox_mode(pair: PairRecord) -> Measure:
    """Original pixels, threshold relative to the longer side of the source's box."""
    box = pair.source.box
    if box is None:
        raise FileFormatError(f"{pair.source.path}: no object box is annotated; use the mode image")
    sizes = [(image.height, image.width) for image in (pair.source, pair.target)]
    return sizes[0], sizes[1], [np.ones(2), np.ones(2)], float(max(box[2] - box[0], box[3] - box[1]))


MODES = {"image": _image_mode, "bbox": _bbox_mode}


def keypoint_scores(
    network: SFNet, pairs: Iterable[PairRecord], mode: str = "bbox", alphas: Sequence[float] = (0.1,), frozen: FrozenLevels | None = None
) -> np.ndarray:
    """PCK of every pair at every alpha, (pairs, alphas) in [0, 1]; NaN for a pair without common keypoints.

    pairs: :class:`PairRecord` ...;  mode: see ``MODES``;  frozen: :class:`FrozenLevels` to share
    """
    measure, levels, scores = choice("mode", mode, MODES), ImageLevels(network, frozen), []
    for pair in pairs:
        source_size, target_size, scales, reference = measure(pair)
        both = np.isfinite(pair.source.keypoints).all(1) & np.isfinite(pair.target.keypoints).all(1)
        truth, points = (image.keypoints[both] * scale for image, scale in zip((pair.source, pair.target), scales, strict=True))
        grid = pixel_grid(network, levels(pair.target), levels(pair.source), target_size)
        found = transfer_points(grid, points, source_size)
        scores.append([pair_pck(found, truth, reference, alpha) for alpha in alphas])
    return np.array(scores)


def mask_scores(network: SFNet, dataset: Any, pairs: Iterable[PairRecord]) -> np.ndarray:
    """(label-transfer accuracy, IoU) of every pair, (pairs, 2): the source's mask through the T to S grid, as WeakAlign scores it."""
    levels, scores = ImageLevels(network), []
    for pair in pairs:
        grid = pixel_grid(network, levels(pair.target), levels(pair.source), (pair.target.height, pair.target.width))
        warped, truth = warp_mask(dataset.mask(pair.source), grid), dataset.mask(pair.target)
        scores.append([label_transfer_accuracy(warped, truth), intersection_over_union(warped, truth)])
    return np.array(scores)


def interval(pairs: Sequence[PairRecord], scores: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """(low, high): 95 % bootstrap interval of the mean of ``scores`` (pairs,), images drawn anew, because pairs share them."""
    names = sorted({image.path for pair in pairs for image in (pair.source, pair.target)})
    number = {name: index for index, name in enumerate(names)}
    ends = np.array([[number[pair.source.path], number[pair.target.path]] for pair in pairs])
    known = np.isfinite(scores)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    weight = (counts[:, ends[:, 0]] * counts[:, ends[:, 1]])[:, known]
    means = (weight * scores[known]).sum(1) / np.maximum(weight.sum(1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
