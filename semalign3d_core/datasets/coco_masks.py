"""Masks of COCO annotations: polygons and both spellings of run lengths.

pycocotools is not used: it reads run lengths in C without checking that they end and that they fit the image.
"""

from typing import Any

import cv2
import numpy as np

from semalign3d_core.runtime.errors import FileFormatError

SHIFT = 4  # fractional bits of polygon corners


def decode_mask(segmentation: dict[str, Any] | list[list[int]], height: int, width: int) -> np.ndarray | None:
    """(h, w) bool mask of a COCO ``segmentation`` (polygons, or run lengths as list or string); None if there is none.

    Polygon corners are pixel positions. Raises :class:`FileFormatError` for anything else.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return _polygons(segmentation, height, width)
    if isinstance(segmentation, dict) and "counts" in segmentation:
        counts = segmentation["counts"]
        counts = _decompressed(counts) if isinstance(counts, str) else counts
        size = tuple(segmentation.get("size", (height, width)))
        if size != (height, width) or sum(counts) != height * width or min(counts, default=0) < 0:
            raise FileFormatError(f"run lengths describe {sum(counts)} pixels of {size}, the image has {height} x {width}")
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return values.reshape(width, height).T.copy()  # COCO runs go down the columns
    raise FileFormatError("segmentation is neither a list of polygons nor run lengths")


def _polygons(polygons, height, width):
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64).ravel()
        if len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all():
            raise FileFormatError(f"a polygon has {len(corners)} numbers, expected at least three pairs x, y")
        fixed = np.rint(corners.reshape(-1, 1, 2) * 2**SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, lineType=cv2.LINE_8, shift=SHIFT)
    return mask.astype(bool)


def _decompressed(text):
    """Run lengths from COCO's string: 5 bits per character plus a continuation bit, differences to the run two before."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text):
                raise FileFormatError("compressed run lengths end in the middle of a number")
            byte = ord(text[position]) - 48
            if not 0 <= byte < 64:
                raise FileFormatError(f"compressed run lengths contain the character {text[position]!r}")
            value |= (byte & 31) << shift
            shift, position, more = shift + 5, position + 1, bool(byte & 32)
            if not more and byte & 16:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
