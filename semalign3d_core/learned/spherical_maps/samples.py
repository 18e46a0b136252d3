"""Training samples of SphericalMaps."""

import torch


def mask_to_cells(masks, cells):
    """Masks (B, h, w) at the upper left pixel of each of ``cells`` (rows, columns): (B, rows, columns), as published."""
    return torch.nn.functional.interpolate(masks[:, None].float(), size=cells, mode="nearest")[:, 0]
