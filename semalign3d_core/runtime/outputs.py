"""What a command may replace: its own earlier results, and nothing else; never one of its inputs, whatever its name.

Readers say what was read (:func:`keep`), writers ask before they replace a file (:func:`check_replaceable`). Inside a command
(:func:`guarded`) both hold; a program that uses the package as a library replaces what it names.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from semalign3d_core.runtime.errors import OutputError

MARK = b"semalign3d"  # within the first bytes of pages, pictures and models
HEAD = 4096  # bytes
SameKind = Callable[[Path], bool]


@dataclass
class _Guard:
    """The inputs, and the files that were written, by (device, number of the file): one file has many names."""

    overwrite: bool
    inputs: set[tuple[int, int]] = field(default_factory=set)
    written: set[tuple[int, int]] = field(default_factory=set)


_GUARDS: list[_Guard] = []  # of the command that runs; [] in a library


@contextmanager
def guarded(overwrite: bool = False) -> Iterator[None]:
    """Inputs of the block are kept, and only results of this program are replaced; with ``overwrite`` also other files."""
    _GUARDS.append(_Guard(overwrite))
    try:
        yield
    finally:
        _GUARDS.pop()


def keep(path: Path) -> None:
    """Says that ``path`` is an input."""
    if _GUARDS:
        number = _number(path)
        if number is not None:
            _GUARDS[-1].inputs.add(number)


def wrote(path: Path) -> None:
    """Says that the command wrote ``path``, which it may then replace."""
    if _GUARDS:
        number = _number(path)
        if number is not None:
            _GUARDS[-1].written.add(number)


def is_marked(path: Path) -> bool:
    """Whether the first bytes of a file name this program."""
    with open(path, "rb") as handle:
        return MARK in handle.read(HEAD)


def check_replaceable(path: str | Path, overwrite: bool | None = None, same_kind: SameKind = is_marked) -> None:
    """Raises :class:`OutputError` if a result must not be written to ``path``.

    Not over a folder, a device or a named pipe; inside a command not over one of its inputs, and not over a file of another kind.
    overwrite: other kinds may be replaced; None: as the command was told, and always outside of a command
    same_kind: whether an existing file is what would be written
    """
    path, guard = Path(path), _GUARDS[-1] if _GUARDS else None
    try:
        check_no_special(path)
        number = _number(path)
        if number is None or guard is None and overwrite is None:
            return
        if guard is not None and number in guard.inputs - guard.written:
            raise OutputError(f"cannot write {path}: it is an input of this command; choose another name")
        allowed = overwrite or guard is not None and (guard.overwrite or number in guard.written)
        ours = allowed or _is(same_kind, path)
    except (OSError, ValueError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose another place") from error
    if not ours:
        raise OutputError(f"{path} exists and is no result of this program; choose another name, or give --overwrite to replace it")


def claim(path: str | Path, same_kind: SameKind) -> None:
    """:func:`check_replaceable` before long work, and makes the folder: one that cannot be made costs no work."""
    path = Path(path)
    check_replaceable(path, same_kind=same_kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from error


def check_no_special(path: Path) -> None:
    """Raises :class:`OutputError` for a folder, a device or a named pipe, also behind a link."""
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is {kind_of(path.stat().st_mode)}; choose another name")


def kind_of(mode: int) -> str:
    """What the mode of a file that is no regular one says."""
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def _number(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _is(same_kind: Callable[[Path], bool], path: Path) -> bool:
    try:
        return same_kind(path)
    except PermissionError:
        raise
    except Exception:  # damaged, and libraries raise anything: nobody knows what it was
        return False
