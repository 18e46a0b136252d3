"""Import of plain folders: images, and one CSV or JSON file of keypoints."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets.image_finder import ImageFinder
from semalign3d_core.datasets.importing import AnnotatedObject, DatasetWriter, ImportReport, closing_remarks, in_stored_frame, safe_name
from semalign3d_core.datasets.label_masks import LabelMasks
from semalign3d_core.datasets.left_right import flip_permutation
from semalign3d_core.datasets.records import KeypointSpec
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_json, read_text, reading, shown


def import_table(
    table: Path,
    images: Path,
    output: Path,
    category: str,
    pairs: tuple[tuple[str, str], ...] = (),
    masks: Path | None = None,
    on_bad_input: str = "skip",
    frame: str = "auto",
) -> ImportReport:
    """Writes a plain folder into the data set folder ``output``; returns the :class:`ImportReport`.

    table: CSV or JSON file (see ``read_table``); images: folder of the images; category: name in the data set;
    pairs: left/right pairs of names that the names do not tell; masks: folder of <image name>.png, see
    :class:`LabelMasks`; frame: see :class:`~semalign3d_core.datasets.import_coco.CocoOptions`.
    """
    names, rows = read_table(table)
    spec, report = KeypointSpec(names, flip_permutation(names, pairs)), ImportReport()
    finder = ImageFinder(images, rows, (masks, output))
    found: dict[Path, str] = {}
    items = []
    for name, points in rows.items():
        keypoints = np.array([points.get(label, (np.nan, np.nan)) for label in names], dtype=np.float64)
        try:
            path = finder.find(name)
            if path.resolve() in found:
                raise InputError(f"{path} is the image of {found[path.resolve()]!r} and of {name!r}; keep one of them")
        except (InputError, MissingFileError) as error:
            report.skip(str(error), on_bad_input)
            continue
        found[path.resolve()] = name
        items.append(AnnotatedObject(path, keypoints))
    if masks is not None:
        labels = LabelMasks(masks, category, found)
        items = [replace(item, mask=partial(_mask, labels, item.path, item.keypoints)) for item in items]
    writer = DatasetWriter(output, category, spec, table, report, on_bad_input)
    if frame == "auto":
        items = in_stored_frame(items, report)
    for item in items:
        writer.write(item if frame == "auto" else replace(item, stored=frame == "stored"))
    writer.finish(set(found))
    closing_remarks(report, {safe_name(category): spec})
    return report


def _mask(labels: LabelMasks, path: Path, keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    return labels.read(path, keypoints)


def read_table(path: Path) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """(names, {image: {name: (x, y)}}) of a file of keypoints, names in the order of their first appearance.

    JSON: ``{"a.jpg": {"nose": [x, y], "tail": null}, ...}``. CSV, either one line per keypoint with the header
    ``image,keypoint,x,y``, or one line per image with ``image,nose_x,nose_y,tail_x,tail_y``; empty cells are not annotated.
    """
    path = Path(path)
    rows = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    names = tuple(dict.fromkeys(name for points in rows.values() for name in points))
    if not names:
        raise FileFormatError(f"{path} holds no keypoint")
    return names, {image: {n: p for n, p in points.items() if p is not None} for image, points in rows.items()}


def _read_json(path: Path) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(points, dict) for points in content.values()):
        raise FileFormatError(f'{path}: expected {{"image.jpg": {{"keypoint": [x, y], ...}}, ...}}, or a COCO keypoint file')
    return {image: {name: _point(value, f"{path}: {image}: {name}") for name, value in points.items()} for image, points in content.items()}


def _read_csv(path: Path) -> dict[str, dict[str, Any]]:
    text = "\n".join(read_text(path).splitlines())  # also those of old Macs
    if text.lower().startswith("sep="):  # of Excel
        text = text.partition("\n")[2]
    first = text.partition("\n")[0]
    with reading(path, "expected a table with commas, semicolons or tabs"):
        reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, delimiter=max(",;\t", key=first.count))
        header = [(name or "").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        lines = list(reader)
    for name in header:
        if header.count(name) > 1:
            raise FileFormatError(f"{path}: the column {name!r} occurs twice; keep one")
    if {"image", "keypoint", "x", "y"} <= set(header):
        return _long_table(lines, path)
    names = [name[:-2] for name in header if name.endswith("_x") and f"{name[:-2]}_y" in header]
    if "image" not in header or not names:
        raise FileFormatError(f"{path}: the header is {','.join(header)!r}, expected image,keypoint,x,y or image,NAME_x,NAME_y,...")
    table: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 2):
        _once(table, line["image"], f"{path}: line {number}")
        table[line["image"]] = {name: _cells(line[f"{name}_x"], line[f"{name}_y"], f"{path}: line {number}: {name}") for name in names}
    return table


def _long_table(lines: list[dict[str, str]], path: Path) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    for number, line in enumerate(lines, 2):
        where = f"{path}: line {number}"
        _once(table[line["image"]], line["keypoint"], where)
        table[line["image"]][line["keypoint"]] = _cells(line["x"], line["y"], f"{where}: {line['keypoint']}")
    return dict(table)


def _once(known: Collection[str], name: str, where: str) -> None:
    if not name:
        raise FileFormatError(f"{where}: a name is missing")
    if name in known:
        raise FileFormatError(f"{where}: {name} occurs twice; keep one")


def _cells(x: str | None, y: str | None, where: str) -> tuple[float, float] | None:
    if not (x or "").strip() and not (y or "").strip():
        return None
    return _point([x, y], where)


def _point(value: Any, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        x, y = (float(number.replace(",", ".") if isinstance(number, str) else number) for number in value)  # commas of tables from Europe
    except (TypeError, ValueError, OverflowError):
        raise FileFormatError(f"{where} is {shown(value)}, expected two numbers x, y") from None
    if math.isinf(x) or math.isinf(y):
        raise FileFormatError(f"{where} is {shown(value)}, expected two finite numbers x, y")
    return None if math.isnan(x) or math.isnan(y) else (x, y)
