"""Depth images of a sensor: 16-bit millimetres or metres, with holes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DepthMap, ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.pictures import open_picture

UNKNOWN_MILLIMETRES = (0, 65535)  # what sensors write where they measured nothing


def sensor_depth(values: Any) -> DepthMap:
    """A depth image (h, w) as :class:`DepthMap` in metres; holes become NaN.

    Integers are millimetres (0 and 65535: no measurement), floating-point numbers metres (not positive or not finite: none).
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise InputError(f"a depth image has one value per pixel, (h, w); got shape {values.shape}")
    if np.issubdtype(values.dtype, np.floating):
        metres = values.astype(np.float32)
        known = np.isfinite(metres) & (metres > 0)
    elif np.issubdtype(values.dtype, np.integer):
        metres = values.astype(np.float32) / 1000
        known = ~np.isin(values, UNKNOWN_MILLIMETRES) & (values > 0)
    else:
        raise InputError(f"a depth image holds millimetres (integers) or metres (floating point), got {values.dtype}")
    return DepthMap(torch.from_numpy(np.where(known, metres, np.nan).astype(np.float32)), "metric")


class SensorDepth(DepthSource):
    """Depth images beside the pictures: one 16-bit PNG in millimetres (or TIFF in metres) per picture.

    source: a file (for one picture), or a folder that holds ``<name of the picture>.png`` or ``.tiff``;
    without it ``Depth/<category>`` of the data set folder. The size must be that of the picture (registered depth).
    """

    name = "sensor"

    def __init__(self, source: str | Path = "", dataset_root: str | Path | None = None):
        if not source and dataset_root is None:
            raise InputError("sensor depth needs a depth image, a folder of them or a data set folder: --depth sensor:PATH")
        self.source = Path(source) if source else None
        self.root = None if dataset_root is None else Path(dataset_root) / "Depth"

    def estimate(self, image: ImageInput) -> DepthMap:
        """The depth image of ``image`` in metres, mirrored with it."""
        path = self._path(image)
        depth = sensor_depth(_read(path))
        if tuple(depth.values.shape) != (image.height, image.width):
            found = tuple(depth.values.shape)
            raise FileFormatError(f"{path}: depth is {found}, the image {(image.height, image.width)}; register it to the colour camera")
        return depth.mirror() if image.mirrored else depth

    def _path(self, image: ImageInput) -> Path:
        if self.source is not None and self.source.is_file():
            return self.source
        folder, stem = self.source, Path(image.name).stem
        if image.record is not None:
            stem = image.record.name
            folder = self.root / image.record.category if folder is None and self.root is not None else folder
        if folder is None:
            raise InputError(f"{image.name} is not of a data set folder: say where its depth image is, --depth sensor:PATH")
        for suffix in (".png", ".tiff", ".tif"):
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
        raise MissingFileError(f"{folder / stem}.png does not exist (nor .tiff): put the depth image of {image.name} there")


def _read(path: Path) -> np.ndarray:
    with open_picture(path) as picture:
        values = np.array(picture)
    if values.dtype == np.uint8:
        raise FileFormatError(f"{path} has 8 bits per pixel, expected 16-bit millimetres or floating-point metres; export the raw depth")
    return values
