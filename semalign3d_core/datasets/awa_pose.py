"""AwA-Pose (Banik et al., 2021): 39 keypoints of 35 kinds of four-legged animals, for matching across kinds that training has not seen.

Protocol: Aygun and Mac Aodha, "Demystifying Unsupervised Semantic Correspondence Estimation" (ECCV 2022): the first annotator, the first
10 000 pairs of a fixed list, thresholds relative to the longer side of the target's box.
"""

import pickle
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.left_right import flip_permutation
from semalign3d_core.datasets.records import Dataset, ImageRecord, KeypointSpec, PairRecord, check_categories
from semalign3d_core.datasets.tabular import image_size
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

PAIRS = 10_000
ALL = "all"  # what pairs are scored under, since most of them are of two kinds of animals
_NAMES = """
    nose upper_jaw lower_jaw mouth_end_right mouth_end_left right_eye right_earbase right_earend right_antler_base right_antler_end
    left_eye left_earbase left_earend left_antler_base left_antler_end neck_base neck_end throat_base throat_end back_base back_end
    back_middle tail_base tail_end front_left_thai front_left_knee front_left_paw front_right_thai front_right_paw front_right_knee
    back_left_knee back_left_paw back_left_thai back_right_thai back_right_paw back_right_knee belly_bottom body_middle_right
    body_middle_left
"""
PARTS = tuple(_NAMES.split())
FLIP = flip_permutation(PARTS)
_IMAGES = "get AwA2-data.zip from https://cvml.ist.ac.at/AwA2 and move its JPEGImages there"
_ANNOTATIONS = "get the folder Annotations from https://github.com/prinik/AwA-Pose"
_LIST = "get pairs/awa/random_pairs.txt from https://github.com/MehmetAygun/demistfy_correspondence"


class AwaPoseDataset(Dataset):
    """AwA-Pose: ``Annotations/<animal>/<image>.pickle``, ``JPEGImages/<animal>/<image>.jpg`` and the list ``random_pairs.txt``.

    Categories are the animals that are annotated, and ``all``, which the pairs are scored under. A keypoint is visible where neither of
    its coordinates is -1 (the published code looks at x of the source and y of the target alone). 29 images have no box: their pairs as
    targets are left out (the published code counts them as wrong).
    """

    threshold_kind = "bbox"
    has_mirror_table = True

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        for name, remedy in (("Annotations", _ANNOTATIONS), ("JPEGImages", _IMAGES), ("random_pairs.txt", _LIST)):
            if not (self.root / name).exists():
                raise MissingFileError(f"{self.root / name} does not exist: AwA-Pose is not complete; {remedy}")
        self._records: dict[str, ImageRecord] = {}

    def categories(self) -> list[str]:
        """The animals, sorted, then ``all``."""
        return [*self._animals, ALL]

    @cached_property
    def _animals(self) -> list[str]:
        return sorted(p.name for p in (self.root / "Annotations").iterdir() if next(p.glob(f"{p.name}_*.pickle"), None))

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """The 39 keypoints that all animals share."""
        check_categories([category], self.categories(), self.root)
        return KeypointSpec(PARTS, FLIP)

    def geometry_groups(self, category: str) -> Sequence[Sequence[int]]:
        """Pairs of keypoints that the mirror image exchanges."""
        return tuple((k, other) for k, other in enumerate(self.keypoint_spec(category).flip_permutation) if k < other)

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All annotated images of an animal (of ``all``), or those that the pairs use; sorted by name."""
        check_categories([category], self.categories(), self.root)
        if split is None:
            paths = (self.root / "Annotations").glob("*/*_*.pickle")
            found = {f"{path.parent.name}/{path.stem}" for path in paths}
        else:
            found = {place for name in self.pair_names(split) for place in self._ends[name]}
        return [self._image(place) for place in sorted(found) if category in (ALL, place.partition("/")[0])]

    def splits(self) -> list[str]:
        """The only one, ``test``."""
        return ["test"]

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """Names ``<line>-<source>-<target>:all`` in the order of the list. There is one layout only."""
        if split != "test" or layout != "large":
            raise InputError(f"AwA-Pose has no split {split!r} of layout {layout!r}: the only ones are test and large")
        return list(self._ends)

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """One :class:`PairRecord` by its name."""
        if name not in self._ends:
            raise InputError(f"AwA-Pose has no pair {name!r} in split {split}")
        source, target = self._ends[name]
        return PairRecord(name, self._image(source), self._image(target))

    @cached_property
    def _ends(self) -> dict[str, tuple[str, str]]:
        """{pair name: (source, target)} as <animal>/<image>, of the first pairs of the list whose target has a box."""
        path, found = self.root / "random_pairs.txt", {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:PAIRS], start=1):
            ends = [str(Path(entry).with_suffix("")) for entry in line.split()]
            if len(ends) != 2 or any(end.count("/") != 1 for end in ends):
                raise FileFormatError(f"{path}, line {number}: {line!r}, expected <animal>/<image> twice; {_LIST}")
            if self._image(ends[1]).box is not None:
                source, target = ends
                found[f"{number}-{Path(source).name}-{Path(target).name}:{ALL}"] = (source, target)
        return found

    def _image(self, place: str) -> ImageRecord:
        """The :class:`ImageRecord` of <animal>/<image>."""
        if place not in self._records:
            parts = _first_annotator(self.root / "Annotations" / f"{place}.pickle")
            animal, _, name = place.partition("/")
            path = self.root / "JPEGImages" / animal / f"{name}.jpg"
            points = np.array([parts.get(part, (-1, -1))[:2] for part in PARTS], np.float32)
            points[(points == -1).any(1)] = np.nan
            box = None if parts.get("bbox") is None else np.array(parts["bbox"], np.float32)
            self._records[place] = ImageRecord(animal, name, path, *image_size(path), points, box, remedy=_IMAGES)
        return self._records[place]


class _PlainData(pickle.Unpickler):
    """Reads dictionaries, lists, strings and numbers; a pickle that asks for anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _first_annotator(path: Path) -> dict[str, Any]:
    """{part: [x, y], "bbox": [x1, y1, x2, y2]} of the first annotator of an image."""
    try:
        with open(path, "rb") as handle:
            found = _PlainData(handle).load()["a1"]
        ok = all(len(value) == (4 if part == "bbox" else 2) for part, value in found.items() if part == "bbox" or part in PARTS)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist: AwA-Pose is not complete; {_ANNOTATIONS}") from None
    except Exception as error:  # what a damaged pickle raises depends on where it is damaged
        raise FileFormatError(f"{path} is not an annotation of AwA-Pose ({error}); {_ANNOTATIONS}") from error
    if not ok:
        raise FileFormatError(f"{path}: a keypoint without x and y, or a box without four numbers; {_ANNOTATIONS}")
    return found
