"""Keypoint tables of SPair-71k and AP-10K: which labels swap in a mirror image, and which can be confused with each other.

Neither data set publishes these; they are those of the GeoAware-SC evaluation (CVPR 2024). All labels are raw: the numbers of the
annotation files. Labels that no table names map to themselves and belong to no group.
"""

import numpy as np

SPAIR_CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "train", "tvmonitor"),
)
SPAIR_LABELS = 30  # annotation files list "0" to "29" for every category

AP10K_KEYPOINTS = (
    *("left eye", "right eye", "nose", "neck", "root of tail", "left shoulder", "left elbow", "left front paw", "right shoulder"),
    *("right elbow", "right front paw", "left hip", "left knee", "left back paw", "right hip", "right knee", "right back paw"),
)


def _runs(*ranges: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Neighbouring labels as pairs: (4, 9) becomes (4, 5), (6, 7), (8, 9)."""
    return tuple((i, i + 1) for first, last in ranges for i in range(first, last, 2))


_CAR_QUADS = ((10, 13, 20, 23), (11, 14, 21, 24), (12, 15, 22, 25), (16, 17, 26, 27), (18, 19, 28, 29))
_CAR_MIRROR = ((0, 1), (2, 3), (10, 20), (13, 23), (11, 21), (14, 24), (12, 22), (15, 25), (16, 17), (26, 27), (18, 19), (28, 29))
_CATTLE = ((2, 3), (9, 10, 11, 12), (15, 16, 17, 18), (19, 20))

# labels that the annotations of a category use, as inclusive ranges
_USED = {
    "aeroplane": ((0, 24),),
    "bicycle": ((0, 10), (13, 13)),
    "bird": ((0, 16),),
    "boat": ((0, 13),),
    "bottle": ((0, 9),),
    "bus": ((0, 7), (10, 29)),
    "car": ((0, 29),),
    "cat": ((0, 14),),
    "chair": ((0, 13),),
    "cow": ((0, 20),),
    "dog": ((0, 15),),
    "horse": ((0, 19),),
    "motorbike": ((0, 12),),
    "person": ((0, 19),),
    "pottedplant": ((0, 8),),
    "sheep": ((0, 20),),
    "train": ((0, 17),),
    "tvmonitor": ((0, 15),),
    "ap10k": ((0, 16),),
}

# labels of parts that look alike: left and right, front and rear, corners, legs
GEOMETRY_GROUPS = {
    "aeroplane": _runs((4, 21)),
    "bicycle": _runs((2, 3), (6, 7), (9, 10)),
    "bird": _runs((1, 2), (10, 15)),
    "boat": _runs((1, 12)),
    "bottle": _runs((0, 9)),
    "bus": ((0, 1), (2, 3, 5, 6), (4, 7), *_CAR_QUADS),
    "car": ((0, 1), (2, 3, 6, 7), (4, 8), (5, 9), *_CAR_QUADS),
    "cat": ((2, 3), (9, 10, 11, 12)),
    "chair": ((0, 1), (2, 3), (4, 5, 6, 7), (8, 9), (10, 11), (12, 13)),
    "cow": _CATTLE,
    "dog": ((2, 3), (9, 10, 11, 12)),
    "horse": ((2, 3), (10, 11, 12, 13), (16, 17, 18, 19)),
    "motorbike": _runs((0, 3)),
    "person": _runs((8, 19)),
    "pottedplant": ((0, 1, 2, 3), (4, 5), (6, 8)),
    "sheep": _CATTLE,
    "train": _runs((0, 17)),
    "tvmonitor": ((0, 2, 4, 6), (1, 3, 5, 7), (8, 10, 12, 14), (9, 11, 13, 15)),
    "ap10k": ((5, 8), (6, 9, 12, 15), (7, 10, 13, 16), (11, 14)),
}

# labels that change places in the mirror image
MIRROR_PAIRS = {
    "aeroplane": _runs((4, 21)),
    "bicycle": _runs((2, 3), (6, 7), (9, 10)),
    "bird": _runs((1, 2), (4, 5), (7, 8), (10, 15)),
    "boat": _runs((1, 12)),
    "bottle": _runs((0, 9)),
    "bus": (*_CAR_MIRROR, (5, 6)),
    "car": (*_CAR_MIRROR, (6, 7)),
    "cat": _runs((0, 7), (9, 12)),
    "chair": _runs((0, 13)),
    "cow": _runs((0, 7), (9, 12), (15, 20)),
    "dog": _runs((0, 5), (9, 12)),
    "horse": _runs((0, 7), (10, 13), (16, 19)),
    "motorbike": _runs((0, 3)),
    "person": _runs((0, 3), (8, 19)),
    "pottedplant": ((0, 2), (4, 5), (6, 8)),
    "sheep": _runs((0, 7), (9, 12), (15, 20)),
    "train": _runs((0, 17)),
    "tvmonitor": ((0, 2), (4, 6), (3, 7), (8, 10), (12, 14), (11, 15)),
    "ap10k": ((0, 1), (5, 8), (6, 9), (12, 15), (7, 10), (13, 16), (11, 14)),
}


def used_labels(category: str) -> list[int]:
    """Raw labels that occur in the annotations of a category (``ap10k`` for all animals of AP-10K), ascending."""
    return [label for first, last in _USED[category] for label in range(first, last + 1)]


def flip_permutation(category: str, count: int | None = None, visible: np.ndarray | None = None) -> list[int]:
    """The label that each of ``count`` labels becomes in the mirror image (default: up to the largest used one).

    With ``visible`` (bool per label) a pair changes places only if both of its labels are visible.
    """
    flip = list(range(used_labels(category)[-1] + 1 if count is None else count))
    for a, b in MIRROR_PAIRS[category]:
        if visible is None or (visible[a] and visible[b]):
            flip[a], flip[b] = b, a
    return flip
