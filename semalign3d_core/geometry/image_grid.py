"""Image geometry: square padding, resizing, pixel <-> feature cell, flips and bilinear sampling.

This module is the only owner of these facts. Pixels have their centres at integers. An image is padded to a
square of side ``L = max(h, w)``; cell ``c`` of ``W`` has its centre at pixel ``(c + 0.5) L / W - 0.5`` of that square.
The published protocol (GeoAware-SC: Telling Left from Right, CVPR 2024) resizes first and pads then: the image stands in
the middle of a square canvas, 840 pixels for the vision transformer and the annotations, 960 for Stable Diffusion, seen as 60 x 60 cells.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

from semalign3d_core.runtime.errors import InputError

Pixels = TypeVar("Pixels", np.ndarray, torch.Tensor)
PADDINGS = ("bottom_right", "centre", "canvas")
CANVAS_SIDE = 840  # annotations and vision transformer; 14 pixels per cell
DIFFUSION_CANVAS_SIDE = 960  # Stable Diffusion; 16 pixels per cell
CANVAS_CELLS = 60
LARGEST = 4096  # pixels of a side, beyond which a picture is made smaller before it is padded


@dataclass(frozen=True)
class SquareGrid:
    """How a square feature grid sits on an image.

    height, width: image size in pixels;  cells: cells per side;
    padding: ``bottom_right`` (image in the upper left corner of the square),
    ``centre`` (floor of half the difference before, the rest behind) or
    ``canvas`` (as :func:`resize_pad` places it; the offset need not be a whole number of image pixels).
    window: (left, top, side) in whole pixels, a square of the image (which may reach beyond it) that the cells cover instead of the
    padded image; ``padding`` has no meaning then.
    """

    height: int
    width: int
    cells: int
    padding: str = "bottom_right"
    window: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise InputError(f"unknown padding {self.padding!r}: choose one of {', '.join(PADDINGS)}")
        if min(self.height, self.width, self.cells) < 1:
            raise InputError(f"image of {self.width} x {self.height} pixels on {self.cells} cells: all must be at least 1")
        if self.window is not None and self.window[2] < 1:
            raise InputError(f"a window of {self.window[2]} pixels: its side must be at least 1")

    @property
    def side(self) -> int:
        """Side of the square that the cells cover, in pixels: ``L`` without a window."""
        return max(self.height, self.width) if self.window is None else self.window[2]

    @property
    def offset(self) -> tuple[float, float]:
        """(x, y) of the image's upper left pixel in the square that the cells cover."""
        if self.window is not None:
            return -self.window[0], -self.window[1]
        if self.padding == "bottom_right":
            return 0, 0
        if self.padding == "canvas":
            scale, (left, top) = canvas_placement(self.width, self.height)
            return left / scale, top / scale
        return (self.side - self.width) // 2, (self.side - self.height) // 2

    @property
    def cell_size(self) -> float:
        """Side of one cell in pixels (float)."""
        return self.side / self.cells

    def pixel_to_cell(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (..., 2) to continuous cell coordinates (column, row); cell centres are integers."""
        x, y = self.offset
        return _moved(pixels, x + 0.5, y + 0.5) / self.cell_size - 0.5

    def cell_to_pixel(self, cells: torch.Tensor) -> torch.Tensor:
        """Continuous cell coordinates (..., 2) to pixels of the (unpadded) image."""
        x, y = self.offset
        return _moved((cells + 0.5) * self.cell_size, -0.5 - x, -0.5 - y)

    def cell_centres(self, device: torch.device | str | None = None) -> torch.Tensor:
        """Pixels (cells * cells, 2) of all cell centres, row-major."""
        index = torch.arange(self.cells, dtype=torch.float32, device=device)
        rows, columns = torch.meshgrid(index, index, indexing="ij")
        return self.cell_to_pixel(torch.stack([columns, rows], dim=-1).reshape(-1, 2))

    def mirrored(self) -> "SquareGrid":
        """The grid of the mirror image.

        With centred padding and an odd difference the image moves by one pixel inside the square; that is how
        the mirror image itself would be padded, so the same object describes it.
        """
        return self if self.window is None else replace(self, window=mirror_square(self.window, self.width))

    def square(self, image: torch.Tensor) -> torch.Tensor:
        """The square that the cells cover of ``image`` (C, h, w), at the image's own resolution, padded with 0."""
        return pad_square(image, self.padding) if self.window is None else cut_square(image, self.window)

    def sample(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Bilinear sample of ``features`` (C, cells, cells) at ``pixels`` (..., 2): returns (..., C); edges are clamped."""
        return bilinear(features, self.pixel_to_cell(pixels))

    def covered(self, device: torch.device | str | None = None) -> torch.Tensor:
        """(h, w) bool: the pixels of the image that lie in the square."""
        seen = torch.zeros(self.height, self.width, dtype=torch.bool, device=device)
        seen[self.covered_part] = True
        return seen

    @property
    def covered_part(self) -> tuple[slice, slice]:
        """Rows and columns of the image that lie in the square."""
        x, y = (round(value) for value in self.offset)
        return slice(max(-y, 0), max(self.side - y, 0)), slice(max(-x, 0), max(self.side - x, 0))

    def square_picture(self, rgb: np.ndarray, value: int = 0) -> np.ndarray:
        """As :meth:`square`, of a picture (h, w, 3) uint8: (side, side, 3)."""
        part, (x, y) = rgb[self.covered_part], (max(round(value), 0) for value in self.offset)
        if not part.size:
            return np.full((self.side, self.side, 3), value, dtype=np.uint8)
        after = self.side - y - part.shape[0], self.side - x - part.shape[1]
        return cv2.copyMakeBorder(part, y, after[0], x, after[1], cv2.BORDER_CONSTANT, value=(value,) * 3)

    def manageable(self, picture: np.ndarray) -> tuple[np.ndarray, "SquareGrid"]:
        """``picture`` (h, w) or (h, w, 3) uint8 and this grid; where its square is larger than ``LARGEST``, both reduced to that.

        Padded at its own resolution, a picture of 1 x 20000 pixels takes more than a gigabyte.
        """
        factor = self.side / LARGEST
        if factor <= 1:
            return picture, self
        left, top, side = self.window or (0, 0, self.side)
        x, y = max(left, 0), max(top, 0)
        part = picture if self.window is None else picture[y : max(top + side, 0), x : max(left + side, 0)]
        if not part.size:
            return picture, self
        height, width = (max(round(length / factor), 1) for length in part.shape[:2])
        window = None if self.window is None else (round((left - x) / factor), round((top - y) / factor), LARGEST)
        small = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_AREA)
        return small, replace(self, height=height, width=width, window=window)

    def scaled(self, factor: float) -> "SquareGrid":
        """The grid of the image made smaller by ``factor``, to whole pixels."""
        height, width = (max(round(length / factor), 1) for length in (self.height, self.width))
        if self.window is None:
            return replace(self, height=height, width=width)
        left, top, side = (round(value / factor) for value in self.window)
        return replace(self, height=height, width=width, window=(left, top, side))

    def cells_inside(self, mask: torch.Tensor) -> torch.Tensor:
        """(cells, cells) float: share of each cell's area, in whole pixels, that lies inside ``mask`` (h, w), where it is not 0."""
        inside = (mask if mask.dtype == torch.bool else mask != 0).cpu()
        pixels, grid = self.manageable(inside.numpy().view(np.uint8))  # most of a pixel's area decides
        if grid is not self:
            return grid.cells_inside(torch.from_numpy(pixels))
        first = np.arange(self.cells) * self.side // self.cells
        last = -(-np.arange(1, self.cells + 1) * self.side // self.cells)  # cells share the pixels that they cut
        x, y = (round(value) for value in self.offset)
        left, right = ((edges - x).clip(0, self.width) for edges in (first, last))  # nothing is inside beyond the image
        top, bottom = ((edges - y).clip(0, self.height) for edges in (first, last))
        sums = cv2.integral(pixels)
        rows = sums[bottom] - sums[top]
        return torch.from_numpy((rows[:, right] - rows[:, left]) / ((last - first)[:, None] * (last - first))).float()


def _moved(points: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Points (..., 2) moved by numbers. No tensor is made of these: a GPU would have to wait for it."""
    return points + x if x == y else torch.stack([points[..., 0] + x, points[..., 1] + y], -1)


def bilinear(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Bilinear sample of ``values`` (C, H, W) at continuous (column, row) ``positions`` (..., 2), clamped at the edges.

    Returns (..., C). Differentiable in values and, between cell centres, in positions.
    """
    channels, _, columns = values.shape
    flat = values.reshape(channels, -1)

    def at(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:  # several times faster than an index of several dimensions
        return flat.index_select(1, (row * columns + column).flatten()).view(channels, *row.shape)

    return interpolated(at, values.shape[1:], positions)


def interpolated(at: Callable, size: torch.Size, positions: torch.Tensor) -> torch.Tensor:
    """As :func:`bilinear`, of a grid of ``size`` (rows, columns) known by ``at(rows, columns) -> (C, ...)`` at whole cells."""
    rows, columns = size
    x = positions[..., 0].clamp(0, columns - 1)
    y = positions[..., 1].clamp(0, rows - 1)
    x0 = x.detach().floor().clamp(max=max(columns - 2, 0)).long()
    y0 = y.detach().floor().clamp(max=max(rows - 2, 0)).long()
    x1, y1 = (x0 + 1).clamp(max=columns - 1), (y0 + 1).clamp(max=rows - 1)
    wx, wy = x - x0, y - y0
    mixed = (at(y0, x0) * (1 - wx) + at(y0, x1) * wx) * (1 - wy) + (at(y1, x0) * (1 - wx) + at(y1, x1) * wx) * wy
    return mixed.movedim(0, -1)


def canvas_placement(width: int, height: int, side: int = CANVAS_SIDE) -> tuple[float, tuple[int, int]]:
    """(scale, (x, y)): canvas position = image position * scale + whole-pixel offset of the published canvas."""
    scale = side / max(width, height)
    # numpy rounds half to even, as the published protocol does
    x, y = (int((side - np.around(side * length / max(width, height))) / 2) for length in (width, height))
    return scale, (x, y)


def resize_pad(rgb: np.ndarray, side: int, fill: str = "zero") -> np.ndarray:
    """The published square canvas (side, side, 3) uint8 of ``rgb`` (h, w, 3): LANCZOS resize, then centred padding.

    fill: ``zero`` (black) or ``edge`` (border pixels repeated).
    """
    from PIL import Image

    height, width = rgb.shape[:2]
    _, (left, top) = canvas_placement(width, height, side)
    columns, rows = (max(1, int(np.around(side * length / max(width, height)))) for length in (width, height))
    small = np.asarray(Image.fromarray(rgb).resize((columns, rows), Image.Resampling.LANCZOS))
    sides = ((top, side - rows - top), (left, side - columns - left), (0, 0))
    return np.pad(small, sides, mode="constant" if fill == "zero" else "edge")


def keypoints_to_canvas(keypoints: ArrayLike | torch.Tensor, width: int, height: int, side: int = CANVAS_SIDE) -> torch.Tensor:
    """Keypoints (..., K, 3) of x, y, visibility in image pixels to the published canvas, float32.

    The published loaders multiply the whole row by the visibility, so that unseen keypoints become zeros; to leave half
    visible ones (0.5, in AP-10K) where they are, pass them with visibility 1.
    """
    scale, offset = canvas_placement(width, height, side)
    rows = torch.as_tensor(keypoints, dtype=torch.float32)
    moved = torch.cat([rows[..., :2] * scale + torch.tensor(offset, dtype=torch.float32), rows[..., 2:]], dim=-1)
    return moved * rows[..., 2:]


def patch_index(points: ArrayLike | torch.Tensor, side: float = CANVAS_SIDE, cells: int = CANVAS_CELLS) -> torch.Tensor:
    """Row-major cell index (...,) int64 of canvas positions ``points`` (..., 2 or more), truncated as published.

    Positions on the far border belong to the last cell (the published code lets them wrap into the next row).
    """
    # float32 times float32, then truncation: a position on a cell border must fall to the same side as published
    position = (torch.as_tensor(points, dtype=torch.float32)[..., :2] * float(np.float32(cells / side))).long().clamp(0, cells - 1)
    return position[..., 1] * cells + position[..., 0]


def pad_square(image: torch.Tensor, padding: str = "bottom_right", value: int = 0) -> torch.Tensor:
    """Pads ``image`` (C, h, w) to a square of side ``max(h, w)``; see :class:`SquareGrid` for ``padding``."""
    height, width = image.shape[-2:]
    grid = SquareGrid(height, width, 1, padding)
    left, top = (round(value) for value in grid.offset)
    sides = (left, grid.side - width - left, top, grid.side - height - top)
    return torch.nn.functional.pad(image, sides, value=value)


def cut_square(image: torch.Tensor, square: tuple[int, int, int], value: int = 0) -> torch.Tensor:
    """The square (left, top, side) of ``image`` (C, h, w), filled up with ``value`` beyond it: (C, side, side)."""
    left, top, side = square
    height, width = image.shape[-2:]
    (x0, x1), (y0, y1) = ((min(max(low, 0), end), max(min(low + side, end), 0)) for low, end in ((left, width), (top, height)))
    part = image[..., y0:y1, x0:x1]
    before = [min(max(-low, 0), side) for low in (left, top)]
    after = [side - ahead - length for ahead, length in zip(before, (part.shape[-1], part.shape[-2]), strict=True)]
    return torch.nn.functional.pad(part, (before[0], after[0], before[1], after[1]), value=value)


def mirror_square(square: tuple[int, int, int], width: int) -> tuple[int, int, int]:
    """The square (left, top, side) of an image ``width`` pixels wide in the mirror image."""
    left, top, side = square
    return width - left - side, top, side


def mirror_image(image: Pixels) -> Pixels:
    """Mirrors an array or tensor (..., h, w) left-right; use ``image.transpose`` first for channel-last pictures."""
    return image.flip(-1) if isinstance(image, torch.Tensor) else image[..., ::-1].copy()


def mirror_points(points: Pixels, width: int) -> Pixels:
    """Mirrors pixels (..., 2) of an image ``width`` pixels wide: ``u -> w - 1 - u``."""
    mirrored = points.clone() if isinstance(points, torch.Tensor) else points.copy()
    mirrored[..., 0] = width - 1 - points[..., 0]  # type: ignore[assignment, operator]
    return mirrored


def rotate_points(points: torch.Tensor, height: int, width: int, quarters: int) -> torch.Tensor:
    """Pixels (..., 2) of an image in the image turned by so many quarters anticlockwise (``numpy.rot90``)."""
    for _ in range(quarters % 4):
        points = torch.stack([points[..., 1], width - 1 - points[..., 0]], -1)
        height, width = width, height
    return points


def rotate_square(square: tuple[int, int, int], height: int, width: int, quarters: int) -> tuple[int, int, int]:
    """The square (left, top, side) of an image in the image turned by so many quarters anticlockwise."""
    left, top, side = square
    for _ in range(quarters % 4):
        left, top = top, width - left - side
        height, width = width, height
    return left, top, side
