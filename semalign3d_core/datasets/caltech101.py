"""Caltech-101 (Fei-Fei et al., 2004) with the 1,515 pairs of SCNet and WeakAlign: object outlines, no keypoints."""

from pathlib import Path

import numpy as np

from semalign3d_core.datasets import tabular
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, category_of
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError
from semalign3d_core.runtime.files import visible

PAIR_LIST = "test_pairs_caltech_with_category.csv"
# folders of Annotations that are called otherwise than their images
_ANNOTATION_FOLDERS = {"airplanes": "Airplanes_Side_2", "Faces": "Faces_2", "Faces_easy": "Faces_3", "Motorbikes": "Motorbikes_16"}
_IMAGES = "get Caltech 101 from https://doi.org/10.22002/D1.20086 and extract 101_ObjectCategories and Annotations completely"
_PAIRS = f"get {PAIR_LIST} from https://www.di.ens.fr/willow/research/cnngeometric/other_resources/"


class Caltech101Dataset(tabular.OneListDataset):
    """Caltech-101: ``101_ObjectCategories/<category>/image_*.jpg``, ``Annotations/<category>/annotation_*.mat`` and the pair list.

    Pairs carry the outlines of the list, images those of the .mat files: ``attributes["outline"]`` (n, 2) pixels;
    :meth:`mask` fills them. Score transferred masks with ``metrics.mask_transfer``.
    """

    published_name = "Caltech-101"
    threshold_kind = "image"
    annotation = "masks"
    columns, list_remedy = 7, _PAIRS

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.list_path = self.root / PAIR_LIST
        if not (self.root / "101_ObjectCategories").is_dir():
            raise MissingFileError(f"{self.root / '101_ObjectCategories'} does not exist: the download is not complete; {_IMAGES}")

    def categories(self) -> list[str]:
        """Image folders, sorted, without the clutter that ``BACKGROUND_Google`` holds."""
        folders = (p.name for p in visible((self.root / "101_ObjectCategories").iterdir()) if p.is_dir())
        return sorted(name for name in folders if name != "BACKGROUND_Google" and not name.startswith("."))

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """No keypoints."""
        self.check_category(category)
        return KeypointSpec((), ())

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """All images of a category with the outlines of their .mat files, or those the pair list uses with its outlines; sorted."""
        if split is not None:
            return self.listed_images(category, split)
        self.check_category(category)
        return [self._annotated(category, path) for path in visible((self.root / "101_ObjectCategories" / category).glob("*.jpg"))]

    def sides(self, split: str, name: str, row: list[str]) -> list[ImageRecord]:
        """Source and target of a row of the list."""
        where = f"{self.list_path}, pair {name}"
        xa, ya, xb, yb = (tabular.numbers(entry, ",", where) for entry in row[3:7])
        return [
            self._record(category_of(name), tabular.find_image(self.root, listed, _IMAGES), tabular.points(x, y, len(x), where))
            for listed, x, y in ((row[0], xa, ya), (row[1], xb, yb))
        ]

    def mask(self, record: ImageRecord) -> np.ndarray:
        """(h, w) bool: the filled outline of a record."""
        return fill_outline(record.attributes["outline"], record.height, record.width)

    def _annotated(self, category: str, path: Path) -> ImageRecord:
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

    def _record(self, category: str, path: Path, outline: np.ndarray, box: np.ndarray | None = None) -> ImageRecord:
        if box is None:
            box = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
        keypoints = np.zeros((0, 2), dtype=np.float32)
        height, width = tabular.image_size(path)
        return ImageRecord(category, path.stem, path, height, width, keypoints, box, {"outline": outline}, _IMAGES)


def fill_outline(outline: np.ndarray, height: int, width: int) -> np.ndarray:
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
