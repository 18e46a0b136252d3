"""Records in the published evaluation frame: the 840-pixel square canvas of GeoAware-SC and SphericalMaps."""

from collections.abc import Sequence

import numpy as np

from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.geometry.image_grid import CANVAS_SIDE, keypoints_to_canvas


def canvas_keypoints(record: ImageRecord, visibility: Sequence[float] | np.ndarray | None = None, side: int = CANVAS_SIDE) -> np.ndarray:
    """(K, 3) float32 x, y, visible of a record's keypoints on the canvas; rows of keypoints that are not annotated are zero.

    visibility: (K) values instead of 0 or 1. The published AP-10K loader passes half the raw flags, so that hidden keypoints
    get halved coordinates; everybody else leaves it.
    """
    annotated = np.isfinite(record.keypoints).all(axis=1)
    visible = annotated if visibility is None else np.asarray(visibility) * annotated
    rows = np.concatenate([np.nan_to_num(record.keypoints), visible[:, None]], axis=1).astype(np.float32)
    return keypoints_to_canvas(rows, record.width, record.height, side).numpy()


def published_subsample(items: Sequence[str], count: int, seed: int = 42) -> list[str]:
    """``count`` of the sorted ``items`` drawn with replacement, as published quick validations draw them; all for ``count`` 0."""
    items = sorted(items)
    return items if count == 0 else [items[i] for i in np.random.RandomState(seed).choice(len(items), count)]
