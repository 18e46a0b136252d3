"""The cache on disk: what is computed once per image, in safetensors files named by the hash of what went into them.

One file per entry, ``<root>/<kind>/<first two digits>/<key>.safetensors``; the key is the SHA-256 of everything the content
depends on, so an entry is never stale. Files appear by an atomic rename: any number of processes may share a folder
without locks (two that compute the same entry write the same content), and a killed process leaves nothing half-written.
Each file carries its key and the hash of its tensors; a damaged or exchanged one is counted, computed again and replaced.

Size: a feature map of 60 x 60 cells and C channels in half precision takes 7200 C bytes, 5.5 MB with C = 768; depth and mask
of a 500 x 375 image 0.4 MB. All 1800 images of SPair-71k need 10.7 GB, the 480 or so of its test split 2.9 GB.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.runtime.errors import FileFormatError, MissingFileError, OutputError
from semalign3d_core.runtime.files import reading, sha256_of_arrays
from semalign3d_core.runtime.tensors import read_tensors, write_tensors

FORMAT_VERSION = 2


def user_cache() -> Path:
    """Where what is computed once per user and machine is kept: ``~/.cache/semalign3d``, or in ``XDG_CACHE_HOME``.

    Raises :class:`OutputError` for a user without a home, as in some containers.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semalign3d"
    except RuntimeError as error:
        raise OutputError("nothing can be kept: there is no home folder; set HOME or XDG_CACHE_HOME") from error


Entry = tuple[Any, dict[str, torch.Tensor]]  # structure (JSON) and tensors


class Cache:
    """A folder of cached tensors; ``counts`` says how many entries were read (``hits``), ``computed`` and found ``damaged``."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.counts: Counter[str] = Counter()

    def fetch(self, kind: str, depends_on: Any, compute: Callable[[], Entry]) -> Entry:
        """Returns (structure, tensors) of an entry, from disk or from ``compute()``, which returns the same pair.

        kind: folder name (features, depth, masks, prepared, matches); depends_on: JSON-serialisable description of
        everything the content depends on. The pair returned is always what a later process would read.
        """
        path = self.path(kind, depends_on)
        stored = self._read(path, _key(kind, depends_on))
        if stored is not None:
            self.counts[f"{kind}_hits"] += 1
            return stored
        structure, tensors = compute()
        self._write(path, _key(kind, depends_on), structure, tensors)
        self.counts[f"{kind}_computed"] += 1
        return json.loads(json.dumps(structure)), tensors

    def path(self, kind: str, depends_on: Any) -> Path:
        """The file of an entry."""
        key = _key(kind, depends_on)
        return self.root / kind / key[:2] / f"{key}.safetensors"

    def _read(self, path: Path, key: str) -> tuple[Any, dict[str, torch.Tensor]] | None:
        """An entry; None if there is none, or if it is damaged, of another key or no file at all, which is counted."""
        try:
            header, tensors = read_tensors(path)
            with reading(path):
                if header["key"] == key and header["hash"] == _hash(header["structure"], tensors):
                    return json.loads(header["structure"]), tensors
        except MissingFileError:
            return None
        except FileFormatError:
            pass
        self.counts["damaged"] += 1
        return None

    @staticmethod
    def _write(path: Path, key: str, structure: Any, tensors: dict[str, torch.Tensor]) -> None:
        text = json.dumps(structure)
        try:
            write_tensors(path, tensors, {"key": key, "structure": text, "hash": _hash(text, tensors)}, ours=True)
        except OutputError as error:
            if path.exists() and not path.is_file():
                return  # a folder or a pipe in its place: computed again each time, which is counted
            raise OutputError(f"{error}; or choose another folder with --cache") from error


def _key(kind: str, depends_on: Any) -> str:
    return sha256(json.dumps([FORMAT_VERSION, kind, depends_on], sort_keys=True).encode()).hexdigest()


def _hash(text: str, tensors: dict[str, torch.Tensor]) -> str:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return sha256(text.encode()).hexdigest() + sha256_of_arrays(arrays)
