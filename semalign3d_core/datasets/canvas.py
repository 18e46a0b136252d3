"""Records in the published evaluation frame: the 840-pixel square canvas of GeoAware-SC and SphericalMaps."""

from collections.abc import Sequence

import numpy as np

from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.geometry.image_grid import CANVAS_SIDE, canvas_placement, keypoints_to_canvas


def canvas_keypoints(record: ImageRecord, visibility: Sequence[float] | np.ndarray | None = None, side: int = CANVAS_SIDE) -> np.ndarray:
    """(K, 3) float32 x, y, visible of a record's keypoints on the canvas; rows of keypoints that are not annotated are zero.

    visibility: (K) values instead of 0 or 1. The published AP-10K loader passes half the raw flags, so that hidden keypoints
    get halved coordinates; everybody else leaves it.
    """
    annotated = np.isfinite(record.keypoints).all(axis=1)
    visible = annotated if visibility is None else np.asarray(visibility) * annotated
    rows = np.concatenate([np.nan_to_num(record.keypoints), visible[:, None]], axis=1).astype(np.float32)
    return keypoints_to_canvas(rows, record.width, record.height, side).numpy()


def canvas_threshold(record: ImageRecord, side: int = CANVAS_SIDE) -> float:
    """Longest side of a record's box on the canvas."""
    assert record.box is not None, f"{record.name} has no box"
    x1, y1, x2, y2 = (float(v) for v in record.box)
    return max(x2 - x1, y2 - y1) * canvas_placement(record.width, record.height, side)[0]


def annotated_labels(keypoints: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """Labels (columns) of ``keypoints`` (n, K, 3) that at least one image shows; published evaluations drop the others."""
    return np.flatnonzero((np.asarray(keypoints)[..., 2] != 0).any(axis=0))


def published_subsample(items: Sequence[str], count: int, seed: int = 42) -> list[str]:
    """``count`` of the sorted ``items`` drawn with replacement, as published quick validations draw them; all for ``count`` 0."""
    items = sorted(items)
    return items if count == 0 else [items[i] for i in np.random.RandomState(seed).choice(len(items), count)]
