"""The mask as a distance field, the boxes an object may fill, and parts of images. Host work on arrays, once per image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.image_grid import SquareGrid

BORDER_PIXELS = 2  # mask pixels on a side of the picture that make the object a truncated one
FRAME, FILLED = 0.02, 0.6  # of a square's side: free on each side of a mask, and filled by its longer side
EXTENSION = 0.45  # of a box on one side, as a share of its size
INSIDE = 26  # of 255: a node whose area the mask covers by a tenth is inside, so that thin parts are charged nothing


@dataclass(frozen=True)
class MaskShape:
    """What a mask (h, w) says. Lengths in units of the longer side L.

    distance: (H, H) float32 from every node to the mask, exactly 0 inside it; offset: (H, H, 2) to the nearest mask node;
    nodes cover a square of 2 L, half a picture beyond each side; field_origin: (2,) position of node (0, 0);
    boxes: (Nb, 4) the mask's own and larger ones the object may fill
    """

    distance: np.ndarray
    offset: np.ndarray
    field_origin: np.ndarray
    boxes: np.ndarray


def mask_shape(mask: np.ndarray, nodes: int, extended: bool) -> MaskShape:
    """:class:`MaskShape` of a mask (h, w) bool array with something in it; nodes: per longer side; extended: with larger boxes."""
    box, touched = mask_box(mask), touched_sides(mask)
    boxes = extended_boxes(box, touched) if extended else box[None]
    distance, offset, origin = distance_field(mask, nodes)
    return MaskShape(distance, offset, origin, (boxes / max(mask.shape)).astype(np.float32))


def touched_sides(mask: np.ndarray) -> tuple[bool, ...]:
    """Which sides of the picture the mask (h, w) bool touches: left, top, right, bottom."""
    edges = (mask[:, 0], mask[0], mask[:, -1], mask[-1])
    return tuple(int(np.count_nonzero(edge)) >= BORDER_PIXELS for edge in edges)


def distance_field(mask: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """distance, offset and field_origin of :class:`MaskShape`.

    Beyond a side that the mask touches nothing is charged: the object goes on there.
    """
    longer, pad = max(mask.shape), nodes // 2
    rows, columns = (max(round(length * nodes / longer), 1) for length in mask.shape)
    small = cv2.resize(mask.view(np.uint8) * 255, (columns, rows), interpolation=cv2.INTER_AREA) >= INSIDE
    inside = np.zeros((2 * nodes, 2 * nodes), dtype=bool)
    inside[pad : pad + rows, pad : pad + columns] = small
    left, top, right, bottom = touched_sides(mask)
    inside[:, :pad] |= left
    inside[:pad] |= top
    inside[:, pad + columns :] |= right
    inside[pad + rows :] |= bottom
    if not inside.any():  # smaller than a node
        centre = np.argwhere(mask).mean(0) * nodes / longer
        inside[pad + min(int(centre[0]), rows - 1), pad + min(int(centre[1]), columns - 1)] = True
    offset = _offsets_to(inside, 1 / nodes)
    origin = np.full(2, (0.5 - pad) / nodes - 0.5 / longer, dtype=np.float32)
    x, y = offset[..., 0], offset[..., 1]  # a sum over the last axis takes ten times as long
    return np.sqrt(x * x + y * y), offset, origin


def _offsets_to(inside: np.ndarray, spacing: float) -> np.ndarray:
    """(H, H, 2) vector (x, y) from every node to the nearest node inside."""
    _, labels = cv2.distanceTransformWithLabels((~inside).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    index: np.ndarray = labels - 1  # labels number the inside in order
    along = np.arange(len(inside), dtype=np.float32) * np.float32(spacing)
    rows, columns = inside.nonzero()
    offset = np.empty((*inside.shape, 2), dtype=np.float32)
    np.subtract(along[columns].take(index), along, out=offset[..., 0])
    np.subtract(along[rows].take(index), along[:, None], out=offset[..., 1])
    return offset


def mask_box(mask: np.ndarray) -> np.ndarray:
    """(4,) x0, y0, x1, y1 in pixels of a mask (h, w) bool array, outer edges of its pixels."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return np.array([left - 0.5, top - 0.5, left + width - 0.5, top + height - 0.5])


def square_around(box: Sequence[float] | np.ndarray, margin: float) -> tuple[int, int, int]:
    """The smallest square (left, top, side) of whole pixels around a box (see :func:`mask_box`) and a margin.

    margin: by which it is larger on each side, as a share of the longer side of the box
    """
    x0, y0, x1, y1 = box
    side = math.ceil(max(x1 - x0, y1 - y0) * (1 + 2 * margin))
    return math.floor((x0 + x1 + 1 - side) / 2), math.floor((y0 + y1 + 1 - side) / 2), side


def cut_off(box: np.ndarray, square: tuple[int, int, int], height: int, width: int) -> bool:
    """Whether a mask's box (see :func:`mask_box`) that was found in a square of the picture ends at the square's edge inside the picture.

    The object may go on beyond it then.
    """
    left, top, side = square
    x0, y0, x1, y1 = (edge + 0.5 for edge in box)  # counted from the first pixel's outer edge
    free = (x0 - left, y0 - top, left + side - x1, top + side - y1)
    outside = (left <= 0, top <= 0, left + side >= width, top + side >= height)
    return any(gap < FRAME * side and not ends for gap, ends in zip(free, outside, strict=True))


def well_framed(box: np.ndarray, square: tuple[int, int, int], height: int, width: int) -> bool:
    """Whether a mask's box that was found in a square of the picture may be all of it (see :func:`cut_off`), and fills the square."""
    x0, y0, x1, y1 = box
    return not cut_off(box, square, height, width) and max(x1 - x0, y1 - y0) >= FILLED * square[2]


def extended_boxes(box: np.ndarray, touched: Sequence[bool]) -> np.ndarray:
    """The box (4,), then the box extended by the share ``EXTENSION`` on each side in turn; nearly twice that where the image cuts it."""
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2) * [-1, -1, 1, 1]
    boxes = [box]
    for side in range(4):
        for share in (EXTENSION, 1.8 * EXTENSION)[: 2 if touched[side] else 1]:
            larger = box.copy()
            larger[side] += share * size[side]
            boxes.append(larger)
    return np.stack(boxes)


def on_image(values: torch.Tensor, grid: SquareGrid) -> np.ndarray:
    """``values`` (cells, cells) on a :class:`SquareGrid` at every pixel of its image, bilinear: (h, w) float32 array."""
    (left, top), (right, bottom) = grid.pixel_to_cell(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).tolist()
    cell_of_pixel = np.array([[right - left, 0.0, left], [0.0, bottom - top, top]])  # an axis has its own factor and offset
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values.float().numpy(), cell_of_pixel, (grid.width, grid.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def inside_box(shape: tuple[int, ...], box: Sequence[float]) -> np.ndarray:
    """(h, w) bool array: pixels inside ``box`` (x1, y1, x2, y2)."""
    left, top, right, bottom = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
