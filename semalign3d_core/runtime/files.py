"""Files that are never half-written, and hashes of what they hold."""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.runtime.errors import FileFormatError, MissingFileError, OutputError

_ONE_READER, _ONE_UMASK = threading.Lock(), threading.Lock()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    The temporary name keeps the suffix of ``path``, because writers choose their format by it.
    Readers see the old file or the complete new one, never a part; several processes may write the
    same file at once. Raises :class:`OutputError` when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}; choose another output folder") from error
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes private files; results are meant to be shared
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask():
    """The mode mask of new files, which can only be read by setting it: by one thread at a time."""
    with _ONE_UMASK:
        umask = os.umask(0)
        os.umask(umask)
    return umask


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON atomically, keys in insertion order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; errors name the file and where it is broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is not valid JSON ({error}); restore or re-export the file") from error


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a NumPy archive (``.npz``) without pickled objects.

    One at a time: array headers are Python expressions, and Python before 3.11.8 and 3.12.2 fails now and then when several threads
    parse some (python/cpython issue 106905).
    """
    with _ONE_READER, np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Hexadecimal SHA-256 of a dictionary of NumPy arrays: names, types, shapes and bytes, in name order."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
