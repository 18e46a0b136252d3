"""Moving annotated keypoints into the object's mask, so that their depth is the object's."""

import cv2
import numpy as np
import torch

EROSIONS = 2


def erode(mask, iterations=EROSIONS):
    """Erodes (h, w) bool with a 2 x 2 element whose anchor is its lower right pixel.

    Each iteration removes one pixel at the top and left side of a region only (as published); image borders do not erode.
    """
    for _ in range(iterations):
        above = torch.cat([mask[:1], mask[:-1]])
        mask = mask & above
        mask = mask & torch.cat([mask[:, :1], mask[:, :-1]], dim=1)
    return mask


def nearest_mask_pixels(mask, pixels):
    """The pixel of ``mask`` (h, w) nearest to each of ``pixels`` (P, 2); ties go to the first in row-major order.

    Pixels inside stay. Returns (P, 2) of the type of ``pixels``. The mask must not be empty.
    """
    rows, columns = np.nonzero(mask.numpy())
    inside = torch.from_numpy(np.stack([columns, rows], axis=1)).double()
    distance = torch.cdist(pixels.double(), inside, compute_mode="donot_use_mm_for_euclid_dist")
    # argmin does not promise the first of several minima, so ties are decided by the index itself.
    first = torch.where(distance == distance.amin(1, keepdim=True), torch.arange(len(inside)), len(inside)).amin(1)
    return inside[first].to(pixels.dtype)


def correct_keypoints(mask, pixels):
    """Moves ``pixels`` (P, 2) to the nearest pixel of the eroded mask; a mask too thin to survive is used as it is."""
    eroded = erode(mask)
    return nearest_mask_pixels(eroded if eroded.any() else mask, pixels)


def outline_distance(mask):
    """(h, w) float32 distance in pixels from the pixels of a mask to its outline, 0 outside; the picture's border is no outline."""
    distance = cv2.distanceTransform(mask.numpy().astype(np.uint8), cv2.DIST_L2, 5)
    return torch.from_numpy(distance).sub(0.5).clamp(min=0)


def depth_pixels(mask, pixels, margin):
    """Where to read the depth of keypoints (P, 2): ``margin`` pixels inside the mask if that is near, else less deep.

    Depth maps are blurred across outlines, and many keypoints lie on them; but a keypoint on a thin part must not be read
    on the part behind. The mask is eroded on all sides. ``margin`` 0 is the published correction.
    """
    if margin == 0:
        return correct_keypoints(mask, pixels)
    result = nearest_mask_pixels(mask, pixels)
    for depth in range(1, margin + 1):
        outside = (~mask).float()[None, None]
        inner = torch.nn.functional.max_pool2d(outside, 2 * depth + 1, 1, depth)[0, 0] == 0
        if not inner.any():
            break
        deeper = nearest_mask_pixels(inner, pixels)
        near = (deeper - pixels).norm(dim=-1) <= 1.5 * depth + 1.5
        result = torch.where(near[:, None], deeper, result)
    return result
