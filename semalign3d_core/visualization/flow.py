"""Pictures of a dense match: where the pixels of one image are in the other."""

import cv2
import numpy as np
import torch
from torch.nn.functional import grid_sample

from semalign3d_core.metrics.mask_transfer import warp_mask

MASK_COLOUR = (25, 176, 91)


def warped_picture(picture: np.ndarray, grid: torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8: ``picture`` (h, w, 3) uint8 sampled at ``grid`` (H, W, 2) of x and y from -1 to 1, black beyond it."""
    values = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()[None]
    return grid_sample(values, grid[None].float().cpu(), align_corners=True)[0].permute(1, 2, 0).round().byte().numpy()


def flow_colours(grid: torch.Tensor, longest: float = 0.8) -> np.ndarray:
    """The colours (H, W, 3) uint8 of a sampling grid (H, W, 2).

    The hue is the direction from each pixel's own place to its match, the more saturated the longer; ``longest`` (of 2, the whole image)
    is full colour.
    """
    rows, columns = grid.shape[:2]
    own = np.stack(np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)), axis=-1)
    flow = grid.float().cpu().numpy() - own
    angle, length = np.arctan2(flow[..., 1], flow[..., 0]), np.hypot(flow[..., 0], flow[..., 1])
    hsv = np.stack([np.degrees(angle) % 360, np.clip(length / longest, 0, 1), np.ones_like(length)], axis=-1).astype(np.float32)
    return (255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def draw_dense_match(source: np.ndarray, target: np.ndarray, grid: torch.Tensor, mask: np.ndarray | None = None) -> np.ndarray:
    """One row of pictures of the target's size.

    The target, the source warped onto it, the flow, and with a ``mask`` (h, w) of the source the target with that mask carried over.

    source, target: (h, w, 3) uint8 pictures;  grid: (H, W, 2), where the target's pixels are in the source
    """
    pictures = [target, warped_picture(source, grid), flow_colours(grid)]
    if mask is not None:
        inside = warp_mask(mask, grid.cpu()).numpy()[..., None] > 0.5
        tinted = 0.5 * target + 0.5 * np.array(MASK_COLOUR)
        pictures.append(np.where(inside, tinted, target).astype(np.uint8))
    gap = np.full((target.shape[0], 6, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(row[:-1], axis=1)
