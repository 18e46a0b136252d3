"""AP-10K (Yu et al., 2021) as a correspondence benchmark (GeoAware-SC, CVPR 2024): 54 species, 17 keypoints.

Two folders are read: the download itself (``annotations`` and ``data``; the benchmark is built in memory, in sorted order), and the
folder that the published preparation makes of it (``ImageAnnotation/<family>/<species>``, ``PairAnnotation``), with its own lists.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.ap10k_pairs import PARTS, build_pairs, merge_annotations, usable_images
from semalign3d_core.datasets.records import Dataset, ImageRecord, KeypointSpec, PairRecord, category_of, check_categories
from semalign3d_core.datasets.tables import AP10K_KEYPOINTS, GEOMETRY_GROUPS, flip_permutation
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_json, read_text, shown, visible

CROWD_FILE = "ap-10k_is_crowd.txt"
_DOWNLOAD = "get ap-10k.zip from the page https://github.com/AlexTheBad/AP-10K and extract it completely"
_CROWD = f"get {CROWD_FILE} from the folder data of https://github.com/Junyi42/GeoAware-SC (an empty file keeps all images)"


class Ap10kDataset(Dataset):
    """The images and pairs of AP-10K.

    Splits: ``trn``, ``val``, ``test`` within species; ``test_cross_species`` and ``val_cross_species`` between species of a family,
    ``test_cross_family`` and ``val_cross_family`` between families.
    Categories are the species; for cross-species pairs families with several species, for cross-family pairs ``all``.
    Keypoints of visibility 1 (hidden, but labelled) count as visible where they are annotated; the raw flags are in ``attributes``.
    """

    threshold_kind = "bbox"
    has_mirror_table = True

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        prepared = (self.root / "ImageAnnotation").is_dir()
        self._files = _Prepared(self.root) if prepared else _Download(self.root)
        self._records: dict[tuple[str, str], ImageRecord] = {}

    def categories(self) -> list[str]:
        """Species, then families of several species, then ``all``."""
        tree = self._files.tree
        families = [family for family, species in tree.items() if len(species) > 1]
        return [*sorted(name for species in tree.values() for name in species), *families, "all"]

    def keypoint_spec(self, category: str) -> KeypointSpec:
        """The 17 keypoints all animals share."""
        check_categories([category], self.categories(), self.root)
        return KeypointSpec(AP10K_KEYPOINTS, tuple(flip_permutation("ap10k")))

    def geometry_groups(self, category: str) -> Sequence[Sequence[int]]:
        """Groups of keypoints that look alike, the same for all animals."""
        check_categories([category], self.categories(), self.root)
        return GEOMETRY_GROUPS["ap10k"]

    def images(self, category: str, split: str | None = None) -> list[ImageRecord]:
        """Images of a species, of a family or of ``all``, or those that the pairs of a split use; sorted by name.

        Pairs of the split ``trn`` are within species: a family there has the images of all its species, so that its model can be built.
        """
        check_categories([category], self.categories(), self.root)
        if split is None:
            chosen = [(s, i) for f, tree in self._files.tree.items() for s, ids in tree.items() if category in (s, f, "all") for i in ids]
        else:
            members = {category, *(s for f, tree in self._files.tree.items() for s in tree if category in (f, "all"))}
            ends = [self._files.ends(split, name) for name in self.pair_names(split) if category_of(name) in members]
            chosen = sorted({end for pair in ends for end in pair})
        return sorted((self.image(species, name) for species, name in chosen), key=lambda record: record.name)

    def splits(self) -> list[str]:
        """The sets of pairs, within species first."""
        return sorted(self._files.splits(), key=lambda name: (name.count("_"), name))

    def pair_names(self, split: str, layout: str = "large") -> list[str]:
        """Names ``<source>-<target>:<category>`` of the pairs of a split, sorted. There is one layout only."""
        if layout != "large":
            raise InputError(f"AP-10K has no layout {layout!r}: its only one is called large")
        return self._files.pair_names(split)

    def pair(self, split: str, name: str, category: str | None = None) -> PairRecord:
        """One :class:`PairRecord` by its name."""
        source, target = self._files.ends(split, name)
        return PairRecord(name, self.image(*source), self.image(*target))

    def image(self, species: str, name: str) -> ImageRecord:
        """The :class:`ImageRecord` of one image by its twelve-digit name."""
        if (species, name) not in self._records:
            content, where, path = self._files.image(species, name)
            self._records[species, name] = _record(species, name, content, where, path, self._files.remedy)
        return self._records[species, name]


class _Download:
    """The extracted download: three COCO-like files, images in ``data``."""

    remedy = _DOWNLOAD

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = [root / "annotations" / f"ap10k-{part}-split1.json" for part in PARTS]
        for path, remedy in [*((p, _DOWNLOAD) for p in paths), (root / "data", _DOWNLOAD), (root / CROWD_FILE, _CROWD)]:
            if not path.exists():
                raise MissingFileError(f"{path} does not exist: the download of AP-10K is not complete; {remedy}")
        try:
            self.merged = merge_annotations([read_json(path) for path in paths])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            problem = f"{type(error).__name__} {shown(error)}"
            raise FileFormatError(f"{paths[0].parent}: {problem}; expected images, annotations, categories as AP-10K has them") from error

    @cached_property
    def _tree(self) -> dict[str, dict[str, list[int]]]:
        return usable_images(self.merged, set(read_text(self.root / CROWD_FILE).split()))

    @cached_property
    def tree(self) -> dict[str, dict[str, list[str]]]:
        """{family: {species: [image names]}}."""
        return {family: {s: [f"{i:012d}" for i in ids] for s, ids in species.items()} for family, species in self._tree.items()}

    @cached_property
    def _pairs(self) -> dict[str, dict[str, tuple[tuple[str, str], ...]]]:
        visible = {key: content["keypoints"][2::3] for key, content in self.merged.items()}
        species = {key: content["name"] for key, content in self.merged.items()}
        sets: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {}
        for split, rows in build_pairs(self._tree, visible).items():
            names = {f"{a:012d}-{b:012d}:{label}": ((species[a], f"{a:012d}"), (species[b], f"{b:012d}")) for a, b, label in rows}
            sets[split] = dict(sorted(names.items()))
        return sets

    def splits(self) -> list[str]:
        return list(self._pairs)

    def pair_names(self, split: str) -> list[str]:
        return list(self._of(split))

    def ends(self, split: str, name: str) -> tuple[tuple[str, str], ...]:
        pairs = self._of(split)
        if name not in pairs:
            raise InputError(f"AP-10K has no pair {name!r} in split {split}")
        return pairs[name]

    def _of(self, split: str) -> dict[str, tuple[tuple[str, str], ...]]:
        if split not in self._pairs:
            raise InputError(f"AP-10K has no split {split!r}: choose one of {', '.join(self._pairs)}")
        return self._pairs[split]

    def image(self, species: str, name: str) -> tuple[dict[str, Any], Path, Path]:
        content = self.merged.get(int(name)) if name.isdigit() else None
        if content is None or content["name"] != species:
            raise InputError(f"AP-10K has no image {name!r} of {species!r}")
        return content, self.root / "annotations", self.root / "data" / content["file_name"]


class _Prepared:
    """The folder that the published preparation writes: one file per image, one per pair."""

    remedy = "run the published preparation of AP-10K (https://github.com/Junyi42/GeoAware-SC) again, or give the extracted download"

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("ImageAnnotation", "PairAnnotation", "JPEGImages"):
            if not (root / name).is_dir():
                raise MissingFileError(f"{root / name} does not exist: the folder of AP-10K is not complete; {self.remedy}")

    @cached_property
    def tree(self) -> dict[str, dict[str, list[str]]]:
        """{family: {species: [image names]}}."""
        families = [p for p in visible((self.root / "ImageAnnotation").iterdir()) if p.is_dir()]
        return {f.name: {s.name: [i.stem for i in visible(s.glob("*.json"))] for s in visible(f.iterdir()) if s.is_dir()} for f in families}

    @cached_property
    def _family(self) -> dict[str, str]:
        return {species: family for family, names in self.tree.items() for species in names}

    def splits(self) -> list[str]:
        return [p.name for p in visible((self.root / "PairAnnotation").iterdir()) if p.is_dir()]

    def pair_names(self, split: str) -> list[str]:
        folder = self.root / "PairAnnotation" / split
        if not folder.is_dir():
            present = ", ".join(self.splits()) or "none"
            raise MissingFileError(f"{folder} does not exist: there are the splits {present}; {self.remedy}")
        return [p.stem for p in visible(folder.glob("*.json"))]

    def ends(self, split: str, name: str) -> tuple[tuple[str, str], ...]:
        path = self.root / "PairAnnotation" / split / f"{name}.json"
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist: no such pair in split {split}; {self.remedy}")
        content = read_json(path)
        try:
            return tuple((Path(content[key]).parent.name, Path(content[key]).stem) for key in ("src_json_path", "trg_json_path"))
        except (KeyError, TypeError) as error:
            raise FileFormatError(f"{path}: {type(error).__name__} {error}; expected src_json_path and trg_json_path") from error

    def image(self, species: str, name: str) -> tuple[dict[str, Any], Path, Path]:
        if species not in self._family:
            raise InputError(f"unknown category {species!r}: {self.root} has {', '.join(sorted(self._family))}")
        folder = Path(self._family[species]) / species
        path = self.root / "ImageAnnotation" / folder / f"{name}.json"
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist: image {name} of {species} is not annotated; {self.remedy}")
        return read_json(path), path, self.root / "JPEGImages" / folder / f"{name}.jpg"


def _record(species: str, name: str, content: dict[str, Any], where: Path, path: Path, remedy: str) -> ImageRecord:
    try:
        flat = np.asarray(content["keypoints"], dtype=np.float32).reshape(len(AP10K_KEYPOINTS), 3)
        left, top, width, height = (float(v) for v in content["bbox"])
        size = int(content["height"]), int(content["width"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"{type(error).__name__} {error}"
        raise FileFormatError(f"{where}: image {name}: {problem}; expected keypoints, bbox, width, height as AP-10K has them") from error
    keypoints = np.where(flat[:, 2:] > 0, flat[:, :2], np.nan).astype(np.float32)
    box = np.array([left, top, left + width, top + height], dtype=np.float32)
    return ImageRecord(species, name, path, *size, keypoints, box, content, remedy)
