"""Masks that some tool wrote beside the images (``Segmentation/<category>/<name>.png``, as in SPair-71k)."""

from pathlib import Path

import numpy as np
import torch

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks import Box, MaskSource, Points
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.pictures import read_labels


class PrecomputedMasks(MaskSource):
    """Reads ``Segmentation/<category>/<name>.png``: palette index or grey value above 0 is object, 255 (void) is not."""

    name = "precomputed"
    any_image = False
    concurrent = True

    def __init__(self, dataset_root: str | Path | None = None):
        if dataset_root is None:
            raise InputError("precomputed masks need a data set folder: --dataset DIR")
        self.folder: Path = Path(dataset_root) / "Segmentation"

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """The stored mask of ``image``, mirrored with it, (h, w) bool; None if it is empty."""
        if image.record is None:
            raise InputError(f"{image.name}: precomputed masks exist only for images of a data set folder")
        path = self.folder / image.record.category / f"{image.record.name}.png"
        values = read_labels(path)
        if values.shape != (image.height, image.width):
            raise FileFormatError(f"{path}: mask is {values.shape}, the image {(image.height, image.width)}; write it again")
        mask = torch.from_numpy(self._object_pixels(values))
        if not mask.any():
            return None
        return mask.flip(1) if image.mirrored else mask

    @staticmethod
    def _object_pixels(values: np.ndarray) -> np.ndarray:
        marked = values > 0
        labelled = marked & (values != 255)
        return labelled if labelled.any() else marked  # 255 is "void" only where other labels exist
