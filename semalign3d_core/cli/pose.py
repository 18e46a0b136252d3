"""Say from which side objects are seen, by comparing them with template pictures of the four sides.

Templates of aeroplane, car, chair, mug and tvmonitor come with the package (--category). With --labels: how often that is right.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from semalign3d_core.cli.inputs import input_images, read_input, result_names
from semalign3d_core.matchers.pose_prediction import PosePrediction
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.runtime.errors import FileFormatError, InputError, SemAlign3DError
from semalign3d_core.runtime.files import read_text, reading, write_json


@dataclass(frozen=True)
class Options(ProviderOptions):
    """Options of ``semalign3d pose``."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files, or folders of images."""
    category: str = ""
    """Category whose shipped templates are used, instead of --templates."""
    templates: Path | None = None
    """Folder of template sets: TEMPLATES/<set>/back.jpg, front.jpg, left.jpg, right.jpg (any image format), three sets as published."""
    compare: tuple[str, ...] = ()
    """Further backbones: each predicts all images, too, and gets a row in the table of --labels."""
    masks: str = "none"
    """Mask source, so that only the object counts: none, precomputed, compact; with a category model similarity:FILE or
    sam2:tiny,prompt_model=FILE."""
    labels: Path | None = None
    """CSV file of image names and the sides that they show (back, front, left, right): prints how often the votes are right."""
    dataset: Path | None = None
    """Data set folder that the images belong to; needed by precomputed features and masks."""
    cells: int = 128
    """Side of the grid on which features are compared; 128 as published, fewer are faster."""
    pictures: bool = True
    """Write NAME.imd.png, too: how far each part of the object is from every template (of --backbone)."""
    output: Path = Path("out")
    """Folder for NAME.pose.json of every image, and pose_table.json."""


def run(options: Options) -> int:
    """Predicts the pose of all images; a bad one is reported and does not stop the others. Returns 1 if there was one, else 0."""
    from semalign3d_core.matchers.pose_prediction import PoseTable, read_templates, shipped_templates

    if (options.templates is None) == (not options.category):
        raise InputError("give either --templates DIR or --category NAME")
    files, labels = input_images(options.images), None if options.labels is None else read_labels(options.labels)
    templates = read_templates(options.templates or shipped_templates(options.category))
    failed, rows = 0, {}
    for spec in (options.backbone, *options.compare):
        rows[spec] = PoseTable()
        for truth, found in _predictions(options, spec, files, templates, labels):
            if found is None:
                failed += 1
            elif truth is not None:
                rows[spec].add(truth, found)
    if labels is not None:
        table = [{"features": "compact" if spec == "auto" else spec, **row.summary()} for spec, row in rows.items()]
        write_json(options.output / "pose_table.json", table)
        print(table_text(table))
    return 1 if failed else 0


def _predictions(options, spec, files, templates, labels):
    """Yields (labelled side or None, :class:`PosePrediction` or None where it failed) of every image; writes the files of each."""
    from tqdm import tqdm

    from semalign3d_core.category.storage import load_model
    from semalign3d_core.matchers.pose_prediction import PosePredictor
    from semalign3d_core.perception import backbones, masks
    from semalign3d_core.perception.backbones.pair_features import pair_features

    backbone = backbones.create(spec, options.dataset)
    segmenter = masks.create(options.masks, options.dataset, backbone=backbone, load_model=load_model)
    predictor, main = PosePredictor(pair_features(backbone), templates, options.cells), spec == options.backbone
    for file, name in tqdm(
        list(zip(files, result_names(files), strict=True)), unit="image", disable=len(files) == 1 or None, file=sys.stderr
    ):
        try:
            image = read_input(file, options.dataset)
            mask = None if segmenter is None else segmenter.segment(image)
            described = predictor.features.describe(image)
            maps = predictor.maps(described, mask)
            found = predictor.judge(maps)
            if main:
                path = options.output / f"{name}.pose.json"
                write_json(path, result(image, found, list(templates), mask is not None))
                if options.pictures:
                    write_picture(options.output / f"{name}.imd.png", image, maps, described.padding, templates)
                tqdm.write(f"{image.name}: {found.view} ({found.front_back}, {found.left_right}) -> {path}", file=sys.stdout)
        except SemAlign3DError as error:
            found = None
            tqdm.write(f"semalign3d pose: {error}", file=sys.stderr)
        yield None if labels is None else labels.get(file.name, labels.get(file.stem)), found


def write_picture(path: Any, image: Any, maps: Any, padding: str, templates: Any) -> None:
    """One row per template set: the image with its distances ``maps`` to each view over it, and the template beside it."""
    import numpy as np

    from semalign3d_core.geometry.image_grid import SquareGrid
    from semalign3d_core.matchers.pose_prediction import VIEWS
    from semalign3d_core.results import write_picture as write
    from semalign3d_core.visualization.distance_picture import captioned, distance_panel, in_rows

    maps = [m.cpu().numpy() for m in maps]
    limits = tuple(np.nanpercentile(np.stack(maps), (2, 98))) if any(np.isfinite(m).any() for m in maps) else (0.0, 1.0)
    grid = SquareGrid(image.height, image.width, maps[0].shape[0], padding)
    rows, left = [], iter(maps)
    for name, views in templates.items():
        row = []
        for view in VIEWS:
            distances = next(left)
            mean = np.nanmean(distances) if np.isfinite(distances).any() else np.nan
            row += [captioned(views[view].rgb, f"{name} {view}"), distance_panel(image.rgb, grid, distances, limits, f"{mean:.3f}")]
        rows.append(row)
    write(path, in_rows(rows))


def read_labels(path: Path) -> dict[str, str]:
    """{image name, with or without suffix: side} of a CSV file with two columns; a first line without a side is a header."""
    from semalign3d_core.matchers.pose_prediction import VIEWS

    text = read_text(path, missing="it lists image names and the sides they show")
    with reading(path, "expected a table with commas"):
        rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and rows[0][-1].strip() not in VIEWS:
        rows = rows[1:]
    for row in rows:
        if len(row) != 2 or row[1].strip() not in VIEWS:
            raise FileFormatError(f"{path}: {','.join(row)!r} is no image name with one of {', '.join(VIEWS)}")
    return {name.strip(): side.strip() for name, side in rows}


def table_text(table: Sequence[dict[str, Any]]) -> str:
    """The table of :class:`PoseTable` for the terminal."""
    columns = [name for name in table[0] if name != "features"]
    lines = [f"{'features':28s} " + " ".join(f"{name:>10s}" for name in columns)]
    for row in table:
        cells = ("-" if row[name] is None else f"{row[name]}" for name in columns)
        lines.append(f"{row['features']:28s} " + " ".join(f"{cell:>10s}" for cell in cells))
    return "\n".join(lines)


def result(image: ImageInput, found: PosePrediction, sets: list[str], masked: bool) -> dict[str, Any]:
    """The JSON of one image: votes, and the distances to all templates."""
    from semalign3d_core.matchers.pose_prediction import VIEWS

    distances = {name: dict(zip(VIEWS, row, strict=True)) for name, row in zip(sets, found.distances.tolist(), strict=True)}
    votes = {"view": found.view, "front_back": found.front_back, "left_right": found.left_right}
    return {"image": image.name, **votes, "masked": masked, "distances": distances}
