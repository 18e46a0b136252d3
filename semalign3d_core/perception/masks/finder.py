"""Where a photograph shows an object of a category, by what ImageNet's classes say of every place in it.

The embedded backbone learned its categories from renderings: in a room full of things it takes a poster or a shelf for a screen. A
network that was trained to name photographs knows better, and is coarse: it tells where to look closely. It is asked where nothing
was found at the first place.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.mask_field import on_image
from semalign3d_core.perception.backbones.compact import PADDING, prepare
from semalign3d_core.perception.backbones.compiled import OpenVINONetwork, compiled
from semalign3d_core.perception.backbones.efficientnet_lite import at_cells, load_classifier, weights_path
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import MissingDependencyError

# ImageNet's classes (of the challenge of 2012, counted from 0) that show an object of a shipped category
CLASSES = {
    "aeroplane": (404, 895),  # airliner, warplane
    "bottle": (440, 720, 737, 898, 907),  # beer, pill, pop, water and wine bottle
    "car": (436, 468, 511, 609, 627, 656, 661, 717, 751, 817),  # beach wagon to sports car
    "chair": (423, 559, 765, 857),  # barber, folding and rocking chair, throne
    "mug": (504, 967, 968),  # coffee mug, espresso, cup
    "tvmonitor": (527, 664, 782, 851),  # desktop computer, monitor, screen, television
}
SIDE = 896  # of the network's square input in pixels; a screen that fills a fifth of the image is seen by a network of 224 pixels then
SEEN = 0.2  # probability of the category that a place needs, to be looked at
PLACE = 0.3  # of the largest probability: pixels above it belong to the place


class ClassMaps(nn.Module):
    """The classifier at every place: RGB in [0, 1], (B, 3, s, s) -> probabilities of ``CLASSES``, (B, categories, s / 32, s / 32)."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.network, self.features, self.scores = load_classifier("0", path)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        probabilities = self.scores(nn.functional.relu6(self.features(self.network(image)[0]))).softmax(1)
        return torch.stack([probabilities[:, list(classes)].sum(1) for classes in CLASSES.values()], dim=1)


@cache
def class_maps() -> Callable[[Tensor], Tensor]:
    """The network :class:`ClassMaps` in the faster runtime, one for all categories of a process."""
    return compiled(ClassMaps().eval(), torch.zeros(1, 3, SIDE, SIDE), "auto")


class ImageNetFinder:
    """Tells where an image shows a category.

    category: one of ``CLASSES``; raises :class:`MissingDependencyError` without the package of the weights (extra ``lite``).
    """

    def __init__(self, category: str) -> None:
        self._number = list(CLASSES).index(category)
        weights_path("0")  # the network itself is read when it is asked for the first time

    @torch.inference_mode()
    def search(self, image: ImageInput) -> tuple[float, float, float, float] | None:
        """The box (x0, y0, x1, y1) in pixels of the place where ``image`` shows the category, or None."""
        grid = SquareGrid(image.height, image.width, SIDE // 32, PADDING)
        values = class_maps()(prepare(image.rgb, grid, SIDE)[None])
        seen = on_image(at_cells(values, grid.cells, SIDE)[0, self._number].clone(), grid)
        if seen.max() < SEEN:
            return None
        regions, labels = cv2.connectedComponents((seen >= PLACE * seen.max()).astype(np.uint8))
        weight = np.bincount(labels.ravel(), seen.ravel(), regions)
        weight[0] = 0  # the pixels outside of all regions
        x0, y0, columns, rows = cv2.boundingRect((labels == weight.argmax()).astype(np.uint8))
        return x0, y0, x0 + columns, y0 + rows

    def rest(self) -> None:
        """Gives memory back that a search needs; the next one takes twice as long."""
        if class_maps.cache_info().currsize and isinstance(run := class_maps(), OpenVINONetwork):
            run.rest()


def finder_at_hand(category: str) -> ImageNetFinder | None:
    """The :class:`ImageNetFinder` of a category that ImageNet names, where its weights are installed."""
    if category not in CLASSES:
        return None
    try:
        return ImageNetFinder(category)
    except MissingDependencyError:
        return None
