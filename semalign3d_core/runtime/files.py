"""Files that are never half-written, and hashes of what they hold."""

import codecs
import fcntl
import hashlib
import json
import math
import os
import stat
import tempfile
import threading
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from semalign3d_core.runtime.errors import FileFormatError, MissingFileError, OutputError, SemAlign3DError, UnreadableError
from semalign3d_core.runtime.limits import check_limit
from semalign3d_core.runtime.outputs import HEAD, SameKind, check_no_special, check_replaceable, is_marked, keep, kind_of, wrote

Schema = TypeVar("Schema")
_ONE_READER, _ONE_UMASK = threading.Lock(), threading.Lock()
_CLEANED: set[Path] = set()  # folders
# encoding, marks at the beginning; those of 32 bits begin as those of 16
WIDE = (("utf-32", codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), ("utf-16", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
LONGEST_NAME = 240  # bytes; file systems take 255, and endings come to it
TEMPORARY = ".semalign3d-"  # how names of temporary files begin


@contextmanager
def reading(path: str | Path, expected: str = "", missing: str = "") -> Iterator[Path]:
    """Checks that ``path`` is a file that can be read, and turns whatever goes wrong in the block into an error that names it.

    Libraries raise anything on damaged files. ``expected`` says what the file should be and what to do; ``missing`` what to do if there
    is none. Folders, devices and named pipes are refused before they are opened: a pipe would be waited for without end.
    Raises :class:`MissingFileError`, or :class:`FileFormatError` for everything else.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise FileFormatError(f"{path} is {kind_of(mode)}, expected a file{_and(expected)}")
        keep(path)
        yield path
    except SemAlign3DError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path} does not exist{_and(missing)}") from None
    except PermissionError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}; ask its owner") from error
    except Exception as error:
        raise FileFormatError(
            f"{path} cannot be read ({type(error).__name__}: {shown(error)}){_and(expected or 'copy it again')}"
        ) from error


def shown(value: object, most: int = 200) -> str:
    """``value`` as the first line of a text that fits into a message, however long it is."""
    try:
        lines = str(value).strip().splitlines() or [""]
    except Exception:  # an integer of more digits than Python prints, or nested too deep
        lines = [type(value).__name__]
    return lines[0] if len(lines[0]) <= most else f"{lines[0][:most]}..."


def _and(text: str) -> str:
    return f"; {text}" if text else ""


def is_name(text: str) -> bool:
    """Whether ``text`` can be the name of a file: no folders, not longer than file systems take."""
    return Path(text).name == text and "\0" not in text and len(text.encode(errors="replace")) <= LONGEST_NAME


def inside(folder: Path, name: str) -> Path | None:
    """``folder / name``; None if that names a place outside of ``folder``, or no place at all."""
    if not name or not all(is_name(part) for part in Path(name).parts if part != "/"):
        return None
    path = os.path.normpath(folder / name)
    return Path(path) if os.path.abspath(path).startswith(os.path.join(os.path.abspath(folder), "")) else None


def spelling(name: str) -> str:
    """``name`` for comparisons: letters composed (macOS takes them apart) and without capitals (file systems may not tell them)."""
    return unicodedata.normalize("NFC", name).casefold()


def visible(paths: Iterable[Path]) -> list[Path]:
    """``paths`` sorted, without hidden ones: temporary files of killed processes, and what macOS puts beside files (``._NAME``)."""
    return sorted(path for path in paths if not path.name.startswith("."))


def files_below(folder: Path) -> list[Path]:
    """All files in ``folder`` and its subfolders, sorted, without hidden files and what lies in hidden folders."""
    found = (path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(path for path in found if path.is_file())


@contextmanager
def atomic_path(path: str | Path, same_kind: SameKind | None = None) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` when the block succeeds.

    same_kind: whether a file that is there already is what would be written; inside a command nothing else is replaced, see
    :mod:`.outputs`. None: of a file whose place says that it is ours (caches, checkpoints, folders that the command made).

    The temporary name keeps the suffix of ``path``, because writers choose their format by it.
    Readers see the old file or the complete new one, never a part; several processes may write the
    same file at once. What killed processes left in the folder is removed.
    Raises :class:`OutputError` when the file cannot be written, and when a folder, a device or a named pipe has its name.
    """
    path = Path(path)
    temporary, handle = None, -1
    try:
        if "\0" in str(path):
            raise OutputError(f"cannot write {str(path)!r}: names have no zero bytes")
        check_no_special(path)
        if same_kind is not None:
            check_replaceable(path, same_kind=same_kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        while temporary is None or not os.fstat(handle).st_nlink:  # before its lock, somebody may take it for a leftover
            if temporary is not None:
                os.close(handle)
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
            temporary = Path(name)
            fcntl.flock(handle, fcntl.LOCK_EX)  # says that its writer lives
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; results are meant to be shared
        os.replace(temporary, path)
        wrote(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SemAlign3DError) or type(error).__name__ == "SafetensorError":
            reason = getattr(error, "strerror", None) or shown(error)
            raise OutputError(f"cannot write {path}: {reason}; make room there, or choose another place") from error
        raise
    finally:
        if handle >= 0:
            os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Removes the temporary files in ``folder`` whose writer was killed, the first time that this process writes there."""
    if folder in _CLEANED:
        return
    _CLEANED.add(folder)
    for left in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError), open(left, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _umask() -> int:
    """The mode mask of new files, which can only be read by setting it: by one thread at a time."""
    with _ONE_UMASK:
        umask = os.umask(0)
        os.umask(umask)
    return umask


def write_text(path: str | Path, text: str, ours: bool = False) -> None:
    r"""Writes a text file atomically. Bytes of file names that are no UTF-8 are written as ``\udcXX``, as JSON spells them.

    ours: the place says that the file is ours, see :func:`atomic_path`; else one that names this program in its head is, and a table
    with the same first two columns.
    """
    with atomic_path(path, None if ours else partial(_same_text, text)) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any, ours: bool = False) -> None:
    """Writes JSON atomically, keys in insertion order. Numbers that are not finite become null: JSON has none.

    ours: the place says that the file is ours, see :func:`atomic_path`; else one with the same first keys is
    """
    text = json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path, None if ours else partial(_same_keys, value)) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _same_text(text: str, path: Path) -> bool:
    first = text.partition("\n")[0]
    if path.suffix.lower() not in (".csv", ".jsonl"):
        return is_marked(path)
    with open(path, encoding="utf-8") as file:
        line = file.readline(HEAD).rstrip("\n")
    if path.suffix.lower() == ".csv":  # later columns may depend on options and data
        return line.split(",")[:2] == first.split(",")[:2]
    return line == first or _first_keys(json.loads(line)) == _first_keys(json.loads(first))


def _same_keys(value: Any, path: Path) -> bool:
    return _first_keys(value) == _first_keys(json.loads(path.read_text(encoding="utf-8")))


def _first_keys(value: Any) -> list[Any] | None:
    """The first keys of an object, or of the first object in a list: what kind of JSON it is."""
    if isinstance(value, list):
        value = value[0] if value else None
    return list(value)[:3] if isinstance(value, dict) else None


def finite(value: Any) -> Any:
    """``value`` (dictionaries, lists, numbers, scalars of NumPy) as JSON knows it: None in place of numbers that are not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: str | Path, expected: str = "save it as UTF-8", missing: str = "") -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 or 32 with one, as programs on Windows write it."""
    with reading(path, expected, missing) as file:
        check_limit("TEXT_MEGABYTES", file.stat().st_size / 1e6, path, f"{file.stat().st_size / 1e6:.0f} megabytes of text")
        content = file.read_bytes()
        if content.startswith(b"PK\x03\x04"):
            raise FileFormatError(f"{path} is a ZIP archive; unpack it and give the file inside")
        known = (marks for marks in WIDE if content.startswith(marks[1:]))
        return content.decode(next(known, ("utf-8-sig",))[0])


def read_json(path: str | Path, schema: type[Schema] | None = None) -> Any:
    """Reads a JSON file; errors name the file and where it is broken. A key that occurs twice in an object is an error.

    schema: dataclass or type that the content must fit; nothing: any JSON. Fields that the schema does not have are left out.
    """
    try:
        content = json.loads(read_text(path, "restore or re-export the file"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, SemAlign3DError):
            raise
        raise FileFormatError(f"{path} is not valid JSON ({shown(error)}); restore or re-export the file") from error
    return content if schema is None else fitting(content, schema, path)


def fitting(content: Any, schema: type[Schema], where: object) -> Schema:
    """``content`` as the dataclass or type ``schema``; :class:`FileFormatError` says where it does not fit and what was expected."""
    import msgspec

    try:
        return msgspec.convert(content, schema, strict=False)
    except (msgspec.ValidationError, RecursionError, OverflowError, ValueError) as error:
        raise FileFormatError(f"{where}: {shown(error).replace('Object', 'it is')}; restore or re-export the file") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in one object; keep one")
    return content


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: a few hundred bytes of them make gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed here; write the values out")
        return super().compose_node(parent, index)


def read_yaml(path: str | Path, missing: str = "") -> Any:
    """Reads a YAML file of plain values; aliases are refused. Errors name the file and where it is broken."""
    text = read_text(path, missing=missing)
    with reading(path, "it is not valid YAML"):
        return yaml.load(text, _PlainLoader)


def read_arrays(path: str | Path, expected: str = "write it again", missing: str = "") -> dict[str, np.ndarray]:
    """{name: array} of a NumPy archive (``.npz``) without pickled objects, not larger unpacked than the limit.

    One at a time: array headers are Python expressions, and Python before 3.11.8 and 3.12.2 fails now and then when several threads
    parse some (python/cpython issue 106905).
    """
    with _ONE_READER, reading(path, expected, missing) as file, zipfile.ZipFile(file) as archive:
        total = sum(member.file_size for member in archive.infolist()) / 1e6
        check_limit("ARRAYS_MEGABYTES", total, path, f"{total:.0f} megabytes of arrays")
        for member in archive.infolist():
            with archive.open(member) as stream:
                _check_array_header(stream, member)
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)


def _check_array_header(stream: Any, member: Any) -> None:
    """Raises ValueError unless the shape in the header fits the bytes behind it: NumPy allocates what the header says."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds pickled objects, which are not read")
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has the shape {shape} but only {member.file_size} bytes")


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
