"""Errors that users can act on.

Every message names the file, topic or key, what was found, what was expected, and what to do.
"""

from typing import Any

LONGEST = 1500  # characters of a message


class SemAlign3DError(Exception):
    """Base of all errors this package raises on purpose; its text is meant for the user, and short whatever was found."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 4 :]}"


class InputError(SemAlign3DError, ValueError):
    """An image, annotation, array or option cannot be used as given."""


class FileFormatError(InputError):
    """A file exists but is truncated, edited, of another version, or not of our format."""


class UnreadableError(FileFormatError):
    """A file exists, and whoever runs this may not read it."""


class OutputError(InputError):
    """A result or a cache entry cannot be written: no such folder, no permission, disk full."""


class MissingFileError(SemAlign3DError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class MissingDependencyError(SemAlign3DError, ImportError):
    """An optional package is not installed."""


class MissingWeightsError(SemAlign3DError):
    """Pretrained weights are needed but neither on disk nor allowed to be downloaded."""


def choice(kind: str, name: str, registry: dict[str, Any]) -> Any:
    """Returns ``registry[name]``; an unknown name raises :class:`InputError` naming the legal ones."""
    if name in registry:
        return registry[name]
    raise InputError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(registry))}")
