"""Extracted views on disk, so that an interrupted build goes on where it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.category.annotations.views import Providers, View
from semalign3d_core.category.config import ViewOptions
from semalign3d_core.datasets.records import ImageRecord
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError
from semalign3d_core.runtime.files import reading, sha256_of_arrays
from semalign3d_core.runtime.tensors import read_tensors, write_tensors

TEXTS = ("name", "kind")
NUMBERS = ("height", "width")
KEY, DIGEST = "key", "hash"


class ViewCache:
    """Views of one category in a folder; ``folder`` None keeps nothing.

    A stored view is used only when everything it came from is unchanged: annotation, options, providers, and size and
    time of the image file and of the providers' files for that image.
    """

    def __init__(self, folder: Path | None, options: ViewOptions, providers: Providers) -> None:
        self.folder = None if folder is None else Path(folder)
        self.options = options
        self.providers = providers

    def stored(self, record: ImageRecord) -> View | None:
        """The stored view of ``record``; None if there is none or it is out of date."""
        path = self._path(record)
        return None if path is None else _read(path, self._key(record))

    def store(self, record: ImageRecord, view: View) -> None:
        """Keeps the view of ``record``."""
        path = self._path(record)
        if path is None:
            return
        tensors = {name: value.contiguous() for name, value in vars(view).items() if isinstance(value, torch.Tensor)}
        header = {name: str(getattr(view, name)) for name in TEXTS + NUMBERS} | {KEY: self._key(record)}
        if not path.exists() or path.is_file():
            write_tensors(path, tensors, header | {DIGEST: _digest(tensors)}, ours=True)

    def _path(self, record: ImageRecord) -> Path | None:
        return None if self.folder is None else self.folder / f"{record.name}.safetensors"

    def _key(self, record: ImageRecord) -> str:
        files = [Path(record.path)]
        providers = [provider for provider in vars(self.providers).values() if provider is not None]
        for provider in providers:
            if provider.folder is not None:
                files += sorted((provider.folder / record.category).glob(f"{record.name}.*"))
        state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
        names = [provider.name for provider in providers]
        camera = repr(record.attributes.get("camera_matrix"))
        content = [record.category, record.name, record.height, record.width, record.keypoints.tolist(), camera, *View.__dataclass_fields__]
        return hashlib.sha256(json.dumps([content, state, names, vars(self.options)]).encode()).hexdigest()


def _read(path: Path, key: str) -> View | None:
    try:
        header, tensors = read_tensors(path)
        with reading(path):
            if header[KEY] != key or header[DIGEST] != _digest(tensors):
                return None
            values: dict[str, Any] = {name: header[name] for name in TEXTS} | {name: int(header[name]) for name in NUMBERS}
            return View(**values | tensors)
    except (MissingFileError, FileFormatError):
        return None


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    return sha256_of_arrays({name: tensor.numpy() for name, tensor in tensors.items()})
