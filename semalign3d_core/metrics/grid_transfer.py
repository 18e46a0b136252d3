"""Keypoint transfer through a dense sampling grid, as SFNet evaluates it (Lee et al., CVPR 2019): target points to the source.

Its protocol differs from the others: the border of the grid is dropped, target points are rounded to pixels, PCK is inclusive,
and a pair's points are compared in the source image.
"""

import numpy as np
import torch

from semalign3d_core.metrics.pck import pck_correct_inclusive


def inner_grid(grid: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Sampling grid (height, width, 2) of a target image, x and y in [-1, 1] of the source, from a padded ``grid`` (h, w, 2).

    The outer ring belongs to the padding and is dropped; coordinates are stretched by (n/2) / (n/2 - 1) (10/9 for 20 cells).
    """
    rows, columns = grid.shape[:2]
    stretch = torch.tensor([(columns // 2) / (columns // 2 - 1), (rows // 2) / (rows // 2 - 1)], dtype=grid.dtype, device=grid.device)
    inner = (grid[1:-1, 1:-1] * stretch).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(inner, size=(height, width), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)


def transfer_points(grid: torch.Tensor, points: np.ndarray | torch.Tensor, source_size: tuple[int, int]) -> torch.Tensor:
    """Carries target ``points`` (n, 2) through ``grid`` (H, W, 2) to pixels (n, 2) of a source image of ``source_size`` (h, w).

    Points are rounded half to even; one on the far border belongs to the last pixel. Absent points (-1, -1) become (0, 0).
    """
    height, width = grid.shape[:2]
    points = torch.as_tensor(points, dtype=torch.float32)
    pixel = points.round().long()
    last = torch.tensor([width - 1, height - 1])
    column, row = torch.minimum(pixel, last).clamp(min=0).unbind(-1)
    size = torch.tensor([source_size[1] - 1, source_size[0] - 1], dtype=torch.float32)
    carried = (grid[row, column].float().cpu() + 1) * size / 2
    return torch.where((points == -1).all(dim=-1, keepdim=True), 0.0, carried)


def pair_pck(estimated: np.ndarray | torch.Tensor, truth: np.ndarray, reference: float, alpha: float) -> float:
    """Share of right points of one pair: |estimated - truth| <= alpha * ``reference``; NaN without points.

    estimated, truth: (n, 2); rows of ``truth`` behind the first one that is (-1, ...) or (..., -1) are padding.
    """
    truth = np.asarray(truth)
    count = int((truth != -1).all(axis=-1).sum())
    correct = pck_correct_inclusive(np.asarray(estimated)[:count], truth[:count], reference, [alpha])
    return float(correct.mean()) if count else float("nan")
