"""A COCO keypoint file, checked: as COCO itself, CVAT, Label Studio and others write it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.left_right import flip_permutation
from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import fitting, read_json, spelling

Id = int | float | str | None  # compared as text: tools write 1, 1.0 and "1"
Number = float | None


@dataclass
class CocoImage:
    """An entry of ``images``."""

    id: Id
    file_name: str
    width: Number = None
    height: Number = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height), None where the file does not say it."""
        known = self.width and self.height and np.isfinite([self.width, self.height]).all()
        return (int(self.width), int(self.height)) if known else None  # type: ignore[arg-type]


@dataclass
class CocoAnnotation:
    """An entry of ``annotations``."""

    id: Id = None
    image_id: Id = None
    category_id: Id = None
    keypoints: list[Number] | None = None
    bbox: list[Number] | None = None
    iscrowd: bool | float | None = None
    segmentation: Any = None

    def __post_init__(self) -> None:
        numbers = self.keypoints or []
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False)
        if None in numbers and len(numbers) % 3 == 0:  # tools write null for what is not labelled
            self.keypoints = [value for triple in triples for value in ((0, 0, 0) if None in triple else triple)]

    @property
    def marks(self) -> list[Any]:
        """V of every keypoint: 0 not labelled, 1 hidden, 2 visible."""
        return (self.keypoints or [])[2::3]

    @property
    def box(self) -> list[float] | None:
        """``bbox`` if it is x, y, width and height of an upright box; null, rotated and broken ones are none."""
        known = self.bbox and len(self.bbox) == 4 and None not in self.bbox and np.isfinite(self.bbox).all()  # type: ignore[arg-type]
        return self.bbox if known else None  # type: ignore[return-value]

    def problem(self, count: int) -> str | None:
        """What is wrong with an object of ``count`` keypoints, or None."""
        numbers = self.keypoints or []
        if len(numbers) != 3 * count:
            return f"has {len(numbers)} numbers for {count} keypoints, expected x, y, v of each"
        if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > 1e7:  # type: ignore[arg-type]
            return "has keypoints that are no finite pixels"
        return None


@dataclass
class CocoCategory:
    """An entry of ``categories``."""

    id: Id
    name: str
    keypoints: list[str | int | float] | None = None
    flip_pairs: list[tuple[int | str, int | str]] | None = None

    def spec(self, where: Path, pairs: tuple = ()) -> KeypointSpec:
        """:class:`KeypointSpec`: its names, pairs from ``pairs``, from the file (``flip_pairs``), from names."""
        names = tuple(str(name) for name in self.keypoints or ())
        double = [name for name, count in Counter(names).items() if count > 1]
        if double:
            text = f"category {self.name!r} names {', '.join(sorted(double))} twice; give every keypoint its own name"
            raise FileFormatError(f"{where}: {text}")
        return KeypointSpec(names, flip_permutation(names, tuple(pairs) or tuple(self.flip_pairs or ())))


@dataclass
class CocoFile:
    """The parts of a COCO file that are read; ``info`` says which tool wrote it."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
    info: Any = field(default_factory=dict)

    @property
    def by_label_studio(self) -> bool:
        """Whether Label Studio wrote it, which has rules of its own."""
        return isinstance(self.info, dict) and "label studio" in str(self.info.get("contributor", "")).lower().replace("-", " ")


def read_coco(path: Path) -> CocoFile:
    """The parsed file; raises :class:`FileFormatError` unless it has images, annotations and categories as COCO describes them."""
    content = read_json(path)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or key not in content]
    if missing:
        raise FileFormatError(f"{path} has no {', '.join(missing)}: not a COCO keypoint file; export as 'COCO Keypoints'")
    return fitting(content, CocoFile, path)


def key(value: Id) -> str:
    """An id as text; numbers that are equal have the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def doubled(values: Iterable[Any]) -> set:
    """What occurs more than once."""
    return {value for value, count in Counter(values).items() if count > 1}


def chosen_categories(content: CocoFile, path: Path, wanted: tuple[str, ...]) -> list[CocoCategory]:
    """The categories with keypoints, all or the ``wanted`` names; :class:`InputError` for unknown names and for two of one id or name."""
    named = [category for category in content.categories if category.keypoints]
    if not named:
        raise InputError(f"{path}: no category has keypoint names; export as 'COCO Keypoints' (skeletons in CVAT)")
    unknown = [name for name in wanted if name not in {category.name for category in named}]
    if unknown:
        raise InputError(f"unknown category {unknown[0]!r}: choose one of {', '.join(sorted(c.name for c in named))}")
    chosen = [category for category in named if not wanted or category.name in wanted]
    for name in sorted(doubled(spelling(category.name.strip()) for category in chosen)):
        ids = [key(category.id) for category in chosen if spelling(category.name.strip()) == name]
        raise InputError(f"{path}: the categories {' and '.join(ids)} are both called {name!r}; give every category its own name")
    for number in sorted(doubled(key(category.id) for category in content.categories)):
        names = [repr(category.name) for category in content.categories if key(category.id) == number]
        if any(key(category.id) == number for category in chosen):
            raise InputError(f"{path}: category id {number} belongs to {' and '.join(names)}; give every category its own id")
    return chosen
