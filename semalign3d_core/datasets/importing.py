"""From annotations of other tools to a data set folder in SPair-71k's layout: what all importers share."""

import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from semalign3d_core.datasets.left_right import unpaired
from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.perception.evidence import ImageInput, read_image, read_labels
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.files import atomic_path, read_json, write_json

ORIENTATION = 0x0112  # EXIF tag; quarter turns that its values ask for:
QUARTER_TURNS = {6: -1, 8: 1}  # counterclockwise, as np.rot90 counts
BOX_MARGIN = 0.1  # of the longer side, where a box must be made from keypoints
FEW_IMAGES, FEW_VIEWS = 10, 3


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of one image file.

    keypoints: (K, 2) float pixels, NaN where not annotated;  box: (x1, y1, x2, y2) or None;  mask: (h, w) bool or None
    size: (width, height) that the annotation claims, or None
    """

    path: Path
    keypoints: np.ndarray
    box: tuple | None = None
    mask: np.ndarray | None = None
    size: tuple | None = None


@dataclass
class ImportReport:
    """What became of the annotations: ``written`` objects (``masked`` ones have a mask), and everything left out with its reason."""

    written: Counter = field(default_factory=Counter)
    masked: Counter = field(default_factory=Counter)
    keypoints: dict = field(default_factory=dict)
    skipped: list = field(default_factory=list)
    remarks: list = field(default_factory=list)

    def skip(self, reason: str, on_bad_input: str) -> None:
        """Notes what is left out, or raises :class:`InputError` if bad input is to stop the import."""
        if on_bad_input == "error":
            raise InputError(reason)
        self.skipped.append(reason)


class DatasetWriter:
    """Writes objects of one category into a data set folder.

    root: the folder; category: its name there; spec: :class:`KeypointSpec`; report: :class:`ImportReport` to add to;
    on_bad_input: ``skip`` (leave it out and note it) or ``error``.
    """

    def __init__(self, root: Path, category: str, spec: KeypointSpec, report: ImportReport, on_bad_input: str = "skip") -> None:
        self.root, self.category, self.spec, self.report, self.on_bad_input = Path(root), safe_name(category), spec, report, on_bad_input
        self._names: set[str] = set()
        self._register()
        self.report.keypoints[self.category] = dict.fromkeys(spec.names, 0)

    def write(self, item: AnnotatedObject) -> str | None:
        """Writes image, annotation and mask of an :class:`AnnotatedObject`; returns its name, or None if it was left out."""
        try:
            image = read_image(item.path)
            item = as_displayed(item, image)
        except (InputError, MissingFileError) as error:
            self.report.skip(str(error), self.on_bad_input)
            return None
        keypoints = self._inside(item, image)
        if not np.isfinite(keypoints).any():
            self.report.skip(f"{item.path}: no visible keypoint of {self.category}", self.on_bad_input)
            return None
        name = self._unique(item.path.stem)
        self._write_files(name, item, image, keypoints)
        self.report.written[self.category] += 1
        for k in np.flatnonzero(np.isfinite(keypoints[:, 0])):
            self.report.keypoints[self.category][self.spec.names[k]] += 1
        return name

    def _register(self):
        path = self.root / "keypoints.json"
        specs = read_json(path) if path.is_file() else {}
        content = {"names": list(self.spec.names), "flip_permutation": list(self.spec.flip_permutation)}
        if specs.get(self.category, content) != content:
            raise InputError(f"{path} has other keypoints for {self.category!r}; choose another output folder or another category name")
        write_json(path, {**specs, self.category: content})

    def _inside(self, item, image):
        keypoints = np.array(item.keypoints, dtype=np.float64)
        low, high = -0.5, np.array([image.width, image.height]) - 0.5
        for k in np.flatnonzero(((keypoints < low) | (keypoints > high)).any(1)):
            x, y = keypoints[k]
            where = f"keypoint {self.spec.names[k]!r} at ({x:.1f}, {y:.1f}) lies outside {image.width} x {image.height} pixels"
            self.report.skip(f"{item.path}: {where}", self.on_bad_input)
            keypoints[k] = np.nan
        return keypoints

    def _unique(self, stem):
        stem, number = safe_name(stem), 1
        name = stem
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def _write_files(self, name, item, image, keypoints):
        path = self._write_image(name, item.path, image)
        box, origin = object_box(item, keypoints, image.width, image.height)
        content = {
            "filename": path.name,
            "category": self.category,
            "image_width": image.width,
            "image_height": image.height,
            "bndbox": [round(float(v), 2) for v in box],
            "bndbox_from": origin,
            "kps": {str(k): None if np.isnan(p[0]) else [round(float(v), 2) for v in p] for k, p in enumerate(keypoints)},
            "imported_from": str(item.path),
        }
        write_json(self.root / "ImageAnnotation" / self.category / f"{name}.json", content)
        if item.mask is not None and item.mask.any():
            self.report.masked[self.category] += 1
            with atomic_path(self.root / "Segmentation" / self.category / f"{name}.png") as temporary:
                Image.fromarray(item.mask.astype(np.uint8) * 255).save(temporary)

    def _write_image(self, name, source, image):
        """Copies the file where it can be used as it is; else (turned by EXIF, not 8-bit RGB) writes what is seen as PNG."""
        with Image.open(source) as picture:
            plain = picture.mode == "RGB" and picture.getexif().get(ORIENTATION, 1) == 1
        suffix = source.suffix.lower() if plain and source.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        path = self.root / "JPEGImages" / self.category / f"{name}{suffix}"
        with atomic_path(path) as temporary:
            if plain and suffix == source.suffix.lower():
                shutil.copyfile(source, temporary)
            else:
                Image.fromarray(image.rgb).save(temporary)
        return path


def read_mask(folder: Path, image: Path) -> np.ndarray:
    """(h, w) bool mask of an image file: ``folder``/<its name>.png, above 0 is object."""
    return read_labels(Path(folder) / f"{Path(image).stem}.png") > 0


def object_box(item: AnnotatedObject, keypoints: np.ndarray, width: int, height: int) -> tuple[tuple[float, float, float, float], str]:
    """((x1, y1, x2, y2), where it is from): the annotated box, else the mask's, else that of the keypoints with a margin."""
    if item.box is not None and item.box[2] > item.box[0] and item.box[3] > item.box[1]:
        return item.box, "annotation"
    if item.mask is not None and item.mask.any():
        rows, columns = np.nonzero(item.mask)
        return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), "mask"
    low, high = np.nanmin(keypoints, 0), np.nanmax(keypoints, 0)
    margin = max(BOX_MARGIN * (high - low).max(), 1)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, [width, height])
    return (*low, *high), "keypoints"


def safe_name(text: str) -> str:
    """``text`` as a name in the layout, where pairs are spelt ``number-source-target:category``."""
    name = re.sub(r"[^\w.]+", "_", text.strip()).strip("._")
    if not name:
        raise InputError(f"{text!r} cannot be used as a name; use letters and digits")
    return name


def closing_remarks(report: ImportReport, specs: dict[str, KeypointSpec]) -> None:
    """Adds to the remarks what the user should know before building; specs: {category: :class:`KeypointSpec`}."""
    for category, spec in specs.items():
        images, seen = report.written[category], report.keypoints.get(category, {})
        if images < FEW_IMAGES:
            report.remarks.append(f"{category}: {images} images; at least {FEW_IMAGES} are needed, about 50 are good")
        bare = images - report.masked[category]
        if bare:
            report.remarks.append(f"{category}: {bare} of {images} images have no mask; give --masks here, or a mask source to the build")
        rare = [f"{name} ({count})" for name, count in seen.items() if count < FEW_VIEWS]
        if rare:
            report.remarks.append(f"{category}: seen in fewer than {FEW_VIEWS} images: {', '.join(rare)}")
        lonely = unpaired(spec.names, spec.flip_permutation)
        if lonely:
            report.remarks.append(f"{category}: no partner on the other side: {', '.join(lonely)}; a misspelt name, or give --pairs")
        if spec.flip_permutation == tuple(range(len(spec.names))):
            report.remarks.append(f"{category}: no left/right pairs; if the object has a left and a right, give them with --pairs")


def as_displayed(item: AnnotatedObject, image: ImageInput) -> AnnotatedObject:
    """``item`` in the pixels of ``image`` (:class:`ImageInput`), which is turned as its EXIF data say.

    Tools that ignore EXIF annotate the unturned picture: told by the exchanged sides. Raises :class:`InputError` when the
    annotation belongs to another size.
    """
    if item.size is None or tuple(item.size) == (image.width, image.height):
        return item
    with Image.open(item.path) as picture:
        turns = QUARTER_TURNS.get(picture.getexif().get(ORIENTATION, 1))
    if turns is None or tuple(item.size) != (image.height, image.width):
        found, claimed = f"{image.width} x {image.height}", f"{item.size[0]} x {item.size[1]}"
        raise InputError(f"{item.path} has {found} pixels, its annotation {claimed}: it belongs to another version of the file")
    box = None
    if item.box is not None:
        corners = _turned(np.array(item.box, dtype=np.float64).reshape(2, 2), item.size, turns)
        box = (*corners.min(0), *corners.max(0))
    mask = None if item.mask is None else np.rot90(item.mask, turns).copy()
    return AnnotatedObject(item.path, _turned(item.keypoints, item.size, turns), box, mask, (image.width, image.height))


def _turned(points, size, turns):
    """Pixels (N, 2) of a picture of ``size`` (width, height) after a quarter turn (1: counterclockwise, -1: clockwise)."""
    x, y = np.asarray(points, dtype=np.float64).T
    return np.stack([y, size[0] - 1 - x] if turns == 1 else [size[1] - 1 - y, x], axis=1)
