"""What data sets published as CSV lists and MATLAB files share."""

import csv
from functools import cached_property
from pathlib import Path

import numpy as np

from semalign3d_core.datasets.records import Dataset, ImageRecord, PairRecord, check_categories
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_text, reading
from semalign3d_core.runtime.pictures import open_picture


def read_rows(path: Path, columns: int, remedy: str) -> list[list[str]]:
    """All rows of a CSV file behind its header line, each with at least ``columns`` entries."""
    path = Path(path)
    text = read_text(path, remedy, remedy)
    with reading(path, remedy):
        rows = [row for row in csv.reader(text.splitlines()) if row]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) < columns:
            raise FileFormatError(f"{path}, line {line}: {len(row)} columns, expected at least {columns}; {remedy}")
    return rows[1:]


def numbers(text: str, separator: str, where: str) -> list[float]:
    """A list of floats from one CSV entry, such as ``12.5;30;7``."""
    try:
        found = [float(part) for part in text.split(separator) if part.strip()]
        if not np.isfinite(found).all():
            raise ValueError("a number is not finite")
        return found
    except ValueError as error:
        raise FileFormatError(f"{where}: {error}; expected numbers separated by {separator!r}") from None


def points(xs: list[float], ys: list[float], count: int, where: str) -> np.ndarray:
    """(count, 2) float32 of two equally long lists, NaN behind their end."""
    if len(xs) != len(ys) or len(xs) > count:
        raise FileFormatError(f"{where}: {len(xs)} x and {len(ys)} y coordinates, expected equally many, at most {count}")
    result = np.full((count, 2), np.nan, dtype=np.float32)
    result[: len(xs)] = np.stack([xs, ys], axis=1)
    return result


def read_mat(path: Path, names: list[str], remedy: str) -> list[np.ndarray]:
    """The named variables of a MATLAB file (version 7 or older)."""
    from scipy.io import loadmat

    path = Path(path)
    with reading(path, f"it is not a readable MATLAB file; {remedy}", remedy) as file:
        content = loadmat(file)
    missing = [name for name in names if name not in content]
    if missing:
        raise FileFormatError(f"{path} has no variable {', '.join(missing)}; {remedy}")
    return [content[name] for name in names]


def find_image(root: Path, listed: str, remedy: str) -> Path:
    """The file that a list calls ``listed``: relative to the data set's folder, to the one above, or below any leading folder."""
    parts = Path(listed.strip()).parts
    candidates = [root.parent.joinpath(*parts), *(root.joinpath(*parts[i:]) for i in range(len(parts)))]
    found = next((c for c in candidates if c.is_file()), None)
    if found is None:
        raise MissingFileError(f"image {listed} of the pair list is not in {root}; {remedy}")
    return found


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from an image file's header."""
    with open_picture(path) as picture:
        return picture.height, picture.width


def pair_name(number: int, source: str, target: str, category: str) -> str:
    """The name of a pair in the style of SPair-71k; ``number`` counts from 1."""
    return f"{number:06d}-{Path(source).stem}-{Path(target).stem}:{category}"


class TabularDataset(Dataset):
    """What the data sets with CSV lists have in common: labels that mean nothing in other pairs, and one layout.

    published_name: what messages call it
    """

    published_name: str = ""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def rows(self, split: str) -> dict[str, list[str]]:
        """{pair name: row} of the list of a split."""
        raise NotImplementedError

    def sides(self, split: str, name: str, row: list[str]) -> list[ImageRecord]:
        """Source and target of a row of the list."""
        raise NotImplementedError

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """Names ``<row>-<source>-<target>:<category>`` of a list's pairs, in its order. There is one layout only."""
        if layout != "large":
            raise InputError(f"{self.published_name} has no layout {layout!r}: its only one is called large")
        return list(self.rows(split))

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """One :class:`PairRecord` by its name."""
        rows = self.rows(split)
        if name not in rows:
            raise InputError(f"{self.published_name} has no pair {name!r} in split {split}")
        source, target = self.sides(split, name, rows[name])
        return PairRecord(name, source, target)

    def check_category(self, category: str) -> None:
        """Raises :class:`InputError` for an unknown category."""
        check_categories([category], self.categories(), self.root)


class OneListDataset(TabularDataset):
    """A data set with one list of pairs, of the split ``test``. Categories are the folders of the images.

    list_path: the list;  columns: how many a row needs;  list_remedy: how to get the list
    """

    list_path: Path
    columns: int
    list_remedy: str

    def splits(self) -> list[str]:
        """The only one, ``test``."""
        return ["test"]

    def rows(self, split: str) -> dict[str, list[str]]:
        """{pair name: row} of the list."""
        if split != "test":
            raise InputError(f"{self.published_name} has no split {split!r}: its only one is test")
        return self._rows

    @cached_property
    def _rows(self) -> dict[str, list[str]]:
        rows = read_rows(self.list_path, self.columns, self.list_remedy)
        return {pair_name(i, r[0], r[1], Path(r[0].strip()).parent.name): r for i, r in enumerate(rows, start=1)}

    def listed_images(self, category: str, split: str) -> list[ImageRecord]:
        """All images of a category that the list names, as it annotates them, sorted by name."""
        records = {record.name: record for pair in self.pairs(split, categories=[category]) for record in (pair.source, pair.target)}
        return [records[name] for name in sorted(records)]
