"""PF-PASCAL (Ham et al., Proposal Flow, 2017) with the pair lists of WeakAlign and SCNet."""

from pathlib import Path

import numpy as np

from semalign3d_core.datasets import tabular
from semalign3d_core.datasets.records import ImageRecord, KeypointSpec, category_of
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import visible

CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LABELS = 20  # most keypoints of any category
_SPLITS = {"trn": ("train", "trn"), "val": ("val",), "test": ("test",)}
_REMEDY = (
    "get https://www.di.ens.fr/willow/research/proposalflow/dataset/PF-dataset-PASCAL.zip and, into its folder, "
    "https://www.di.ens.fr/willow/research/cnngeometric/other_resources/{test,val}_pairs_pf_pascal.csv"
)


class PfPascalDataset(tabular.TabularDataset):
    """PF-PASCAL: ``JPEGImages``, ``Annotations/<category>/<name>.mat`` and one CSV list per split.

    In val and test the list itself gives the keypoints of a pair: number k of the list is label k, so that labels mean different
    parts in different pairs. In trn, and for single images, labels are those of the .mat files. Neither is named, and no mirror
    table is published. PCK is relative to the longest image side, as published with the field's lists.
    """

    published_name = "PF-PASCAL"
    threshold_kind = "image"

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        for name in ("JPEGImages", "Annotations"):
            if not (self.root / name).is_dir():
                raise MissingFileError(f"{self.root / name} does not exist: the download of PF-PASCAL is not complete; {_REMEDY}")
        self._rows: dict[str, dict[str, list[str]]] = {}
        self._records: dict[tuple[str, str], ImageRecord] = {}
        self._sizes: dict[Path, tuple[int, int]] = {}

    def categories(self) -> list[str]:
        """The 20 categories of PASCAL VOC."""
        return list(CATEGORIES)

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """20 labels without names, each its own mirror image; most categories use fewer."""
        self.check_category(category)
        return KeypointSpec.unnamed(LABELS)

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """Images of a category with the keypoints of their .mat files, sorted by name."""
        self.check_category(category)
        if split is None:
            names = {p.stem for p in visible((self.root / "Annotations" / category).glob("*.mat"))}
        else:
            chosen = [row for name, row in self.rows(split).items() if category_of(name) == category]
            names = {Path(row[side]).stem for row in chosen for side in (0, 1)}
        return [self.image(category, name) for name in sorted(names)]

    def image(self, category: str, name: str) -> ImageRecord:
        """The :class:`ImageRecord` of one image as its .mat file annotates it."""
        if (category, name) not in self._records:
            path = self._find(f"JPEGImages/{name}.jpg")
            self._records[category, name] = self._record(category, path, self._annotated(category, name))
        return self._records[category, name]

    def splits(self) -> list[str]:
        """Splits whose list is there."""
        return [split for split in _SPLITS if any(path.is_file() for path in self._list_files(split))]

    def sides(self, split: str, name: str, row: list[str]) -> list[ImageRecord]:
        """Source and target of a row of a list."""
        category, where = category_of(name), f"{self.root}, split {split}, pair {name}"
        keypoints: list[np.ndarray | None] = [None, None]
        if split != "trn":
            xs, ys, target_xs, target_ys = (tabular.numbers(row[c], ";", where) for c in (3, 4, 5, 6))
            keypoints = [tabular.points(xs, ys, LABELS, where), tabular.points(target_xs, target_ys, LABELS, where)]
        paths = [self._find(listed) for listed in row[:2]]
        return [
            self._record(category, path, self._annotated(category, path.stem) if positions is None else positions)
            for path, positions in zip(paths, keypoints, strict=True)
        ]

    def rows(self, split: str) -> dict[str, list[str]]:
        """{pair name: row} of a split's CSV file."""
        if split not in _SPLITS:
            raise InputError(f"PF-PASCAL has no split {split!r}: choose one of {', '.join(_SPLITS)}")
        if split not in self._rows:
            files = self._list_files(split)
            path = next((f for f in files if f.is_file()), files[0])
            rows = tabular.read_rows(path, 3 if split == "trn" else 7, _REMEDY)
            self._rows[split] = {tabular.pair_name(i, r[0], r[1], self._category(r, path)): r for i, r in enumerate(rows, start=1)}
        return self._rows[split]

    def _list_files(self, split: str) -> list[Path]:
        """Under which names the lists are published."""
        return [self.root / f"{name}_pairs{end}.csv" for name in _SPLITS[split] for end in ("_pf_pascal", "")]

    @staticmethod
    def _category(row: list[str], path: Path) -> str:
        if not row[2].strip().isdigit() or not 1 <= int(row[2]) <= len(CATEGORIES):
            raise FileFormatError(f"{path}: class {row[2]!r} of {row[0]}, expected 1 to {len(CATEGORIES)}; {_REMEDY}")
        return CATEGORIES[int(row[2]) - 1]

    def _find(self, listed: str) -> Path:
        return tabular.find_image(self.root, listed, _REMEDY)

    def _annotated(self, category: str, name: str) -> np.ndarray:
        """(20, 2) float32 keypoints of a .mat file, NaN where missing."""
        path = self.root / "Annotations" / category / f"{name}.mat"
        (stored,) = tabular.read_mat(path, ["kps"], _REMEDY)
        if stored.ndim != 2 or stored.shape[1] != 2 or len(stored) > LABELS:
            raise FileFormatError(f"{path}: kps of shape {stored.shape}, expected up to {LABELS} rows of x and y; {_REMEDY}")
        keypoints = np.full((LABELS, 2), np.nan, dtype=np.float32)
        keypoints[: len(stored)] = np.where(np.isnan(stored).any(axis=1, keepdims=True), np.nan, stored)
        return keypoints

    def _record(self, category: str, path: Path, keypoints: np.ndarray) -> ImageRecord:
        if path not in self._sizes:
            self._sizes[path] = tabular.image_size(path)
        height, width = self._sizes[path]
        return ImageRecord(category, path.stem, path, height, width, keypoints, self._box(category, path.stem), remedy=_REMEDY)

    def _box(self, category: str, name: str) -> np.ndarray | None:
        """The object's box where its .mat file gives one."""
        path = self.root / "Annotations" / category / f"{name}.mat"
        if not path.is_file():
            return None
        try:
            (box,) = tabular.read_mat(path, ["bbox"], _REMEDY)
        except FileFormatError:
            return None  # some releases of the annotations have no box; PCK on images does not need it
        return np.asarray(box, dtype=np.float32).reshape(-1)[:4]
