"""Data sets: one folder on disk, one class, one protocol (:class:`~semalign3d_core.datasets.records.Dataset`)."""

from pathlib import Path

from semalign3d_core.datasets.ap10k import Ap10kDataset
from semalign3d_core.datasets.awa_pose import AwaPoseDataset
from semalign3d_core.datasets.caltech101 import Caltech101Dataset
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.freiburg_cars import FreiburgCarsDataset
from semalign3d_core.datasets.pf_pascal import PfPascalDataset
from semalign3d_core.datasets.pf_willow import PfWillowDataset
from semalign3d_core.datasets.records import Dataset
from semalign3d_core.datasets.spair import SpairDataset, SpairUDataset, is_spair
from semalign3d_core.runtime.errors import InputError, MissingFileError, choice
from semalign3d_core.runtime.files import visible
from semalign3d_core.runtime.plugins import Registry

DATASETS = Registry(
    "datasets",
    {
        "folder": FolderDataset,
        "spair": SpairDataset,
        "spair_u": SpairUDataset,
        "ap10k": Ap10kDataset,
        "pf_pascal": PfPascalDataset,
        "pf_willow": PfWillowDataset,
        "caltech101": Caltech101Dataset,
        "freiburg_cars": FreiburgCarsDataset,
        "awa_pose": AwaPoseDataset,
    },
)


def open_dataset(root: str | Path, kind: str | None = None) -> Dataset:
    """The data set in folder ``root``: of a ``kind`` in :data:`DATASETS`, or of the one that its content shows."""
    root = Path(root)
    if kind is not None:
        return choice("data set kind", kind, DATASETS)(root)
    if not root.is_dir():
        raise MissingFileError(f"data set folder {root} does not exist")
    return DATASETS[_kind_of(root)](root)


# kind -> what a folder of that kind holds, even when parts of it are missing: its class then says which, and how to get them
_MARKS = {
    "ap10k": ("annotations/ap10k-*.json", "PairAnnotation/*_cross_*"),
    "pf_pascal": ("*_pairs_pf_pascal.csv", "Annotations/*/20*_*.mat"),
    "pf_willow": ("test_pairs_pf.csv", "*(*)"),
    "caltech101": ("101_ObjectCategories", "test_pairs_caltech_with_category.csv"),
    "freiburg_cars": ("*_annot.txt", "*/*_annot.txt"),
    "awa_pose": ("random_pairs.txt", "Annotations/antelope/*.pickle"),
    "spair": ("PairAnnotation", "Layout/large/*.txt"),
}


def _kind_of(root: Path) -> str:
    """The kind of a folder by what it holds; raises :class:`InputError` when it looks like none."""
    if (root / "keypoints.json").is_file():
        return "folder"
    if (root / "ImageAnnotation").is_dir():
        return _kind_of_annotation(root)
    for kind, patterns in _MARKS.items():
        if any(any(root.glob(pattern)) for pattern in patterns):
            return kind
    kinds = ", ".join(DATASETS)
    raise InputError(
        f"{root} does not look like a data set: expected ImageAnnotation and JPEGImages in it{_nested(root)}, or choose its kind: {kinds}"
    )


def _kind_of_annotation(root: Path) -> str:
    categories = [p for p in visible((root / "ImageAnnotation").iterdir()) if p.is_dir()]
    if any(child.is_dir() for category in categories for child in category.iterdir()):
        return "ap10k"  # ImageAnnotation/<family>/<species>
    if categories and not is_spair([p.name for p in categories]):
        return "folder"
    return "spair_u" if root.resolve().name.lower().replace("_", "-") == "spair-u" else "spair"


def _nested(root: Path) -> str:
    """A hint at an archive that was extracted into a folder of its own name."""
    inner = sorted(p.parent for p in root.glob("*/ImageAnnotation"))
    return f" (they are in {inner[0]})" if inner else ""
