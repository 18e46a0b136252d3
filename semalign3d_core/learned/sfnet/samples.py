"""Training pairs from single pictures: two affine views in other colours, and masks of what both show.

Source: SFNet (CVPR 2019), section 3.3 and its code. Affine maps are sampling matrices (2, 3) in coordinates from -1 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import affine_grid, grid_sample

SPREAD = 0.15  # standard deviation of the six entries of an affine map
CELL = 16  # pixels
ON_OBJECT = 0.1  # share of a cell's mask from which the cell is the object's


@dataclass(frozen=True)
class Jitter:
    """Ranges of the change of colours, as factors 1 - x to 1 + x; the hue turns by up to x of a full circle."""

    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1


def resized(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture (3, h, w) float32 in [0, 1] and mask (1, h, w) float32 of ``size`` (height, width), resized by PIL, as published.

    image: (H, W, 3) uint8;  mask: (H, W) uint8, 255 on the object
    """
    picture, outline = (np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.BILINEAR)) for a in (image, mask))
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255, torch.from_numpy(outline.copy())[None].float() / 255


def in_other_colours(picture: torch.Tensor, jitter: Jitter, generator: np.random.Generator) -> torch.Tensor:
    """``picture`` (3, h, w) in [0, 1] with brightness, contrast, saturation and hue changed, in random order.

    generator: :class:`numpy.random.Generator`
    """
    pixels = picture.permute(1, 2, 0).numpy().astype(np.float32)
    for name in generator.permutation(list(_CHANGES)):
        reach = getattr(jitter, name)
        pixels = np.clip(_CHANGES[name](pixels, np.float32(generator.uniform(-reach, reach))), 0, 1)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _turned_hue(pixels: np.ndarray, turn: float) -> np.ndarray:
    hsv = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


# name -> function(pixels (h, w, 3), change) of a change of colours, none at 0
_CHANGES = {
    "brightness": lambda pixels, change: pixels * (1 + change),
    "contrast": lambda pixels, change: pixels * (1 + change) - change * _grey(pixels).mean(),
    "saturation": lambda pixels, change: pixels * (1 + change) - change * _grey(pixels)[..., None],
    "hue": _turned_hue,
}


def affine_map(noise: Any) -> torch.Tensor:
    """Affine map (2, 3) float64 of six standard normal numbers: the identity plus 0.15 times them."""
    return torch.eye(2, 3, dtype=torch.float64) + SPREAD * torch.as_tensor(noise, dtype=torch.float64).reshape(2, 3)


def inverse(transform: torch.Tensor) -> torch.Tensor:
    """The inverse of an affine map (2, 3)."""
    return torch.linalg.inv(torch.cat([transform, transform.new_tensor([[0, 0, 1]])]))[:2]


def warp(image: torch.Tensor, transform: torch.Tensor, align_corners: bool = True) -> torch.Tensor:
    """``image`` (C, h, w) sampled through an affine map, bilinear, zero beyond the border."""
    grid = affine_grid(transform.float()[None], [1, *image.shape], align_corners=align_corners)
    return grid_sample(image[None], grid, align_corners=align_corners)[0]


def training_pair(
    copies: Sequence[torch.Tensor], mask: torch.Tensor, noises: Any, align_corners: bool = True
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(images, masks) of a pair: two (3, h, w), and two (1, h / 16, w / 16) of zeros and ones, source first.

    copies: two pictures (3, h, w) in [0, 1] of one scene, in other colours;  mask: (1, h, w) in [0, 1];  noises: two times six standard
    normal numbers. Masks are warped to the other image and back, so that only what both show remains.
    """
    first, second = (affine_map(noise) for noise in noises)
    images = [warp(copy, transform, align_corners) for copy, transform in zip(copies, (first, second), strict=True)]

    def through(values: torch.Tensor, *transforms: torch.Tensor) -> torch.Tensor:
        for transform in transforms:
            values = warp(values, transform, align_corners)
        return values

    target = through(mask, first, inverse(first), second)
    source = through(target, inverse(second), first)
    return images, [to_cells(seen) for seen in (source, target)]


def to_cells(mask: torch.Tensor) -> torch.Tensor:
    """Mask (1, h, w) in [0, 1] to (1, h / 16, w / 16) of zeros and ones: cut to 8 bits, resized by PIL, more than 0.1."""
    small = (mask[0] * 255).byte().numpy()
    height, width = (length // CELL for length in small.shape)
    cells = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))
    return (torch.from_numpy(cells.copy())[None].float() / 255 > ON_OBJECT).float()
