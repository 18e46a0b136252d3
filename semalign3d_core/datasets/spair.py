"""SPair-71k (Min et al., 2019) and SPair-U, its extension by unseen keypoints (Mariotti et al., 2025)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.records import KeypointSpec, category_of
from semalign3d_core.datasets.tables import SPAIR_CATEGORIES, SPAIR_LABELS
from semalign3d_core.runtime.errors import MissingFileError
from semalign3d_core.runtime.files import read_text, visible


class SpairDataset(FolderDataset):
    """SPair-71k as published: 18 categories, splits trn, val and test, layouts large and small, 30 raw keypoint labels.

    Its keypoints have no published names; mirror images and groups of similar parts come from ``tables.py``.
    """

    remedy = (
        "get https://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz, extract it again completely "
        "(tar -xzf SPair-71k.tar.gz) and give the folder SPair-71k"
    )

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        if not (self.root / "JPEGImages").is_dir():  # pairs and layouts are missed when they are asked for
            raise self._missing(self.root / "JPEGImages", "the download of SPair-71k is not complete")


class SpairUDataset(FolderDataset):
    """SPair-U: new keypoints on the test images of SPair-71k, in its format.

    The published archive holds ``ImageAnnotation`` and ``PairAnnotation`` only. Images and layout are looked for in the folder
    itself and then in ``SPair-71k`` beside it; a pair of the layout without an annotation is not part of the benchmark.
    Labels mean other parts than in SPair-71k, and no mirror table is published: every label maps to itself.
    """

    has_mirror_table = False
    remedy = (
        "get https://groups.inf.ed.ac.uk/hbilen-data/data/JamaisVuData/SPair-U.zip, extract it, "
        "and put (or link) JPEGImages and Layout of SPair-71k into it, or keep both folders side by side"
    )

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._beside = self.root.parent / "SPair-71k"
        if not (self.root / "PairAnnotation").is_dir():
            raise self._missing(self.root / "PairAnnotation", "the download of SPair-U is not complete")
        if not any((folder / "JPEGImages").is_dir() for folder in (self.root, self._beside)):
            raise self._missing(self.root / "JPEGImages", "SPair-U has the images of SPair-71k")

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """30 raw labels, each its own mirror image."""
        super().keypoint_spec(category)
        return KeypointSpec.unnamed(SPAIR_LABELS)

    def geometry_groups(self, category: str) -> Sequence[Sequence[int]]:
        """None are published for the new keypoints."""
        return ()

    def splits(self) -> list[str]:
        """Splits with annotated pairs; published is ``test``."""
        return [p.name for p in visible((self.root / "PairAnnotation").iterdir()) if any(p.glob("[!.]*.json"))]

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """The annotated pairs of a split: in the order of the layout where there is one, else sorted."""
        annotated = {p.stem for p in visible((self.root / "PairAnnotation" / split).glob("*.json"))}
        if not annotated:
            raise self._missing(self.root / "PairAnnotation" / split, "no annotated pairs; SPair-U has the split test")
        for folder in (self.root, self._beside):
            path = folder / "Layout" / layout / f"{split}.txt"
            if path.is_file():
                return [name for name in read_text(path).split() if name in annotated]
        if (self.root / "Layout").is_dir() or layout != "large":
            raise MissingFileError(f"{path} does not exist: layouts are large and small")
        return sorted(annotated, key=lambda name: (category_of(name), name))

    def _image_path(self, category: str, name: str, content: dict[str, Any]) -> Path:
        path = super()._image_path(category, name, content)
        return path if path.is_file() else self._beside / "JPEGImages" / category / path.name


def is_spair(categories: list[str]) -> bool:
    """True if every category is one of SPair-71k's."""
    return bool(categories) and set(categories) <= set(SPAIR_CATEGORIES)
