"""Freiburg Static Cars 52 (Sedaghat and Brox, 2015): cars filmed from all sides, with boxes and azimuths; for training only.

Layout: one folder of images per car, whose name ends in the car's two digits, anywhere below the data set's folder, and
``<digits>_annot.txt`` files with lines ``name x1 y1 x2 y2 azimuth``. Masks are not part of it: segment the images and write
``Segmentation/car/<folder>/<image>.png``, or use a mask source that finds cars (``instances``).
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from semalign3d_core.datasets.records import Dataset, ImageRecord, KeypointSpec, PairRecord, check_categories
from semalign3d_core.datasets.tabular import image_size
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import files_below, read_text

CATEGORY = "car"
IMAGE_SUFFIXES = (".jpg", ".png")
_REMEDY = "get freiburg_static_cars_52_v1.1.tar.gz from https://lmb.informatik.uni-freiburg.de and extract it completely"


class FreiburgCarsDataset(Dataset):
    """The cars as one category without keypoints and pairs; images that the annotation files do not name are left out."""

    threshold_kind = "bbox"

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._files = {path.name[:-10][-2:]: path for path in files_below(self.root) if path.name.endswith("_annot.txt")}
        if not self._files:
            raise MissingFileError(f"{self.root} holds no file <car>_annot.txt: the download is not complete; {_REMEDY}")

    def categories(self) -> list[str]:
        """One: ``car``."""
        return [CATEGORY]

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """No keypoints."""
        check_categories([category], self.categories(), self.root)
        return KeypointSpec((), ())

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All annotated images, sorted; names are ``<folder>/<image>``, ``attributes["azimuth_deg"]`` says from where the car is seen."""
        check_categories([category], self.categories(), self.root)
        if split is not None:
            raise InputError(f"Freiburg cars have no split {split!r}: all images are used")
        return self._records

    def splits(self) -> list[str]:
        """None: there are no pairs."""
        return []

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """None are published, which is an error."""
        raise InputError(f"{self.root} has no pair {name!r}: Freiburg cars come without pairs")

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """There are none."""
        raise InputError(f"{self.root}: Freiburg cars have no pairs of images to score; they are for training")

    @cached_property
    def _records(self) -> list[ImageRecord]:
        skipped = self.root / "Segmentation"
        images = (p for p in files_below(self.root) if p.suffix in IMAGE_SUFFIXES and skipped not in p.parents)
        found = [(path, self._lines.get((path.parent.name[-2:], path.stem))) for path in sorted(images)]
        return [self._record(path, line) for path, line in found if line is not None]

    @cached_property
    def _lines(self) -> dict[tuple[str, str], list[float]]:
        """{(digits of the car, image): numbers of its line}."""
        lines: dict[tuple[str, str], list[float]] = {}
        for car, path in self._files.items():
            for number, line in enumerate(read_text(path).splitlines(), start=1):
                parts = line.split()
                try:
                    lines |= {(car, Path(parts[0]).stem): [float(value) for value in parts[1:6]]} if parts else {}
                except ValueError as error:
                    raise FileFormatError(f"{path}, line {number}: {error}; expected name x1 y1 x2 y2 azimuth") from None
        short = next((key for key, values in lines.items() if len(values) != 5), None)
        if short:
            raise FileFormatError(f"{self._files[short[0]]}: the line of {short[1]} is too short; expected name x1 y1 x2 y2 azimuth")
        return lines

    def _record(self, path: Path, line: list[float]) -> ImageRecord:
        name, attributes = f"{path.parent.name}/{path.stem}", {"azimuth_deg": line[4]}
        box = np.array(line[:4], dtype=np.float32)
        return ImageRecord(CATEGORY, name, path, *image_size(path), np.zeros((0, 2), np.float32), box, attributes, _REMEDY)
