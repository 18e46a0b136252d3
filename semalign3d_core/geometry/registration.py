"""Depth of one camera as another camera beside it would have measured it."""

import numpy as np
import torch

from semalign3d_core.geometry.camera import PinholeCamera

LARGEST_SPREAD = 4  # pixels along a side that one depth pixel may cover in the other image


def register_depth(depth: torch.Tensor, camera: PinholeCamera, target: PinholeCamera, transform: np.ndarray) -> torch.Tensor:
    """A depth image (h, w) of ``camera`` as one (H, W) of ``target``; NaN where nothing is known. The nearest surface wins.

    depth: z along the optical axis, in any unit of length;  transform: (4, 4) from the camera's to the target's optical frame, in it
    """
    rows, columns = torch.nonzero(torch.isfinite(depth) & (depth > 0), as_tuple=True)
    z = depth[rows, columns].double()
    pixels = torch.stack([columns, rows], -1).double()
    motion = torch.as_tensor(np.asarray(transform), dtype=torch.float64)
    points = camera.back_project(camera.to_normalised(pixels), z) @ motion[:3, :3].T + motion[:3, 3]
    points = points[points[:, 2] > 0]
    spread = _spread(camera, target)
    place = target.to_pixels(target.project(points)) - (spread - 1) / 2
    result = torch.full((target.height * target.width,), torch.inf, dtype=torch.float64)
    for down in range(spread):
        for right in range(spread):
            column, row = (place + torch.tensor([right, down])).round().long().unbind(-1)
            inside = (column >= 0) & (row >= 0) & (column < target.width) & (row < target.height)
            result.scatter_reduce_(0, (row * target.width + column)[inside], points[inside, 2], "amin")
    return torch.where(torch.isfinite(result), result, torch.nan).reshape(target.height, target.width).to(depth.dtype)


def _spread(camera: PinholeCamera, target: PinholeCamera) -> int:
    """Pixels along a side that one depth pixel covers, so that a coarse depth image leaves no gaps."""
    ratio = (target.focal * target.longer_side) / (camera.focal * camera.longer_side)
    return int(min(max(float(ratio.max().ceil()), 1), LARGEST_SPREAD))
