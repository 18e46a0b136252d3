"""Extracted views on disk, so that an interrupted build goes on where it was."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from semalign3d_core.category.views import View
from semalign3d_core.files import atomic_path

TEXTS = ("name", "kind")
NUMBERS = ("height", "width")
KEY = "key"


class ViewCache:
    """Views of one category in a folder; ``folder`` None keeps nothing.

    A stored view is used only when everything it came from is unchanged: annotation, options, providers, and size and
    time of the image file and of the providers' files for that image.
    """

    def __init__(self, folder, settings, providers):
        self.folder = None if folder is None else Path(folder)
        self.settings = settings
        self.providers = providers

    def get(self, record, make):
        """The stored view of ``record``, or ``make()``, which is then stored."""
        if self.folder is None:
            return make()
        path, key = self.folder / f"{record.name}.safetensors", self._key(record)
        stored = _read(path, key)
        if stored is None:
            stored = make()
            tensors = {name: value.contiguous() for name, value in vars(stored).items() if isinstance(value, torch.Tensor)}
            header = {name: str(getattr(stored, name)) for name in TEXTS + NUMBERS} | {KEY: key}
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, metadata=header)
        return stored

    def clear(self):
        """Removes the stored views (after a finished build)."""
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.glob("*.safetensors"):
                path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _key(self, record):
        files = [Path(record.path)]
        for provider in vars(self.providers).values():
            folder = getattr(provider, "folder", None)
            if folder is not None:
                files += sorted((Path(folder) / record.category).glob(f"{record.name}.*"))
        state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
        names = [str(getattr(p, "name", p)) for p in vars(self.providers).values()]
        camera = repr(record.attributes.get("camera_matrix"))
        content = [record.category, record.name, record.height, record.width, record.keypoints.tolist(), camera, *View.__dataclass_fields__]
        return hashlib.sha256(json.dumps([content, state, names, self.settings]).encode()).hexdigest()


def _read(path, key):
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get(KEY) != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (FileNotFoundError, SafetensorError):
        return None
    texts = {name: header[name] for name in TEXTS} | {name: int(header[name]) for name in NUMBERS}
    return View(**texts, **tensors)
