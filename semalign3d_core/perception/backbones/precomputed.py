"""Features that some tool wrote beside the images (data set folder, ``Features/<backbone>/``)."""

from pathlib import Path

import torch

from semalign3d_core.geometry.image_grid import PADDINGS, SquareGrid
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import files_below, read_json, reading
from semalign3d_core.runtime.tensors import read_tensors


class PrecomputedBackbone(FeatureBackbone):
    """Reads ``Features/<name>/<category>/<image>[.flip].safetensors`` of a data set folder.

    Each file holds ``features`` float16 (C, H, H) of the square-padded (mirrored) image;
    ``Features/<name>/grid.json`` says how the grid sits on the image (``{"padding": ...}``).
    """

    any_image = False
    concurrent = True

    def __init__(self, name: str, dataset_root: str | Path | None = None):
        if not name or dataset_root is None:
            raise InputError("precomputed features need a name and a data set folder: --backbone precomputed:NAME --dataset DIR")
        self.name = name
        self.folder: Path = Path(dataset_root) / "Features" / name
        if not self.folder.is_dir():
            raise MissingFileError(f"{self.folder} does not exist: write the features there or choose another backbone")
        grid_file = self.folder / "grid.json"
        self.padding = read_json(grid_file, dict).get("padding")
        if not isinstance(self.padding, str) or self.padding not in PADDINGS:
            raise FileFormatError(f"{grid_file}: padding is {self.padding!r}, expected one of {', '.join(PADDINGS)}")

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channel count, read from the first file in name order."""
        first = min((p for p in files_below(self.folder) if p.suffix == ".safetensors"), default=None)
        if first is None:
            raise MissingFileError(f"{self.folder} holds no .safetensors file")
        return self._read(first).shape[0]

    def extract(self, image: ImageInput) -> FeatureMap:
        """The stored features of ``image`` (unit norm); ``image.record`` says which file."""
        return self.stored(image).widened()

    def stored(self, image: ImageInput) -> StoredFeatureMap:
        """As :meth:`extract`, in the precision of the file: a :class:`StoredFeatureMap`."""
        if image.record is None:
            raise InputError(f"{image.name}: precomputed features exist only for images of a data set folder; use a real backbone")
        if image.quarters:
            raise InputError(f"{image.name}: there are no stored features of turned images; leave out the rotations or use a real backbone")
        suffix = ".flip.safetensors" if image.mirrored else ".safetensors"
        path = self.folder / image.record.category / (image.record.name + suffix)
        values = self._read(path)
        features = StoredFeatureMap(values, SquareGrid(image.height, image.width, values.shape[-1], self.padding))
        if not features.finite:
            raise FileFormatError(f"{path}: features contain NaN or infinity; extract them again")
        return features

    @staticmethod
    def _read(path: Path) -> torch.Tensor:
        expected = "it is truncated or holds no tensor 'features'; extract it again"
        _, tensors = read_tensors(path, expected, "extract the features of this image")
        with reading(path, expected):
            values = tensors["features"]
        if values.ndim != 3 or values.shape[1] != values.shape[2] or 0 in values.shape or values.is_complex():
            raise FileFormatError(f"{path}: features have shape {tuple(values.shape)}, expected (C, H, H); extract them again")
        return values if values.is_floating_point() else values.float()
