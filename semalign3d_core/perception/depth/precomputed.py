"""Depth maps that some tool wrote beside the images (``Depth/<category>/<name>.npz``)."""

from pathlib import Path

import numpy as np
import torch

from semalign3d_core.perception.depth import DepthSource
from semalign3d_core.perception.evidence import DEPTH_KINDS, DepthMap, ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import read_arrays, reading, shown


class PrecomputedDepth(DepthSource):
    """Reads ``Depth/<category>/<name>.npz`` (``depth`` float32 (h, w), ``kind``) of a data set folder."""

    name = "precomputed"
    concurrent = True

    def __init__(self, dataset_root: str | Path | None = None):
        if dataset_root is None:
            raise InputError("precomputed depth needs a data set folder: --dataset DIR")
        self.folder: Path = Path(dataset_root) / "Depth"

    def estimate(self, image: ImageInput) -> DepthMap:
        """The stored depth of ``image``, mirrored with it; non-finite values become NaN."""
        if image.record is None:
            raise InputError(f"{image.name}: precomputed depth exists only for images of a data set folder")
        path = self.folder / image.record.category / f"{image.record.name}.npz"
        expected = "it is not a depth file with 'depth' and 'kind'; write it again"
        stored = read_arrays(path, expected, "estimate the depth of this image")
        with reading(path, expected), np.errstate(over="ignore"):
            values, kind = torch.from_numpy(stored["depth"].astype(np.float32)), str(stored["kind"])
        if tuple(values.shape) != (image.height, image.width):
            raise FileFormatError(f"{path}: depth is {tuple(values.shape)}, the image {(image.height, image.width)}; write it again")
        if kind not in DEPTH_KINDS:
            raise FileFormatError(f"{path}: kind is {shown(kind)!r}, expected one of {', '.join(DEPTH_KINDS)}; write it again")
        if kind != "disparity" and (values < 0).any():
            raise FileFormatError(f"{path}: depth is negative ({float(values.nan_to_num().min()):.3g}); write NaN where it is unknown")
        depth = DepthMap(torch.where(torch.isfinite(values), values, torch.nan), kind)
        return depth.mirror() if image.mirrored else depth
