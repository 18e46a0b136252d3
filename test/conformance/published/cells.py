"""Which feature cells the published pipeline reads; the product samples between cell centres instead."""

import torch

from semalign3d_core.geometry.image_grid import CANVAS_CELLS, DIFFUSION_CANVAS_SIDE


def dense_cells(pixels, height, width, cells=60):
    """Cells (..., 2) that the published pipeline reads for pixels (..., 2) of dense points; integers, clamped to the grid.

    Kept for parity only: it pads in the middle and floors, where :class:`SquareGrid` samples between cell centres.
    """
    side, offset = _published_square(height, width)
    return ((pixels + offset).double() / side * cells).floor().long().clamp(0, cells - 1)


def keypoint_cells(pixels, height, width, cells=CANVAS_CELLS, resized=DIFFUSION_CANVAS_SIDE):
    """As :func:`dense_cells`, for keypoints: through the integer pixel of the image resized to ``resized``."""
    side, offset = _published_square(height, width)
    return ((pixels + offset).double() / side * resized).floor().long() * cells // resized


def cell_pixels(cell, height, width, cells=60):
    """Pixels (..., 2), truncated and perhaps outside the image, of the centres of integer cells; the published inverse."""
    side, offset = _published_square(height, width)
    return ((cell.double() + 0.5) / cells * side - offset).trunc().long()


def _published_square(height, width):
    side = max(height, width)
    return side, torch.tensor([(side - width) // 2, (side - height) // 2])
