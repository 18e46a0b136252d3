"""From annotations of other tools to a data set folder in SPair-71k's layout: what all importers share."""

import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semalign3d_core.datasets.folder import IMAGE_SUFFIXES
from semalign3d_core.datasets.left_right import unpaired
from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.perception.evidence import ImageInput, read_image
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.files import atomic_path, read_json, sha256_of_file, spelling, visible, write_json
from semalign3d_core.runtime.pictures import TURNS, as_stored, open_picture, orientation

BOX_MARGIN = 0.1  # of the longer side, where a box must be made from keypoints
FEW_IMAGES, FEW_VIEWS = 10, 3
# EXIF orientation -> place in the displayed picture of a pixel (x, y) of the stored one, whose last pixel is (right, bottom)
MOVES = {
    2: lambda x, y, right, bottom: (right - x, y),
    3: lambda x, y, right, bottom: (right - x, bottom - y),
    4: lambda x, y, right, bottom: (x, bottom - y),
    5: lambda x, y, right, bottom: (y, x),
    6: lambda x, y, right, bottom: (bottom - y, x),
    7: lambda x, y, right, bottom: (bottom - y, right - x),
    8: lambda x, y, right, bottom: (y, right - x),
}
Mask = Callable[[int, int], np.ndarray | None]


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of one image file.

    keypoints: (K, 2) float pixels, NaN where not annotated;  box: (x1, y1, x2, y2) or None
    mask:   gives the (h, w) bool mask (or None) for the height and width of the picture that was annotated
    size:   (width, height) that the annotation claims, or None
    stored: the pixels are those of the stored picture, not of the one that viewers show (turned by EXIF)
    """

    path: Path
    keypoints: np.ndarray
    box: tuple | None = None
    mask: Mask | None = None
    size: tuple | None = None
    stored: bool = False


@dataclass
class ImportReport:
    """What became of the annotations: ``written`` objects (``masked`` ones have a mask), and everything left out with its reason.

    ``remarks`` are for the reader; ``counted`` remarks hold for many annotations and become ``N: text``.
    """

    written: Counter = field(default_factory=Counter)
    masked: Counter = field(default_factory=Counter)
    keypoints: dict = field(default_factory=dict)
    skipped: list = field(default_factory=list)
    remarks: list = field(default_factory=list)
    counted: Counter = field(default_factory=Counter)

    def skip(self, reason: str, on_bad_input: str) -> None:
        """Notes what is left out, or raises :class:`InputError` if bad input is to stop the import."""
        if on_bad_input == "error":
            raise InputError(reason)
        self.skipped.append(reason)


class DatasetWriter:
    """Writes objects of one category into a data set folder.

    root: the folder; category: its name there; spec: :class:`KeypointSpec`; annotations: the file they come from;
    report: :class:`ImportReport` to add to; on_bad_input: ``skip`` (leave it out and note it) or ``error``.

    What an earlier import of the same picture wrote is replaced; other images of that name are left alone, and the new one gets another.
    """

    def __init__(
        self, root: Path, category: str, spec: KeypointSpec, annotations: Path, report: ImportReport, on_bad_input: str = "skip"
    ) -> None:
        self.root, self.category, self.spec, self.report, self.on_bad_input = Path(root), safe_name(category), spec, report, on_bad_input
        self.annotations = str(Path(annotations).resolve())
        self._names: set[str] = set()  # written by this import
        self._register()
        self._earlier = {path.stem: _record(path) for path in visible(self._folder("ImageAnnotation").glob("*.json"))}
        self._of_origin = defaultdict(list)  # path or hash of a picture -> names, shorter ones first
        for name in sorted(self._earlier, key=lambda name: (len(name), name)):
            for origin in {self._earlier[name].get("imported_from"), self._earlier[name].get("imported_sha256")}:
                self._of_origin[origin].append(name)
        self.report.keypoints[self.category] = dict.fromkeys(spec.names, 0)

    def write(self, item: AnnotatedObject) -> str | None:
        """Writes image, annotation and mask of an :class:`AnnotatedObject`; returns its name, or None if it was left out."""
        if item.path.resolve().is_relative_to((self.root / "JPEGImages").resolve()):
            raise InputError(f"{item.path} lies in the data set folder that would be written; choose another one with --output")
        try:
            image = read_image(item.path)
            item, mask = as_displayed(item, image)
        except (InputError, MissingFileError) as error:
            self.report.skip(str(error), self.on_bad_input)
            return None
        keypoints = self._inside(item, image)
        if not np.isfinite(keypoints).any():
            self.report.skip(f"{item.path}: no visible keypoint of {self.category}", self.on_bad_input)
            return None
        digest = sha256_of_file(item.path)
        name = self._name(item.path, digest, image)
        self._write_files(name, digest, item, image, keypoints, mask)
        self.report.written[self.category] += 1
        for k in np.flatnonzero(np.isfinite(keypoints[:, 0])):
            self.report.keypoints[self.category][self.spec.names[k]] += 1
        return name

    def finish(self, pictures: set[Path]) -> None:
        """Removes images that earlier imports of the same annotation file, or of its ``pictures``, wrote and this one did not."""
        sources = {str(path.resolve()) for path in pictures}
        left = {name: record for name, record in self._earlier.items() if name not in self._names}
        gone = [n for n, r in left.items() if r.get("imported_from") in sources or r.get("annotations") == self.annotations]
        for name in gone:
            (self._folder("ImageAnnotation") / f"{name}.json").unlink(missing_ok=True)
            self._mask_path(name).unlink(missing_ok=True)
            if not self._has_sidecars(name):
                self._remove_pictures(name)
        if gone:
            self.report.remarks.append(f"{self.category}: {len(gone)} images of an earlier import are annotated no more and were removed")
        others = len(left) - len(gone)
        if others:
            where = self._folder("ImageAnnotation")
            text = f"{others} further images in {self.root} are not from this file; to remove some, delete their files in {where}"
            self.report.remarks.append(f"{self.category}: {text}")

    def _folder(self, kind: str) -> Path:
        return self.root / kind / self.category

    def _mask_path(self, name: str) -> Path:
        return self._folder("Segmentation") / f"{name}.png"

    def _register(self) -> None:
        path = self.root / "keypoints.json"
        specs = read_json(path, dict) if path.is_file() else {}
        content = {"names": list(self.spec.names), "flip_permutation": list(self.spec.flip_permutation)}
        if specs.get(self.category, content) != content:
            raise InputError(f"{path} has other keypoints for {self.category!r}; choose another output folder or another category name")
        write_json(path, {**specs, self.category: content}, ours=True)

    def _inside(self, item: AnnotatedObject, image: ImageInput) -> np.ndarray:
        keypoints = np.array(item.keypoints, dtype=np.float64)
        low, high = -0.5, np.array([image.width, image.height]) - 0.5
        for k in np.flatnonzero(((keypoints < low) | (keypoints > high)).any(1)):
            x, y = keypoints[k]
            where = f"keypoint {self.spec.names[k]!r} at ({x:.1f}, {y:.1f}) lies outside {image.width} x {image.height} pixels"
            self.report.skip(f"{item.path}: {where}", self.on_bad_input)
            keypoints[k] = np.nan
        return keypoints

    def _name(self, source: Path, digest: str, image: ImageInput) -> str:
        """The name of the record that the same picture has already, else a new one."""
        for name in [*self._of_origin[str(source.resolve())], *self._of_origin[digest]]:
            same = self._earlier[name].get("imported_sha256") == digest
            if name not in self._names and (same or not self._has_sidecars(name)):
                self._names.add(name)
                return name
        name, stem, number = safe_name(source.stem), safe_name(source.stem), 1
        while spelling(name) in self._taken() or self._is_other(name, image):
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def _taken(self) -> set[str]:
        """Names of other images; file systems of others do not tell capitals."""
        return {spelling(name) for name in [*self._names, *self._earlier]}

    def _is_other(self, name: str, image: ImageInput) -> bool:
        """Whether a picture without annotation has this name, and is another one."""
        for path in self._pictures(name):
            try:
                if not np.array_equal(read_image(path).rgb, image.rgb):
                    return True
            except (InputError, MissingFileError):
                return True
        return False

    def _pictures(self, name: str) -> list[Path]:
        paths = (self._folder("JPEGImages") / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)
        return [path for path in paths if path.is_file()]

    def _remove_pictures(self, name: str, keep: Path | None = None) -> None:
        for path in self._pictures(name):
            if path != keep:
                path.unlink(missing_ok=True)

    def _has_sidecars(self, name: str) -> bool:
        """Whether depth or features of the picture are stored, which hold for no other picture."""
        depth = self._folder("Depth") / f"{name}.npz"
        return depth.exists() or any(self.root.glob(f"Features/*/{self.category}/{name}.*safetensors"))

    def _write_files(
        self, name: str, digest: str, item: AnnotatedObject, image: ImageInput, keypoints: np.ndarray, mask: np.ndarray | None
    ) -> None:
        path = self._write_image(name, item.path, image)
        box, origin = object_box(item.box, mask, keypoints, image.width, image.height)
        content = {
            "filename": path.name,
            "category": self.category,
            "image_width": image.width,
            "image_height": image.height,
            "bndbox": [round(float(v), 2) for v in box],
            "bndbox_from": origin,
            "kps": {str(k): None if np.isnan(p[0]) else [round(float(v), 2) for v in p] for k, p in enumerate(keypoints)},
            "imported_from": str(item.path.resolve()),
            "imported_sha256": digest,
            "annotations": self.annotations,
        }
        if mask is None or not mask.any():
            self._mask_path(name).unlink(missing_ok=True)  # of an earlier import
        else:
            self.report.masked[self.category] += 1
            with atomic_path(self._mask_path(name)) as temporary:
                Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
        write_json(self._folder("ImageAnnotation") / f"{name}.json", content, ours=True)
        self._remove_pictures(name, keep=path)

    def _write_image(self, name: str, source: Path, image: ImageInput) -> Path:
        """Copies the file where it can be used as it is; else (turned by EXIF, not 8-bit RGB) writes what is seen as PNG."""
        with open_picture(source) as picture:
            format = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}.get(picture.format or "", ())
            plain = picture.mode == "RGB" and "transparency" not in picture.info and orientation(picture) == 1
        suffix = source.suffix.lower()
        plain = plain and suffix in format
        path = self._folder("JPEGImages") / f"{name}{suffix if plain else '.png'}"
        with atomic_path(path) as temporary:
            if plain:
                shutil.copyfile(source, temporary)
            else:
                Image.fromarray(image.rgb).save(temporary)
        return path


def _record(path: Path) -> dict[str, Any]:
    """What an annotation file says of its origin; nothing if it cannot be read: it is then left alone."""
    try:
        return read_json(path, dict)
    except (InputError, MissingFileError):
        return {}


def object_box(
    box: tuple | None, mask: np.ndarray | None, keypoints: np.ndarray, width: int, height: int
) -> tuple[tuple[float, float, float, float], str]:
    """((x1, y1, x2, y2), where it is from): the annotated box, else the mask's, else that of the keypoints with a margin."""
    if box is not None and box[2] > box[0] and box[3] > box[1]:
        return box, "annotation"
    if mask is not None and mask.any():
        rows, columns = np.nonzero(mask)
        return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), "mask"
    low, high = np.nanmin(keypoints, 0), np.nanmax(keypoints, 0)
    margin = max(BOX_MARGIN * (high - low).max(), 1)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, [width, height])
    return (*low, *high), "keypoints"


def safe_name(text: str) -> str:
    """``text`` as a name in the layout, where pairs are spelt ``number-source-target:category``."""
    name = re.sub(r"[^\w.]+", "_", unicodedata.normalize("NFC", text).strip()).strip("._")
    while len(name.encode(errors="replace")) > 120:  # file systems take 255 bytes, and suffixes and temporary names come to it
        name = name[: len(name) * 3 // 4]
    if not name:
        raise InputError(f"{text[:80]!r} cannot be used as a name; use letters and digits")
    return name


def closing_remarks(report: ImportReport, specs: dict[str, KeypointSpec]) -> None:
    """Adds to the remarks what the user should know before building; specs: {category: :class:`KeypointSpec`}."""
    report.remarks += [f"{count} {text}" for text, count in report.counted.items()]
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
            report.remarks.append(f"{category}: no partner on the other side: {', '.join(lonely)}; a misspelt name, or give --left-right")
        if spec.flip_permutation == tuple(range(len(spec.names))):
            report.remarks.append(f"{category}: no left/right pairs; if the object has a left and a right, give them with --left-right")


def remark_on_other_categories(root: Path, annotations: Path, written: set[str], report: ImportReport) -> None:
    """Adds a remark on categories in the folder ``root`` that earlier imports of the same file wrote and this one did not."""
    source = str(Path(annotations).resolve())
    for folder in sorted(path for path in (Path(root) / "ImageAnnotation").glob("[!.]*") if path.is_dir() and path.name not in written):
        count = sum(_record(path).get("annotations") == source for path in visible(folder.glob("*.json")))
        if count:
            text = f"{count} images of an earlier import of this file stay in {root}; to remove them, delete {folder}"
            report.remarks.append(f"{folder.name}: {text}")


def as_displayed(item: AnnotatedObject, image: ImageInput) -> tuple[AnnotatedObject, np.ndarray | None]:
    """``item`` in the pixels of ``image`` (:class:`ImageInput`), which is turned as its EXIF data say, and its (h, w) mask.

    Raises :class:`InputError` when the annotation belongs to another size.
    """
    with open_picture(item.path) as picture:
        turn, stored = as_stored(picture)
    displayed = (image.width, image.height)
    if item.size is not None and tuple(item.size) not in (stored, displayed):
        found, claimed = f"{image.width} x {image.height}", f"{item.size[0]} x {item.size[1]}"
        raise InputError(f"{item.path} has {found} pixels, its annotation {claimed}: it belongs to another version of the file")
    width, height = stored if item.stored else displayed
    mask = None if item.mask is None else item.mask(height, width)
    if mask is not None and mask.shape != displayed[::-1]:
        mask = np.array(Image.fromarray(mask).transpose(TURNS[turn])) if turn > 1 and mask.shape == stored[::-1] else mask
        if mask.shape != displayed[::-1]:
            raise InputError(f"{item.path} has {displayed[0]} x {displayed[1]} pixels, its mask {mask.shape[1]} x {mask.shape[0]}")
    elif mask is not None and item.stored and turn > 1:
        mask = np.array(Image.fromarray(mask).transpose(TURNS[turn]))
    if not item.stored or turn == 1:
        return item, mask
    right, bottom = stored[0] - 1, stored[1] - 1
    x, y = np.asarray(item.keypoints, dtype=np.float64).T
    keypoints = np.stack(MOVES[turn](x, y, right, bottom), axis=1)
    box = None
    if item.box is not None:
        x, y = np.array(item.box, dtype=np.float64).reshape(2, 2).T
        corners = np.stack(MOVES[turn](x, y, right, bottom), axis=1)
        box = (*corners.min(0), *corners.max(0))
    return replace(item, keypoints=keypoints, box=box, stored=False), mask


def in_stored_frame(items: list[AnnotatedObject], report: ImportReport, displayed: bool = False) -> list[AnnotatedObject]:
    """``items`` of one annotation file with ``stored`` set: whether it annotates the stored pictures or the displayed ones.

    Told by points and boxes that fit one of the two only; else by ``displayed`` (the tool is known to show pictures turned), else
    by the sizes that the file claims. One tool does the same with all pictures.
    """
    turned, fits = [], {"stored": True, "displayed": True}
    for item in items:
        try:
            with open_picture(item.path) as picture:
                turn, size = as_stored(picture)
        except (InputError, MissingFileError):
            continue  # whoever writes it says so
        if turn < 5:
            continue
        points = np.concatenate([item.keypoints, np.array(item.box or (np.nan,) * 4, dtype=np.float64).reshape(2, 2)])
        far = np.nanmax(points, axis=0, initial=0)
        fits["stored"] &= bool((far <= np.array(size) + 1).all())
        fits["displayed"] &= bool((far <= np.array(size[::-1]) + 1).all())
        turned.append(item.size is not None and tuple(item.size) == size)
    if not turned:
        return items
    stored = not displayed and any(turned)
    if fits["stored"] != fits["displayed"]:
        stored = fits["stored"]
    how = (
        ("were taken to be annotated as they are stored", "displayed") if stored else ("were taken to be annotated as displayed", "stored")
    )
    report.counted[f"images turned by EXIF {how[0]}; if that is wrong, give --frame {how[1]}"] += len(turned)
    return [replace(item, stored=stored) for item in items]
