"""Maps on feature cells as pictures, and parts of pictures: what mask sources have in common."""

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.image_grid import SquareGrid


def on_image(values: torch.Tensor, grid: SquareGrid) -> np.ndarray:
    """``values`` (cells, cells) on a :class:`SquareGrid` at every pixel of its image, bilinear: (h, w) float32 array."""
    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    position = grid.pixel_to_cell(torch.stack([columns, rows], dim=-1).float()).numpy()
    return cv2.remap(values.float().numpy(), position[..., 0], position[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def inside_box(shape: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """(h, w) bool array: pixels inside ``box`` (x1, y1, x2, y2)."""
    left, top, right, bottom = box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
