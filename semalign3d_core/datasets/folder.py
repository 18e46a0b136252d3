"""Any data set folder in SPair-71k's layout."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.records import Dataset, ImageRecord, KeypointSpec, PairRecord, category_of, check_categories
from semalign3d_core.datasets.tables import GEOMETRY_GROUPS, SPAIR_CATEGORIES, SPAIR_LABELS, flip_permutation
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import fitting, is_name, read_json, read_text, shown, visible
from semalign3d_core.runtime.limits import check_picture

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class FolderDataset(Dataset):
    """A data set folder (``JPEGImages``, ``ImageAnnotation``, ``PairAnnotation``, ``Layout`` and optional sidecars).

    ``keypoints.json`` gives every category's keypoint ``names`` and ``flip_permutation`` (and, if wanted, ``groups`` of labels that
    look alike). Without it, categories named as in SPair-71k have that data set's 30 labels and its published tables.
    """

    threshold_kind = "bbox"
    has_mirror_table = True
    remedy = ""  # what to do about a missing file, for data sets that can be downloaded

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not (self.root / "ImageAnnotation").is_dir():
            raise self._missing(self.root / "ImageAnnotation", f"{self.root} is not a data set folder in SPair-71k's layout")
        self._records: dict[tuple[str, str], ImageRecord] = {}

    def categories(self) -> list[str]:
        """Names of all annotated categories, sorted."""
        return list(self._categories)

    @cached_property
    def _categories(self) -> list[str]:
        return [p.name for p in visible((self.root / "ImageAnnotation").iterdir()) if p.is_dir()]

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """The :class:`KeypointSpec` of a category, from ``keypoints.json`` or SPair-71k's tables."""
        check_categories([category], self.categories(), self.root)
        path = self.root / "keypoints.json"
        if self._keypoints is None and category in SPAIR_CATEGORIES:
            return spair_keypoint_spec(category)
        if self._keypoints is None or category not in self._keypoints:
            raise MissingFileError(f"{path} does not give the keypoints of {category!r}; write {{category: {{names, flip_permutation}}}}")
        try:
            names, flip = (tuple(self._keypoints[category][key]) for key in ("names", "flip_permutation"))
            if not all(isinstance(name, str) for name in names) or not all(isinstance(index, int) for index in flip):
                raise TypeError("names must be texts, flip_permutation whole numbers")
        except (KeyError, TypeError) as error:
            problem = f"{type(error).__name__} {error}"
            raise FileFormatError(f"{path}: {category} needs the lists names and flip_permutation ({problem})") from error
        if sorted(flip) != list(range(len(names))) or any(flip[flip[k]] != k for k in range(len(names))):
            raise FileFormatError(f"{path}: flip_permutation of {category} must pair its {len(names)} labels, found {list(flip)}")
        return KeypointSpec(names, flip)

    def geometry_groups(self, category: str) -> Sequence[Sequence[int]]:
        """Groups of labels that look alike: published ones for SPair-71k, ``groups`` of ``keypoints.json``, else its mirror pairs."""
        flip = self.keypoint_spec(category).flip_permutation
        if self._keypoints is None:
            return GEOMETRY_GROUPS[category]
        groups = self._keypoints[category].get("groups", [[k, flip[k]] for k in range(len(flip)) if k < flip[k]])
        groups = fitting(groups, list[list[Any]], f"{self.root / 'keypoints.json'}: groups of {category}")
        if any(not isinstance(label, int) or not 0 <= label < len(flip) for group in groups for label in group):
            raise FileFormatError(f"{self.root / 'keypoints.json'}: groups of {category} name labels beyond its {len(flip)} keypoints")
        return tuple(tuple(group) for group in groups)

    def image(self, category: str, name: str) -> ImageRecord:
        """The :class:`ImageRecord` of one image."""
        key = category, name
        if key not in self._records:
            self._records[key] = self._read_image(category, name)
        return self._records[key]

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All images of a category that the pairs of ``split`` (trn, val, test) use; all annotated ones without a split. Sorted."""
        check_categories([category], self.categories(), self.root)
        if split is None:
            names = {p.stem for p in visible((self.root / "ImageAnnotation" / category).glob("*.json"))}
        else:
            pairs = [pair for pair in self.pair_names(split) if category_of(pair) == category]
            names = {name for pair in pairs for name in self._image_names(split, pair)}
        return [self.image(category, name) for name in sorted(names)]

    def splits(self) -> list[str]:
        """Splits that ``Layout/large`` lists, sorted."""
        return [p.stem for p in visible((self.root / "Layout" / "large").glob("*.txt"))]

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """Names of all pairs of a split, in the order of ``Layout/<layout>/<split>.txt``."""
        path = self.root / "Layout" / layout / f"{split}.txt"
        if not path.is_file():
            known = "splits are trn, val and test, layouts large and small; semalign3d import --split writes them for your own pictures"
            raise self._missing(path, known)
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        for category in sorted({category_of(name) for name in names} - set(self.categories())):
            raise self._missing(self.root / "ImageAnnotation" / category, f"{path} lists pairs of {category!r}")
        return names

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """One :class:`PairRecord` from ``PairAnnotation/<split>/<name>.json``."""
        path = self._pair_path(split, name)
        if not path.is_file():
            raise self._missing(path, f"pair {name} of split {split} has no annotation")
        content, category = read_json(path), category or category_of(name)
        try:
            source, target = (Path(content[key].replace("\\", "/")).stem for key in ("src_imname", "trg_imname"))
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"{type(error).__name__} {error}"
            raise FileFormatError(f"{path}: {problem}; expected src_imname and trg_imname as SPair-71k has them") from error
        try:
            return PairRecord(name, self.image(category, source), self.image(category, target), content)
        except MissingFileError as error:
            raise MissingFileError(f"{path} names an image that is missing: {error}") from error

    @cached_property
    def _keypoints(self) -> dict[str, Any] | None:
        """The content of ``keypoints.json``, None where it is absent."""
        path = self.root / "keypoints.json"
        if not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, dict):
            raise FileFormatError(f"{path} must be an object of categories, found {type(content).__name__}")
        return content

    def _pair_path(self, split: str, name: str) -> Path:
        if not is_name(name):
            raise InputError(f"{self.root}: {shown(name)!r} is no name of a pair; names have no folders")
        return self.root / "PairAnnotation" / split / f"{name}.json"

    def _image_names(self, split: str, pair: str) -> Sequence[str]:
        """Source and target of a pair, from its name ``<number>-<source>-<target>:<category>`` if that is unambiguous."""
        parts = pair.rpartition(":")[0].split("-")
        if len(parts) == 3:
            return parts[1:]
        record = self.pair(split, pair)
        return record.source.name, record.target.name

    def _missing(self, path: Path, reason: str) -> MissingFileError:
        """The error for a file or folder that is not there; ``remedy`` says how to get it."""
        return MissingFileError(f"{path} does not exist: {reason}{'; ' + self.remedy if self.remedy else ''}")

    def _read_image(self, category: str, name: str) -> ImageRecord:
        if not is_name(name):
            raise InputError(f"{self.root}: {shown(name)!r} is no name of an image; names have no folders")
        path = self.root / "ImageAnnotation" / category / f"{name}.json"
        if not path.is_file():
            raise self._missing(path, f"image {name} of {category} is not annotated")
        content, count = read_json(path), len(self.keypoint_spec(category).names)
        try:
            keypoints = _keypoint_array(content["kps"], count)
            width, height = int(content["image_width"]), int(content["image_height"])
            check_picture(width, height, path)
            if min(width, height) < 1:
                raise ValueError(f"a picture of {width} x {height} pixels")
            box = content.get("bndbox")
            with np.errstate(over="ignore"):
                box = None if box is None else np.asarray(box, dtype=np.float32).reshape(4)
            if box is not None and not np.isfinite(box).all():
                raise ValueError(f"bndbox is {shown(content['bndbox'])}, expected four finite numbers")
        except FileFormatError:
            raise
        except (KeyError, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
            problem = f"{type(error).__name__} {shown(error)}"
            raise FileFormatError(f"{path}: {problem}; expected kps, bndbox, image_width, image_height as SPair-71k has them") from error
        path = self._image_path(category, name, content)
        return ImageRecord(category, name, path, height, width, keypoints, box, content, self.remedy)

    def _image_path(self, category: str, name: str, content: dict[str, Any]) -> Path:
        folder = self.root / "JPEGImages" / category
        own = content.get("filename")
        candidates = [own] if isinstance(own, str) and own and is_name(own) else []  # never a file of another folder
        candidates += [name + suffix for suffix in IMAGE_SUFFIXES]
        return next((folder / c for c in candidates if (folder / c).is_file()), folder / candidates[0])


def spair_keypoint_spec(category: str) -> KeypointSpec:
    """The 30 raw labels of SPair-71k, which publishes no names; unused ones stay without annotation."""
    return KeypointSpec.unnamed(SPAIR_LABELS, flip_permutation(category, SPAIR_LABELS))


def _keypoint_array(positions: dict[str, Any], count: int) -> np.ndarray:
    """(count, 2) float32, NaN where the annotation is null."""
    keypoints = np.full((count, 2), np.nan, dtype=np.float32)
    for label, position in positions.items():
        if position is None:
            continue
        if not 0 <= int(label) < count:
            raise IndexError(f"keypoint {label!r} of {count} labels")
        with np.errstate(over="ignore"):
            keypoints[int(label)] = np.asarray(position, dtype=np.float32).reshape(-1)[:2]
        if not np.isfinite(keypoints[int(label)]).all() or len(position) < 2:
            raise ValueError(f"keypoint {label!r} is at {position!r}, expected [x, y] or null")
    return keypoints
