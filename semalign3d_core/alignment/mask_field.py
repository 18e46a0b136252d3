"""The mask as a distance field, and the boxes an object may fill."""

import cv2
import numpy as np
import torch

from semalign3d_core.alignment.energy import DistanceField

BORDER_PIXELS = 2  # mask pixels on a side of the picture that make the object a truncated one


def touched_sides(mask):
    """Which sides of the picture the mask (h, w) bool touches: left, top, right, bottom."""
    edges = (mask[:, 0], mask[0], mask[:, -1], mask[-1])
    return tuple(int(np.count_nonzero(edge)) >= BORDER_PIXELS for edge in edges)


def distance_field(mask, longer_pixels, device=None):
    """:class:`DistanceField` of a mask (h, w) bool array, computed on a picture of ``longer_pixels``, half a picture beyond each side.

    The distance is exactly 0 inside the mask. Beyond a side that the mask touches nothing is charged: the object goes on there.
    """
    height, width = mask.shape
    longer = max(height, width)
    factor = min(1.0, longer_pixels / longer)
    rows, columns = max(round(height * factor), 2), max(round(width * factor), 2)
    small = cv2.resize(mask.astype(np.uint8) * 255, (columns, rows), interpolation=cv2.INTER_AREA) > 127
    pad = max(rows, columns) // 2
    inside = np.pad(small, pad)
    left, top, right, bottom = touched_sides(mask)
    inside[:, :pad] |= left
    inside[:pad] |= top
    inside[:, pad + columns :] |= right
    inside[pad + rows :] |= bottom
    if not inside.any():
        centre = np.argwhere(mask).mean(0) * factor  # smaller than a pixel of the picture
        inside[pad + min(int(centre[0]), rows - 1), pad + min(int(centre[1]), columns - 1)] = True
    spacing = height / rows / longer
    origin = ((0.5 - pad) * np.array([width / columns, height / rows]) - 0.5) / longer
    offset = _offsets_to(inside) * spacing
    tensors = [torch.as_tensor(a, dtype=torch.float32, device=device) for a in (np.linalg.norm(offset, axis=-1), offset, origin)]
    return DistanceField(*tensors, float(spacing))


def _offsets_to(inside):
    """(H, W, 2) vector (column, row) from every node to the nearest node inside."""
    _, labels = cv2.distanceTransformWithLabels((~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(inside)
    target = np.zeros((labels.max() + 1, 2), dtype=np.float32)
    target[labels[rows, columns]] = np.stack([columns, rows], -1)
    grid = np.stack(np.meshgrid(np.arange(inside.shape[1]), np.arange(inside.shape[0])), -1)
    return target[labels] - grid


def mask_box(mask):
    """(4,) x0, y0, x1, y1 in pixels of a mask (h, w) bool array, outer edges of its pixels."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])


def extended_boxes(box, extension, touched):
    """The box (4,), then the box extended by the share ``extension`` on each side in turn; nearly twice that where the picture cuts it."""
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2) * [-1, -1, 1, 1]
    boxes = [box]
    for side in range(4):
        for share in (extension, 1.8 * extension)[: 2 if touched[side] else 1]:
            larger = box.copy()
            larger[side] += share * size[side]
            boxes.append(larger)
    return np.stack(boxes)
