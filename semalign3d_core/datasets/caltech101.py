"""Caltech-101 (Fei-Fei et al., 2004) with the 1,515 pairs of SCNet and WeakAlign: object outlines, no keypoints."""

from functools import cached_property
from pathlib import Path

import numpy as np

from semalign3d_core.datasets import tabular
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, PairRecord
from semalign3d_core.datasets.selection import category_of, check_categories, selected_pairs
from semalign3d_core.errors import FileFormatError, InputError, MissingFileError

PAIR_LIST = "test_pairs_caltech_with_category.csv"
# folders of Annotations that are called otherwise than their images
_ANNOTATION_FOLDERS = {"airplanes": "Airplanes_Side_2", "Faces": "Faces_2", "Faces_easy": "Faces_3", "Motorbikes": "Motorbikes_16"}
_IMAGES = "get Caltech 101 from https://doi.org/10.22002/D1.20086 and extract 101_ObjectCategories and Annotations completely"
_PAIRS = f"get {PAIR_LIST} from https://www.di.ens.fr/willow/research/cnngeometric/other_resources/"


class Caltech101Dataset:
    """Caltech-101: ``101_ObjectCategories/<category>/image_*.jpg``, ``Annotations/<category>/annotation_*.mat`` and the pair list.

    Pairs carry the outlines of the list, images those of the .mat files: ``attributes["outline"]`` (n, 2) pixels;
    :meth:`mask` fills them. Score transferred masks with ``metrics.mask_transfer``.
    """

    threshold_kind = "image"
    annotation = "masks"

    def __init__(self, root):
        self.root = Path(root)
        if not (self.root / "101_ObjectCategories").is_dir():
            raise MissingFileError(f"{self.root / '101_ObjectCategories'} does not exist: the download is not complete; {_IMAGES}")

    def categories(self):
        """Image folders, sorted, without the clutter that ``BACKGROUND_Google`` holds."""
        folders = (p.name for p in (self.root / "101_ObjectCategories").iterdir() if p.is_dir())
        return sorted(name for name in folders if name != "BACKGROUND_Google" and not name.startswith("."))

    def keypoint_spec(self, category):
        """No keypoints."""
        check_categories([category], self.categories(), self.root)
        return KeypointSpec((), ())

    def geometry_groups(self, category):
        """None are published."""
        return ()

    def images(self, category, split=None):
        """All images of a category with the outlines of their .mat files, or those the pair list uses with its outlines; sorted."""
        check_categories([category], self.categories(), self.root)
        if split is None:
            return [self._annotated(category, path) for path in sorted((self.root / "101_ObjectCategories" / category).glob("*.jpg"))]
        pairs = self.pairs(split, categories=[category])
        records = {record.name: record for pair in pairs for record in (pair.source, pair.target)}
        return [records[name] for name in sorted(records)]

    def splits(self):
        """The only one, ``test``."""
        return ["test"]

    def pair_names(self, split, layout="large"):
        """Names ``<row>-<source>-<target>:<category>`` of the list's pairs, in its order. There is the split test only."""
        tabular.only_large(layout, "Caltech-101")
        if split != "test":
            raise InputError(f"Caltech-101 has no split {split!r}: its only one is test")
        return list(self._rows)

    def pairs(self, split, layout="large", categories=None):
        """The :class:`PairRecord` of a split, optionally of some categories only."""
        return selected_pairs(self, split, layout, categories)

    def pair(self, split, name, category=None):
        """One :class:`PairRecord` by its name."""
        self.pair_names(split)
        if name not in self._rows:
            raise InputError(f"Caltech-101 has no pair {name!r}")
        row, where = self._rows[name], f"{self.root / PAIR_LIST}, pair {name}"
        xa, ya, xb, yb = (tabular.numbers(entry, ",", where) for entry in row[3:7])
        sides = (
            self._record(category_of(name), tabular.find_image(self.root, listed, _IMAGES), tabular.points(x, y, len(x), where))
            for listed, x, y in ((row[0], xa, ya), (row[1], xb, yb))
        )
        return PairRecord(name, *sides)

    def mask(self, record):
        """(h, w) bool: the filled outline of a record."""
        return fill_outline(record.attributes["outline"], record.height, record.width)

    @cached_property
    def _rows(self):
        """{pair name: row} of the pair list."""
        rows = tabular.read_rows(self.root / PAIR_LIST, 7, _PAIRS)
        return {tabular.pair_name(i, r[0], r[1], Path(r[0].strip()).parent.name): r for i, r in enumerate(rows, start=1)}

    def _annotated(self, category, path):
        stem = path.stem.replace("image_", "annotation_") + ".mat"
        folders = [self.root / "Annotations" / name for name in (category, _ANNOTATION_FOLDERS.get(category, category))]
        file = next((f / stem for f in folders if (f / stem).is_file()), folders[-1] / stem)
        box, contour = tabular.read_mat(file, ["box_coord", "obj_contour"], _IMAGES)
        box = np.asarray(box, dtype=np.float32).ravel()
        if box.shape != (4,) or contour.ndim != 2 or contour.shape[0] != 2:
            raise FileFormatError(f"{file}: box_coord {box.shape}, obj_contour {contour.shape}, expected 4 and 2 x n values; {_IMAGES}")
        top, bottom, left, right = box  # the published order; outlines are relative to the box
        outline = contour.T.astype(np.float32) + np.array([left, top], dtype=np.float32)
        return self._record(category, path, outline, np.array([left, top, right, bottom]))

    def _record(self, category, path, outline, box=None):
        if box is None:
            box = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
        keypoints = np.zeros((0, 2), dtype=np.float32)
        return ImageRecord(category, path.stem, path, *tabular.image_size(path), keypoints, box, {"outline": outline})


def fill_outline(outline, height, width):
    """(height, width) bool: pixels whose centres, at integers, lie inside the closed polygon ``outline`` (n, 2), even-odd rule."""
    first = np.asarray(outline, dtype=np.float64)
    second = np.roll(first, -1, axis=0)
    mask = np.zeros((height, width), dtype=bool)
    columns = np.arange(width)
    for row in range(height):
        crossing = (first[:, 1] <= row) != (second[:, 1] <= row)
        a, b = first[crossing], second[crossing]
        x = a[:, 0] + (row - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
        mask[row] = (x[:, None] <= columns).sum(axis=0) % 2 == 1
    return mask
