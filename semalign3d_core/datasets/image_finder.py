"""Where the image files are whose names an annotation tool wrote."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.files import files_below, inside, spelling
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES

UPLOAD_PREFIX = re.compile(r"^(?!(?:19|20)\d\d[01]\d[0-3]\d-)[0-9a-f]{8}-")  # Label Studio's, of uploaded files; not a date
CONVERTED = (".heic", ".heif", ".gif", ".avif", ".raw", ".dng")  # annotated as such, converted since
TOOL_FOLDERS = ("images", "upload", "data")  # that tools write before names, whatever the user's folders are called


class ImageFinder:
    """Finds image files by the names that annotation tools give them.

    folder: where the images are;  names: all names of the annotation file: no file is given to two of them;
    without: folders below it that hold something else (masks, the data set that is written)
    """

    def __init__(self, folder: Path, names: Iterable[str], without: Iterable[Path | None] = ()) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise MissingFileError(f"folder of images {self.folder} does not exist; give it with --images")
        self._without = [path.resolve() for path in without if path is not None]
        self._files: dict[Any, list[Path]] | None = None
        self._named: dict[str, set[str]] = defaultdict(set)  # base name -> names
        for name in names:
            for base in self._bases(name):
                self._named[_spelt(base)].add(name)

    def find(self, name: str) -> Path:
        """The path of ``name``: relative to the folder, else the one file below it that it can only mean. Errors name both.

        The folder part may be that of another machine. A file with the same name in a folder that the annotation file contradicts, or
        that another entry may mean, is not taken.
        """
        direct = inside(self.folder, name) or inside(self.folder, _posix(name))
        if direct is not None and direct.is_file():
            return direct
        for base in self._bases(name):
            found = [path for path in self._of_name(base) if not self._contradicts(name, path)]
            if len(found) > 1:
                raise InputError(f"{name} is ambiguous below {self.folder}: {found[0]} and {found[1]}; keep one of them")
            others = self._named[_spelt(base)] - {name}
            if found and others:
                raise InputError(f"{name} is not below {self.folder}, and {found[0]} may as well be {min(others)}; copy it there")
            if found:
                return found[0]
        raise MissingFileError(f"image {name} is not below {self.folder}; copy it there, or give another folder with --images")

    @staticmethod
    def _bases(name: str) -> dict[str, None]:
        base = PurePosixPath(_posix(name)).name
        return dict.fromkeys((base, UPLOAD_PREFIX.sub("", base)))

    def _contradicts(self, name: str, path: Path) -> bool:
        """Whether ``name`` has folders and ``path`` lies in others."""
        named = PurePosixPath(_posix(name)).parts[:-1]
        own = [n for n, part in enumerate(named) if part in TOOL_FOLDERS or part.isdigit()]
        named = named[own[-1] + 1 :] if own else named
        lies = path.relative_to(self.folder).parts[:-1]
        return any(spelling(a) != spelling(b) for a, b in zip(reversed(named), reversed(lies), strict=False))

    def _of_name(self, base: str) -> list[Path]:
        """Files called ``base``; for a name without a suffix, or of a format that cannot be read, those with its stem."""
        if self._files is None:
            self._files = defaultdict(list)
            for path in files_below(self.folder):
                if path.suffix.lower() in IMAGE_SUFFIXES and not any(path.resolve().is_relative_to(other) for other in self._without):
                    self._files[_spelt(path.name)].append(path)
                    self._files[spelling(path.stem), "stem"].append(path)
        name = PurePosixPath(_spelt(base))
        if name.suffix in IMAGE_SUFFIXES:
            return self._files[name.name]
        return self._files[name.name, "stem"] or (self._files[name.stem, "stem"] if name.suffix in CONVERTED else [])


def _posix(name: str) -> str:
    """A tool's name with the separators of this system: Windows paths, URLs of Label Studio's local files, quoted characters."""
    if "://" in name and "?d=" not in name:
        name = urlsplit(name).path  # without what a server wants to know
    path = unquote(name.rpartition("?d=")[2])
    return PureWindowsPath(path).as_posix() if "\\" in path else path


def _spelt(base: str) -> str:
    """A file name for comparisons; two endings have two spellings."""
    name = spelling(base)
    return re.sub(r"\.(jpe?g|tiff?)$", lambda found: ".jpg" if found[0][1] == "j" else ".tif", name)
