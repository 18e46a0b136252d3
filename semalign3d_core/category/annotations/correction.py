"""Moving annotated keypoints into the object's mask, so that their depth is the object's."""

import cv2
import numpy as np
import torch
from torch import Tensor

EROSIONS = 2
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)  # a pixel and its four neighbours


def erode(mask: Tensor) -> Tensor:
    """Erodes a mask (h, w) bool twice with a 2 x 2 element whose anchor is its lower right pixel.

    Each iteration removes one pixel at the top and left side of a region only (as published); image borders do not erode.
    """
    for _ in range(EROSIONS):
        above = torch.cat([mask[:1], mask[:-1]])
        mask = mask & above
        mask = mask & torch.cat([mask[:, :1], mask[:, :-1]], dim=1)
    return mask


def nearest_mask_pixels(mask: Tensor, pixels: Tensor) -> Tensor:
    """The pixel of ``mask`` (h, w) nearest to each of ``pixels`` (P, 2); ties go to the first in row-major order.

    Pixels inside stay. Returns (P, 2) of the type of ``pixels``. The mask must not be empty.
    """
    # The nearest pixel lies on the outline: from a pixel inside, a step toward the place outside comes nearer.
    rows, columns = np.nonzero(mask.numpy() & (cv2.erode(mask.numpy().astype(np.uint8), CROSS, borderValue=0) == 0))
    outline = torch.from_numpy(np.stack([columns, rows], axis=1)).double()
    distance = torch.cdist(pixels.double(), outline, compute_mode="donot_use_mm_for_euclid_dist")
    # argmin does not promise the first of several minima, so ties are decided by the index itself.
    first = torch.where(distance == distance.amin(1, keepdim=True), torch.arange(len(outline)), len(outline)).amin(1)
    own = (pixels.double() - 0.5).ceil().long()  # the pixel that holds the place; on an edge, the first in row-major order
    column, row = (own[:, k].clamp(0, mask.shape[1 - k] - 1) for k in (0, 1))
    inside = mask[row, column] & (torch.stack([column, row], 1) == own).all(1)
    return torch.where(inside[:, None], own, outline[first]).to(pixels.dtype)


def correct_keypoints(mask: Tensor, pixels: Tensor) -> Tensor:
    """Moves ``pixels`` (P, 2) to the nearest pixel of the eroded mask; a mask too thin to survive is used as it is."""
    eroded = erode(mask)
    return nearest_mask_pixels(eroded if eroded.any() else mask, pixels)


def outline_distance(mask: Tensor) -> Tensor:
    """(h, w) float32 distance in pixels from the pixels of a mask to its outline, 0 outside; the image's border is no outline."""
    distance = cv2.distanceTransform(mask.numpy().astype(np.uint8), cv2.DIST_L2, 5)
    return torch.from_numpy(distance).sub(0.5).clamp(min=0)


def steps_inside(mask: Tensor) -> Tensor:
    """(h, w) float32: after how many erosions by 3 x 3 pixels a pixel of a mask (h, w) is gone, 0 outside; borders do not erode."""
    return torch.from_numpy(cv2.distanceTransform(mask.numpy().astype(np.uint8), cv2.DIST_C, 3))


def depth_pixels(mask: Tensor, pixels: Tensor, margin: int) -> Tensor:
    """Where to read the depth of keypoints (P, 2): ``margin`` pixels inside the mask if that is near, else less deep.

    Depth maps are blurred across outlines, and many keypoints lie on them; but the depth of a keypoint on a thin part must not be read
    on the part behind. The mask is eroded on all sides. ``margin`` 0 is the published correction.
    """
    if margin == 0:
        return correct_keypoints(mask, pixels)
    result, steps = nearest_mask_pixels(mask, pixels), steps_inside(mask)
    for depth in range(1, margin + 1):
        inner = steps > depth
        if not inner.any():
            break
        deeper = nearest_mask_pixels(inner, pixels)
        near = (deeper - pixels).norm(dim=-1) <= 1.5 * depth + 1.5
        result = torch.where(near[:, None], deeper, result)
    return result
