"""Import of COCO keypoint JSON, as COCO itself, CVAT, Label Studio and others write it."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from semalign3d_core.datasets.coco_masks import decode_mask
from semalign3d_core.datasets.importing import AnnotatedObject, DatasetWriter, ImportReport, closing_remarks, read_mask, safe_name
from semalign3d_core.datasets.left_right import flip_permutation
from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.perception.evidence import IMAGE_SUFFIXES
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, choice
from semalign3d_core.runtime.files import read_json

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts one before the names of uploaded files


@dataclass(frozen=True)
class CocoOptions:
    """How a COCO file is read.

    categories:   names of the file's categories to take; empty: all that have keypoints
    rename:       name of the category in the data set, if only one is taken; empty: as in the file
    pairs:        left/right pairs of names that neither the file nor the names tell
    hidden:       ``drop`` or ``keep`` keypoints marked as hidden (v = 1): what lies at their pixel is not the keypoint
    objects:      of several objects of a category in one image take the ``largest`` (most visible keypoints, then largest
                  box) or ``each`` (the image is then written once per object)
    on_bad_input: ``skip`` (and list) or ``error``
    masks:        folder of <image name>.png, above 0 is object; nothing: the polygons and run lengths of the file
    """

    categories: tuple = ()
    rename: str = ""
    pairs: tuple = ()
    hidden: str = "drop"
    objects: str = "largest"
    on_bad_input: str = "skip"
    masks: Path | None = None


def import_coco(annotations: Path, images: Path, output: Path, options: CocoOptions | None = None) -> ImportReport:
    """Writes the objects of a COCO keypoint file into the data set folder ``output``; returns the :class:`ImportReport`.

    annotations: the JSON file; images: folder in which its ``file_name`` are found, directly or anywhere below.
    """
    options, report = options or CocoOptions(), ImportReport()
    least = choice("policy for hidden keypoints", options.hidden, {"drop": 2, "keep": 1})  # of COCO's v
    select = choice("policy for several objects", options.objects, {"largest": _largest, "each": lambda items: items})
    content = read_coco(annotations)
    files = FileFinder(images)
    chosen = _chosen_categories(content, annotations, options)
    specs = {}
    for category in chosen:
        name = safe_name(options.rename or category["name"])
        specs[name] = category_spec(category, annotations, options.pairs)
        writer = DatasetWriter(output, name, specs[name], report, options.on_bad_input)
        for image, entries, loose in _by_image(content, category, report, options):
            for entry in select(entries):
                _write(writer, files, image, entry, loose, least, options.masks)
    closing_remarks(report, specs)
    return report


def read_coco(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The parsed file; raises :class:`FileFormatError` unless it has images, annotations and categories."""
    content = read_json(path)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or key not in content]
    if missing:
        raise FileFormatError(f"{path} has no {', '.join(missing)}: not a COCO keypoint file; export as 'COCO Keypoints'")
    return content


def category_spec(category: dict[str, Any], where: Path, pairs: tuple = ()) -> KeypointSpec:
    """:class:`KeypointSpec` of a COCO category: its names, pairs from ``pairs``, from the file (``flip_pairs``), from names."""
    names = tuple(str(name) for name in category["keypoints"])
    if len(set(names)) != len(names):
        double = sorted({name for name in names if names.count(name) > 1})
        raise FileFormatError(f"{where}: category {category['name']!r} names {', '.join(double)} twice; give every keypoint its own name")
    known = tuple(pairs) or tuple(tuple(pair) for pair in category.get("flip_pairs", ()))
    return KeypointSpec(names, flip_permutation(names, known))


class FileFinder:
    """Finds image files by the names that annotation tools give them."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise MissingFileError(f"folder of images {self.folder} does not exist; give it with --images")
        self._by_name: dict[str, list[Path]] = defaultdict(list)

    def find(self, name: str) -> Path:
        """The path of ``name``: relative to the folder, else the one file below it of that name (or stem). Errors name both."""
        direct = self.folder / name
        if direct.is_file():
            return direct
        base = Path(unquote(str(name))).name
        for wanted in (base, UPLOAD_PREFIX.sub("", base)):
            found = self._files().get(wanted.lower(), []) or self._files().get(Path(wanted).stem.lower(), [])
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(f"{name} is ambiguous below {self.folder}: {found[0]} and {found[1]}; keep one of them")
        raise MissingFileError(f"image {name} is not below {self.folder}; copy it there, or give another folder with --images")

    def _files(self):
        if not self._by_name:
            for path in sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
                self._by_name[path.name.lower()].append(path)
                self._by_name[path.stem.lower()].append(path)
        return self._by_name


def _chosen_categories(content, path, options):
    named = {c["name"]: c for c in content["categories"] if c.get("keypoints")}
    if not named:
        raise InputError(f"{path}: no category has keypoint names; export as 'COCO Keypoints' (skeletons in CVAT)")
    chosen = [choice("category", name, named) for name in options.categories or named]
    if options.rename and len(chosen) > 1:
        raise InputError(f"{path} has several categories ({', '.join(named)}); choose one to rename to {options.rename!r}")
    return chosen


def _by_image(content, category, report, options):
    """Yields (image entry, [annotation entries of ``category``], [those of categories without keypoints]), in the order of the file."""
    entries, loose = defaultdict(list), defaultdict(list)
    plain = {c["id"] for c in content["categories"] if not c.get("keypoints")}
    images = {image["id"]: image for image in content["images"]}
    for entry in content["annotations"]:
        if entry.get("category_id") in plain and not entry.get("iscrowd"):
            loose[entry.get("image_id")].append(entry)
        if entry.get("category_id") != category["id"] or entry.get("iscrowd") or not entry.get("keypoints"):
            continue
        if entry.get("image_id") not in images:
            report.skip(f"annotation {entry.get('id')} belongs to the unknown image {entry.get('image_id')}", options.on_bad_input)
        elif len(entry["keypoints"]) != 3 * len(category["keypoints"]):
            text = f"annotation {entry.get('id')} has {len(entry['keypoints'])} numbers for {len(category['keypoints'])} keypoints"
            report.skip(text, options.on_bad_input)
        else:
            entries[entry["image_id"]].append(entry)
    for key, image in images.items():
        if entries[key]:
            yield image, entries[key], loose[key]


def _largest(entries):
    def size(entry):
        box = entry.get("bbox") or (0, 0, 0, 0)
        return sum(v == 2 for v in entry["keypoints"][2::3]), box[2] * box[3]

    return [max(entries, key=size)]


def _write(writer, files, image, entry, loose, least, masks):
    try:
        item = _annotated_object(files, image, entry, loose, least, masks)
    except (InputError, MissingFileError) as error:
        writer.report.skip(f"{image.get('file_name')}: {error}", writer.on_bad_input)
        return
    writer.write(item)


def _annotated_object(files, image, entry, loose, least, masks):
    values = np.array(entry["keypoints"], dtype=np.float64).reshape(-1, 3)
    keypoints = np.where(values[:, 2:] >= least, values[:, :2], np.nan)
    path = files.find(image["file_name"])
    size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
    box, parts = _parts(entry, loose, values[values[:, 2] > 0, :2])
    mask: np.ndarray | None
    if masks is not None:
        mask = read_mask(masks, path)
        size = size or mask.shape[::-1]
        if mask.shape != size[::-1]:
            raise FileFormatError(f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, its annotation {size[0]} x {size[1]}")
    else:
        mask = None if size is None else _joint_mask(parts, size)
    return AnnotatedObject(path, keypoints, box and (box[0], box[1], box[0] + box[2], box[1] + box[3]), mask, size)


def _parts(entry, loose, points):
    """(box or None, annotations whose segmentations make up the mask) of an object with keypoints (N, 2).

    Label Studio writes the rectangle, the polygons and the keypoints of an object as separate annotations, so that only their places
    tell that they belong together: the smallest rectangle around most keypoints, and polygons with their middle in it.
    """
    box = entry.get("bbox") or None
    if box is None or _is_extent(box, points):
        around = [e["bbox"] for e in loose if e.get("bbox") and _inside(points, e["bbox"]).sum() > len(points) / 2]
        box = min(around, key=lambda b: b[2] * b[3], default=None)
    if entry.get("segmentation") or box is None:
        return box, [entry]
    middles = [(e, np.array(e["bbox"][:2]) + np.array(e["bbox"][2:]) / 2) for e in loose if e.get("bbox")]
    return box, [e for e, middle in middles if _inside(middle[None], box).all()]


def _inside(points, box):
    x, y, width, height = box
    return ((points >= (x, y)) & (points <= (x + width, y + height))).all(1)


def _is_extent(box, points):
    """Whether a box is only the extent of the keypoints (N, 2), as CVAT and Label Studio write it: the object is larger."""
    if not len(points):
        return False
    low, high = points.min(0), points.max(0)
    return bool(np.abs(np.array([*low, *(high - low)]) - box).max() < 1.5)


def _joint_mask(entries, size):
    masks = [decode_mask(entry["segmentation"], size[1], size[0]) for entry in entries if entry.get("segmentation")]
    known = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(known) if known else None
