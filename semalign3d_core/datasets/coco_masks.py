"""Masks of COCO annotations: polygons and both spellings of run lengths.

pycocotools is not used: it reads run lengths in C without checking that they end and that they fit the image.
"""

from typing import Any

import cv2
import numpy as np

from semalign3d_core.runtime.errors import FileFormatError

SHIFT = 4  # fractional bits of polygon corners
FAR = 1e6  # pixels; corners beyond are none


def decode_mask(segmentation: Any, height: int, width: int) -> tuple[np.ndarray | None, int]:
    """((h, w) bool mask of a COCO ``segmentation``, parts that are no polygon); the mask is None if nothing is left.

    A segmentation is polygons (or the numbers or corners of a single one), run lengths as list or string, or a list of those.
    Polygon corners are pixel positions. Run lengths may be those of the picture turned by a quarter, and the mask is then, too.
    Raises :class:`FileFormatError` for anything else.
    """
    if not segmentation:
        return None, 0
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width), 0
    if not isinstance(segmentation, list):
        raise FileFormatError("segmentation is neither a list of polygons nor run lengths")
    if all(isinstance(part, int | float) for part in segmentation) or len(segmentation) > 2 and all(map(_is_corner, segmentation)):
        segmentation = [segmentation]
    mask, left_out = None, 0
    for part in segmentation:
        found = _run_lengths(part, height, width) if isinstance(part, dict) else _polygon(part, height, width)
        if found is None:
            left_out += 1
        elif mask is None:
            mask = found
        elif mask.shape != found.shape:
            raise FileFormatError("run lengths and polygons belong to images of different sizes")
        else:
            mask |= found
    return mask, left_out


def _is_corner(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 2 and all(isinstance(value, int | float) for value in part)


def _polygon(part: Any, height: int, width: int) -> np.ndarray | None:
    """(h, w) bool, or None for what has no three corners."""
    try:
        corners = np.asarray(part, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return None
    if len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) < FAR).all():
        return None
    mask = np.zeros((height, width), np.uint8)
    fixed = np.rint(corners.reshape(-1, 1, 2) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1, lineType=cv2.LINE_8, shift=SHIFT)
    return mask.astype(bool)


def _run_lengths(content: dict[str, Any], height: int, width: int) -> np.ndarray:
    counts, size = content.get("counts"), content.get("size", [height, width])
    counts = _decompressed(counts) if isinstance(counts, str) else counts
    if isinstance(counts, list):
        counts = [int(count) if isinstance(count, float) and count.is_integer() else count for count in counts]
    if not isinstance(counts, list) or not all(isinstance(count, int) and 0 <= count <= height * width for count in counts):
        raise FileFormatError("run lengths are no list of numbers of pixels, and no string of COCO's")
    if size not in ([height, width], [width, height]) or sum(counts) != height * width:
        raise FileFormatError(f"run lengths describe {sum(counts)} pixels of {str(size)[:40]}, the image has {height} x {width}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(int(size[1]), int(size[0])).T.copy()  # COCO runs go down the columns


def _decompressed(text: str) -> list[int]:
    """Run lengths from COCO's string: 5 bits per character plus a continuation bit, differences to the run two before."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text) or shift > 60:
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
