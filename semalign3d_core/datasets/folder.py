"""Any data set folder in SPair-71k's layout."""

from pathlib import Path

import numpy as np

from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, PairRecord
from semalign3d_core.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.files import read_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class FolderDataset:
    """A data set folder (``JPEGImages``, ``ImageAnnotation``, ``PairAnnotation``, ``Layout`` and optional sidecars).

    ``keypoints.json`` gives every category's keypoint names and flip permutation.
    """

    def __init__(self, root):
        self.root = Path(root)
        if not (self.root / "ImageAnnotation").is_dir():
            raise MissingFileError(f"{self.root / 'ImageAnnotation'} does not exist: {self.root} is not a data set folder in SPair-71k's layout")
        self._records = {}

    def categories(self):
        """Names of all annotated categories, sorted."""
        return sorted(p.name for p in (self.root / "ImageAnnotation").iterdir() if p.is_dir())

    def keypoint_spec(self, category):
        """The :class:`KeypointSpec` of a category, from ``keypoints.json``."""
        path = self.root / "keypoints.json"
        specs = read_json(path)
        if category not in specs:
            raise InputError(f"{path} has no category {category!r}: it has {', '.join(sorted(specs))}")
        names, flip = tuple(specs[category]["names"]), tuple(specs[category]["flip_permutation"])
        if sorted(flip) != list(range(len(names))) or any(flip[flip[k]] != k for k in range(len(names))):
            raise FileFormatError(f"{path}: flip_permutation of {category} must pair its {len(names)} labels, found {list(flip)}")
        return KeypointSpec(names, flip)

    def image(self, category, name):
        """The :class:`ImageRecord` of one image."""
        key = category, name
        if key not in self._records:
            self._records[key] = self._read_image(category, name)
        return self._records[key]

    def images(self, category, split=None):
        """All images of a category that the pairs of ``split`` (trn, val, test) use; all annotated ones without a split. Sorted."""
        if split is None:
            folder = self.root / "ImageAnnotation" / category
            if not folder.is_dir():
                raise InputError(f"{folder} does not exist: categories are {', '.join(self.categories())}")
            names = {p.stem for p in folder.glob("*.json")}
        else:
            names = set()
            for pair in self.pair_names(split):
                stem, _, pair_category = pair.partition(":")
                if pair_category == category:
                    names.update(stem.split("-")[1:3])
        return [self.image(category, name) for name in sorted(names)]

    def pair_names(self, split, layout="large"):
        """Names of all pairs of a split, in the order of ``Layout/<layout>/<split>.txt``."""
        path = self.root / "Layout" / layout / f"{split}.txt"
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist: splits are trn, val and test, layouts large and small")
        return path.read_text().split()

    def pairs(self, split, layout="large", categories=None):
        """Yields the :class:`PairRecord` of a split, optionally of some categories only."""
        for name in self.pair_names(split, layout):
            category = name.partition(":")[2]
            if categories is None or category in categories:
                yield self.pair(split, name, category)

    def pair(self, split, name, category):
        """One :class:`PairRecord` from ``PairAnnotation/<split>/<name>.json``."""
        content = read_json(self.root / "PairAnnotation" / split / f"{name}.json")
        source, target = Path(content["src_imname"]).stem, Path(content["trg_imname"]).stem
        return PairRecord(name, self.image(category, source), self.image(category, target), content)

    def _read_image(self, category, name):
        path = self.root / "ImageAnnotation" / category / f"{name}.json"
        content = read_json(path)
        count = self._keypoint_count(category)
        keypoints = np.full((count, 2), np.nan, dtype=np.float32)
        try:
            for label, position in content["kps"].items():
                if position is not None:
                    keypoints[int(label)] = position
            width, height = int(content["image_width"]), int(content["image_height"])
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path}: {type(error).__name__} {error}; expected kps, image_width, image_height as SPair-71k has them") from error
        box = content.get("bndbox")
        box = None if box is None else np.asarray(box, dtype=np.float32)
        return ImageRecord(category, name, self._image_path(category, name), height, width, keypoints, box, content)

    def _keypoint_count(self, category):
        return len(self.keypoint_spec(category).names)

    def _image_path(self, category, name):
        folder = self.root / "JPEGImages" / category
        for suffix in IMAGE_SUFFIXES:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
        return folder / (name + IMAGE_SUFFIXES[0])
