"""Files of tensors: safetensors, and checkpoints of torch read without code in them."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import atomic_path, reading
from semalign3d_core.runtime.outputs import SameKind

Tensors = dict[str, torch.Tensor]


def read_tensors(path: str | Path, expected: str = "", missing: str = "") -> tuple[dict[str, str], Tensors]:
    """(metadata, tensors) of a safetensors file; its tensors take no more memory than the file is long.

    expected, missing: see :func:`~semalign3d_core.runtime.files.reading`, as for the errors.
    """
    with reading(path, expected, missing) as file, open_tensors(file) as stored:
        return stored.metadata() or {}, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)


def read_metadata(path: str | Path, key: str) -> Any:
    """The JSON in an entry of a safetensors file's metadata; None if there is no such entry."""
    with reading(path) as file, open_tensors(file) as stored:
        text = (stored.metadata() or {}).get(key)
        return None if text is None else json.loads(text)


def write_tensors(path: str | Path, tensors: Tensors, metadata: dict[str, str] | None = None, ours: bool = False) -> None:
    """Writes a safetensors file atomically.

    ours: the place says that the file is ours, see :func:`.files.atomic_path`; else one with the same entries of metadata is
    """
    with atomic_path(path, None if ours else has_entries(*(metadata or ()))) as temporary:
        save_tensors(tensors, temporary, metadata)


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """An open safetensors file, whatever its name is: the library knows only names in UTF-8."""
    with open(path, "rb") as file:
        name = path if _is_text(path) else f"/proc/self/fd/{file.fileno()}"
        with safe_open(name, framework="pt") as stored:
            yield stored


def save_tensors(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, whatever its name is."""
    path.write_bytes(save(tensors, metadata=metadata))  # the library's save_file leaves files of its own where it is killed


def _is_text(path: str | Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_checkpoint(path: str | Path, state: Tensors) -> None:
    """Writes a checkpoint of torch atomically; inside a command only over one of the same tensors."""
    with atomic_path(path, lambda existing: set(torch.load(existing, map_location="cpu", weights_only=True)) == set(state)) as temporary:
        torch.save(state, temporary)


def has_entries(*names: str) -> SameKind:
    """What says whether a file is of safetensors with just these entries of metadata."""

    def same_kind(path: Path) -> bool:
        with open_tensors(path) as stored:
            return set(stored.metadata() or {}) == set(names)

    return same_kind


def read_checkpoint(path: str | Path, expected: str = "", missing: str = "") -> Any:
    """What ``torch.save`` wrote, tensors and plain values only, on the CPU."""
    with reading(path, expected, missing) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > file.stat().st_size:
                raise FileFormatError(f"{path} is a compressed checkpoint of {unpacked / 1e6:.0f} megabytes; save it with torch.save")
        return torch.load(file, map_location="cpu", weights_only=True)
