"""Import of COCO keypoint JSON, as COCO itself, CVAT, Label Studio and others write it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semalign3d_core.datasets.coco_file import CocoAnnotation, CocoCategory, CocoFile, CocoImage, chosen_categories, doubled, key, read_coco
from semalign3d_core.datasets.coco_masks import decode_mask
from semalign3d_core.datasets.image_finder import ImageFinder
from semalign3d_core.datasets.importing import (
    AnnotatedObject,
    DatasetWriter,
    ImportReport,
    Mask,
    closing_remarks,
    in_stored_frame,
    remark_on_other_categories,
    safe_name,
)
from semalign3d_core.datasets.label_masks import LabelMasks
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, choice
from semalign3d_core.runtime.files import spelling


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
    masks:        folder of <image name>.png, see :class:`LabelMasks`; nothing: the polygons and run lengths of the file
    frame:        pictures turned by EXIF were annotated as they are ``stored`` or as they are ``displayed``; ``auto``: as the file tells
    """

    categories: tuple = ()
    rename: str = ""
    pairs: tuple = ()
    hidden: str = "drop"
    objects: str = "largest"
    on_bad_input: str = "skip"
    masks: Path | None = None
    frame: Literal["auto", "stored", "displayed"] = "auto"


def import_coco(annotations: Path, images: Path, output: Path, options: CocoOptions | None = None) -> ImportReport:
    """Writes the objects of a COCO keypoint file into the data set folder ``output``; returns the :class:`ImportReport`.

    annotations: the JSON file; images: folder in which its ``file_name`` are found, directly or anywhere below.
    """
    options, report = options or CocoOptions(), ImportReport()
    least = choice("policy for hidden keypoints", options.hidden, {"drop": 2, "keep": 1})  # of COCO's v
    select = choice("policy for several objects", options.objects, {"largest": _largest, "each": lambda items: items})
    content = read_coco(annotations)
    chosen = chosen_categories(content, annotations, options.categories)
    if options.rename and len(chosen) > 1:
        names = ", ".join(category.name for category in chosen)
        raise InputError(f"{annotations} has several categories ({names}); choose one to rename to {options.rename!r}")
    for name in doubled(safe_name(options.rename or category.name) for category in chosen):
        raise InputError(f"{annotations}: several categories would be called {name!r}; take them one by one with --take and --category")
    if not content.annotations:
        report.remarks.append(f"{annotations} holds no annotations; was everything meant to be deleted?")
    paths, pictures = _find_images(content, images, (options.masks, output), report, options.on_bad_input)
    specs = {}
    for category in chosen:
        name = safe_name(options.rename or category.name)
        specs[name] = category.spec(annotations, options.pairs)
        writer = DatasetWriter(output, name, specs[name], annotations, report, options.on_bad_input)
        reader = _ObjectReader(content, category, name, report, least, options, paths.values())
        items = [
            reader.read(paths[image], entry, loose)
            for image, entries, loose in _by_image(content, category, report, options)
            if image in paths
            for entry in select(entries)
        ]
        for item in reader.framed(items):
            writer.write(item)
        writer.finish(pictures)
    remark_on_other_categories(output, annotations, set(specs), report)
    closing_remarks(report, specs)
    return report


def _find_images(
    content: CocoFile, folder: Path, without: tuple, report: ImportReport, on_bad_input: str
) -> tuple[dict[str, Path], set[Path]]:
    """({id: file} of the images that have annotations, all files that the entries name).

    What is missing, or belongs to two entries, is left out and noted.
    """
    used = {key(entry.image_id) for entry in content.annotations if entry.keypoints}
    twice = doubled(key(image.id) for image in content.images)
    for number in sorted(twice & used):
        names = " and ".join(image.file_name for image in content.images if key(image.id) == number)
        report.skip(f"image id {number} belongs to {names}; give every image its own id", on_bad_input)
    finder = ImageFinder(folder, [image.file_name for image in content.images], without)
    found: dict[str, Path] = {}
    pictures = set()
    for image in content.images:
        try:
            path = finder.find(image.file_name)
        except (InputError, MissingFileError) as error:
            if key(image.id) in used - twice:
                report.skip(f"{image.file_name}: {error}", on_bad_input)
            continue
        pictures.add(path)
        if key(image.id) in used - twice:
            found[key(image.id)] = path
    same = doubled(path.resolve() for path in found.values())
    for path in sorted(same):
        ids = [number for number, other in found.items() if other.resolve() == path]
        report.skip(f"{path} is the file of the images {' and '.join(ids)}; keep one entry of them", on_bad_input)
    return {number: path for number, path in found.items() if path.resolve() not in same}, pictures


def _by_image(
    content: CocoFile, category: CocoCategory, report: ImportReport, options: CocoOptions
) -> Iterator[tuple[str, list[CocoAnnotation], list[CocoAnnotation]]]:
    """Yields (image id, [annotations of ``category``], [those of categories without keypoints]), in the order of the file."""
    entries, loose = defaultdict(list), defaultdict(list)
    known = {key(other.id): other for other in content.categories}
    images = {key(image.id) for image in content.images}
    unknown = {key(entry.category_id) for entry in content.annotations} - set(known)
    for entry in content.annotations:
        number, image = key(entry.category_id), key(entry.image_id)
        if number in unknown:
            text = f"annotations have the category {number!r} that the file does not list (ids {', '.join(known)[:80]})"
            report.counted[text] += 1
        elif entry.iscrowd:
            report.counted[f"annotations of {known[number].name!r} are crowd regions (iscrowd) and left out"] += number == key(category.id)
        elif number != key(category.id):
            if not known[number].keypoints:
                loose[image].append(entry)
        elif not entry.keypoints:
            report.counted[f"objects of {category.name!r} have no keypoints and are left out"] += 1
        elif image not in images:
            report.skip(f"annotation {key(entry.id)} belongs to the unknown image {image}", options.on_bad_input)
        elif problem := entry.problem(len(category.keypoints or ())):
            report.skip(f"annotation {key(entry.id)} {problem}", options.on_bad_input)
        else:
            entries[image].append(entry)
    report.counted = +report.counted
    _remark_on_visibility(category, [entry for found in entries.values() for entry in found], report, options.hidden)
    for image, found in entries.items():
        yield image, found, loose[image]


def _remark_on_visibility(category: CocoCategory, entries: list[CocoAnnotation], report: ImportReport, hidden: str) -> None:
    """Tools with visible or not as 1 or 0 mark all keypoints as what COCO calls hidden."""
    marks = {v for entry in entries for v in entry.marks}
    if marks and hidden == "drop" and max(marks) == 1:
        report.remarks.append(f"{category.name}: the file marks visible points with v = 1; give --hidden keep")
    elif marks and max(marks) <= 0:
        report.remarks.append(
            f"{category.name}: all keypoints of the file are marked as not labelled (v = 0); mark them as visible (v = 2)"
        )


def _largest(entries: list[CocoAnnotation]) -> list[CocoAnnotation]:
    def size(entry: CocoAnnotation) -> tuple[int, float]:
        box = entry.box or (0, 0, 0, 0)
        return sum(v == 2 for v in entry.marks), box[2] * box[3]

    return [max(entries, key=size)]


class _ObjectReader:
    """Makes the :class:`AnnotatedObject` of annotations of one category.

    least: smallest v of a keypoint that counts;  name: of the category in the data set;  paths: all images of the file
    """

    def __init__(
        self,
        content: CocoFile,
        category: CocoCategory,
        name: str,
        report: ImportReport,
        least: int,
        options: CocoOptions,
        paths: Iterable[Path],
    ) -> None:
        self._category, self._report, self._least, self._options = category, report, least, options
        self._images: dict[str, CocoImage] = {key(image.id): image for image in content.images}
        self._categories = {key(other.id): other for other in content.categories}
        self._anywhere = content.by_label_studio
        self._same = {spelling(category.name.strip()), spelling(name)}
        self._folder = None if options.masks is None else LabelMasks(options.masks, category.name, paths)

    def read(self, path: Path, entry: CocoAnnotation, loose: list[CocoAnnotation]) -> AnnotatedObject:
        """The object of an annotation and of the ``loose`` ones of its image that belong to it."""
        values = np.array(entry.keypoints, dtype=np.float64).reshape(-1, 3)
        keypoints = np.where(values[:, 2:] >= self._least, values[:, :2], np.nan)
        box, parts = self._parts(entry, loose, values[values[:, 2] > 0, :2])
        corners = box and (box[0], box[1], box[0] + box[2], box[1] + box[3])
        if self._folder is not None:
            folder = self._folder
            mask: Mask = lambda height, width: folder.read(path, values[values[:, 2] > 0, :2])  # noqa: E731
        else:
            mask = lambda height, width: self._joint_mask(parts, height, width)  # noqa: E731
        return AnnotatedObject(path, keypoints, corners, mask, self._images[key(entry.image_id)].size)

    def framed(self, items: list[AnnotatedObject]) -> list[AnnotatedObject]:
        """``items`` with their frame of the picture, stored or displayed."""
        if self._options.frame != "auto":
            return [AnnotatedObject(i.path, i.keypoints, i.box, i.mask, i.size, self._options.frame == "stored") for i in items]
        return in_stored_frame(items, self._report, displayed=self._anywhere)

    def _parts(self, entry: CocoAnnotation, loose: list[CocoAnnotation], points: np.ndarray) -> tuple[Any, list[CocoAnnotation]]:
        """(box or None, annotations whose segmentations make up the mask) of an object with keypoints (N, 2).

        Label Studio writes the rectangle, the polygons and the keypoints of an object as separate annotations, so that only their places
        tell that they belong together: the smallest rectangle around most keypoints, and the polygons of one label with their middle in
        it that are around most keypoints. In files of others only those of a category with the same name count.
        """
        loose = [e for e in loose if e.box]
        if entry.bbox and not entry.box:
            self._report.counted[f"boxes of {self._category.name!r} are not four numbers x, y, width, height, and were left out"] += 1
        boxes, outlines = [e.box for e in self._joined(loose) if e.box], self._joined([e for e in loose if e.segmentation])
        box = entry.box
        if box is None or _is_extent(box, points):
            around = [other for other in boxes if _inside(points, other).sum() > len(points) / 2]
            box = min(around, key=lambda b: b[2] * b[3], default=None)
        if entry.segmentation or box is None:
            return box, [entry]
        groups = defaultdict(list)
        for other in outlines:
            corner, extent = np.reshape(other.box or (), (2, 2))
            if _inside((corner + extent / 2)[None], box).all():
                groups[key(other.category_id)].append(other)
        fitting = {number: parts for number, parts in groups.items() if _inside(points, _hull(parts)).sum() > len(points) / 2}
        groups = defaultdict(list, fitting)
        if not groups:
            return box, [entry]
        number = min(groups, key=lambda n: _hull(groups[n])[2] * _hull(groups[n])[3])
        self._report.counted[f"masks of {self._category.name!r} are polygons of {self._categories[number].name!r}"] += 1
        return box, groups[number]

    def _joined(self, loose: list[CocoAnnotation]) -> list[CocoAnnotation]:
        """Those of a category with the name of the keypoints'; of Label Studio's files all where there are none."""
        named = [e for e in loose if spelling(self._categories[key(e.category_id)].name.strip()) in self._same]
        return named or loose if self._anywhere else named

    def _joint_mask(self, entries: list[CocoAnnotation], height: int, width: int) -> np.ndarray | None:
        found = None
        for entry in entries:
            try:
                mask, left_out = decode_mask(entry.segmentation, height, width)
            except FileFormatError as error:
                if self._options.on_bad_input == "error":
                    raise
                self._report.counted[f"masks of {self._category.name!r} were left out: {error}"] += 1
                continue
            if left_out:
                self._report.counted[f"masks of {self._category.name!r} have parts that are no polygon, which were left out"] += 1
            if mask is not None:
                found = mask if found is None or found.shape != mask.shape else found | mask
        return found


def _hull(entries: list[CocoAnnotation]) -> tuple[float, ...]:
    """(x, y, width, height) around the boxes of ``entries``."""
    boxes = np.array([entry.box for entry in entries])
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    return (*low, *(high - low))


def _inside(points: np.ndarray, box: Any) -> np.ndarray:
    x, y, width, height = box
    return np.all((points >= (x, y)) & (points <= (x + width, y + height)), axis=1)


def _is_extent(box: Any, points: np.ndarray) -> bool:
    """Whether a box is only the extent of the keypoints (N, 2), as CVAT and Label Studio write it: the object is larger."""
    if not len(points):
        return False
    low, high = points.min(0), points.max(0)
    return bool(np.abs(np.array([*low, *(high - low)]) - box).max() < 1.5)
