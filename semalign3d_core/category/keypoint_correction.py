"""Moving annotated keypoints into the object's mask, so that their depth is the object's."""

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
