"""The shipped models on photographs: README, "Numbers".

    python bench/photographs.py DIR [--boxes] [--others 40] [--sheet out/photographs]

DIR is a folder of photographs in our layout (``JPEGImages``, ``ImageAnnotation``, ``keypoints.json``), or holds several. For each it
prints, per category: photographs; share found; PCK@0.05 / 0.1 / 0.2 of the aligned keypoints, all marked points together, as shares of the
box's longer side; share of right poses (four fifths of the keypoints within 0.2); share of right and found ones; IoU of the mask where
there is a true one, and of its box with the marked box; median errors of elevation and azimuth where the viewpoint is known. Then how
often each category is found in photographs of the others.

An annotation may name points that the object hides (``hidden``: their numbers), which are left out, and a viewpoint (``zenith_deg``,
``azimuth_deg``; azimuths are compared up to one offset per category, and either handedness). Categories are matched by name; a cup counts
as a mug.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.datasets.synthetic import CATEGORIES
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.pipeline import PipelineConfig, create_pipeline
from semalign3d_core.results import write_picture
from semalign3d_core.runtime.pictures import read_labels
from semalign3d_core.visualization.overlay import OverlayStyle, draw_alignment, readable_scale

ALPHAS = (0.05, 0.1, 0.2)
RIGHT_SHARE = 0.8  # of the keypoints within the largest alpha: a right pose
ALSO_CALLED = {"cup": "mug"}
TILE = 320  # pixels, of a sheet


@dataclass
class Options:
    """Options of the benchmark."""

    dir: tyro.conf.Positional[Path]
    """Folder of photographs in our layout, or folder of such folders."""
    categories: tuple[str, ...] = tuple(sorted(CATEGORIES))
    """Categories to score."""
    models: str = ""
    """Folder of category models; nothing takes the shipped ones."""
    backbone: str = "compact"
    """compact, or compact:FILE."""
    masks: str = "auto"
    """Mask source."""
    boxes: bool = False
    """Give the annotated box, as a detector would."""
    others: int = 40
    """Photographs of other categories, spread evenly, in which each category is looked for."""
    sheet: Path | None = None
    """Folder for one sheet of overlays per category."""


@dataclass
class Scores:
    """Of one category: per keypoint whether it is right (N, alphas); per photograph whether found and right, IoUs, viewpoints, overlays."""

    hits: list = field(default_factory=list)
    found: list = field(default_factory=list)
    right: list = field(default_factory=list)
    mask: list = field(default_factory=list)
    box: list = field(default_factory=list)
    views: list = field(default_factory=list)
    tiles: list = field(default_factory=list)
    seconds: list = field(default_factory=list)


def photographs(folder, categories):
    """{category: [(record, names of its keypoints)]} of a folder; empty where it is not in our layout."""
    if not (folder / "ImageAnnotation").is_dir():
        return {}
    dataset, found = FolderDataset(folder), {}
    for name in dataset.categories():
        category = ALSO_CALLED.get(name, name)
        if category in categories:
            found[category] = [(record, dataset.keypoint_spec(name).names) for record in dataset.images(name)]
    return found


def score(pipeline, items, options):
    """:class:`Scores` of the photographs of a category."""
    scores = Scores()
    for record, names in tqdm(items, desc=pipeline.model.category, leave=False, disable=None):
        image = read_image(record.path, record=record)
        start = time.process_time()
        result = pipeline.process(image, **({"box": tuple(record.box)} if options.boxes else {}))
        scores.seconds.append(time.process_time() - start)
        alignment = result.alignment
        scores.found.append(bool(alignment.found))
        score_keypoints(scores, record, names, alignment)
        score_mask(scores, record, result.evidence.mask)
        if "zenith_deg" in record.attributes:
            view = (90.0 - record.attributes["zenith_deg"], float(record.attributes["azimuth_deg"]))
            scores.views.append((*view, *viewpoint(alignment)))
        if options.sheet is not None:
            scores.tiles.append(tile(image.rgb, alignment, result.evidence.mask))
    return scores


def score_keypoints(scores, record, names, alignment):
    hidden = set(record.attributes.get("hidden", ()))
    index = {name: k for k, name in enumerate(alignment.keypoint_names)}
    chosen = [k for k, name in enumerate(names) if name in index and k not in hidden and np.isfinite(record.keypoints[k]).all()]
    if not chosen:
        return
    placed = alignment.keypoints_2d[[index[names[k]] for k in chosen]].numpy()
    x1, y1, x2, y2 = record.box
    hits = pck_correct(placed, record.keypoints[chosen], max(x2 - x1, y2 - y1), ALPHAS)
    scores.hits.append(hits)
    scores.right.append(bool(hits[:, -1].mean() >= RIGHT_SHARE))


def score_mask(scores, record, mask):
    """Overlap of the mask with the true one, and of its box with the marked one."""
    seen = np.zeros((record.height, record.width), bool) if mask is None else mask.cpu().numpy()
    path = record.path.parents[2] / "Segmentation" / record.path.parent.name / f"{record.path.stem}.png"
    if path.is_file():
        truth = read_labels(path) > 0
        scores.mask.append((seen & truth).sum() / max((seen | truth).sum(), 1))
    if record.box is not None:
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(columns) else (0, 0, 0, 0)
        scores.box.append(box_overlap(box, record.box))


def box_overlap(first, second):
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = np.prod(np.clip(high - low, 0, None))
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return float(common / max(areas - common, 1e-9))


def viewpoint(alignment):
    """Elevation and azimuth in degrees from which the camera sees the aligned object (object frame: y up, z to the front)."""
    centre = alignment.keypoints_3d[torch.isfinite(alignment.keypoints_3d[:, 0])].mean(0)
    x, y, z = (-(alignment.rotation.T @ centre) / centre.norm()).tolist()
    return math.degrees(math.asin(max(-1.0, min(1.0, y)))), math.degrees(math.atan2(x, z))


def view_errors(views):
    """Median errors in degrees of elevation and azimuth of (truth, found) viewpoints (N, 4), azimuths up to one offset."""
    truth_up, truth_turn, up, turn = np.array(views).T
    errors = []
    for hand in (1, -1):
        offset = np.deg2rad(turn - hand * truth_turn)
        middle = np.angle(np.exp(1j * offset).mean())
        errors.append(np.rad2deg(np.abs(np.angle(np.exp(1j * (offset - middle))))))
    return float(np.median(np.abs(up - truth_up))), float(min(np.median(error) for error in errors))


def tile(rgb, alignment, mask):
    """The overlay of a photograph with the outline of its mask, on a square of grey."""
    import cv2

    picture = draw_alignment(rgb, alignment, OverlayStyle(scale=readable_scale(rgb)))
    if mask is not None:
        shown = cv2.resize(mask.cpu().numpy().astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, outlines, -1, (255, 220, 0), max(1, max(picture.shape) // 300))
    scale = TILE / max(picture.shape)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:TILE, :TILE]
    square = np.full((TILE, TILE, 3), 128, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square


def sheet(tiles, columns=5):
    """Tiles side by side."""
    empty = np.full((TILE, TILE, 3), 128, np.uint8)
    tiles = tiles + [empty] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[n : n + columns], 1) for n in range(0, len(tiles), columns)])


def print_row(name, scores):
    """Prints the row of a category; returns its PCKs, None where no keypoints are marked."""
    rates = 100 * np.concatenate(scores.hits).mean(0) if scores.hits else None
    pck = " / ".join(f"{rate:.0f}" for rate in rates) if scores.hits else "-"
    both = [f and r for f, r in zip(scores.found, scores.right, strict=True)] if scores.hits else []

    def share(values, digits=0):
        return f"{100 * np.mean(values):.{digits}f}" if len(values) else "-"

    views = "{:.0f} / {:.0f}".format(*view_errors(scores.views)) if scores.views else "-"
    cells = (share(scores.found), pck, share(scores.right), share(both), share(scores.mask, 1), share(scores.box, 1), views)
    print(f"{name:12s}{len(scores.found):6d}" + "".join(f"{cell:>14s}" for cell in cells), flush=True)
    return rates


def main(options):
    torch.set_num_threads(1)
    folders = [options.dir, *sorted(path for path in options.dir.iterdir() if path.is_dir())]
    contents = {folder: photographs(folder, options.categories) for folder in folders}
    pipelines = {}
    for category in options.categories:
        config = PipelineConfig(category=category, models=options.models, backbone=options.backbone, masks=options.masks)
        pipelines[category] = create_pipeline(config)
    heads = ("photos", "found %", "PCK .05/.1/.2", "right %", "found+right", "mask IoU", "box IoU", "view error")
    pooled, seconds = {}, []
    for folder, content in contents.items():
        if not content:
            continue
        print(f"\n{folder.name}\n{'category':12s}{heads[0]:>6s}" + "".join(f"{head:>14s}" for head in heads[1:]))
        table = []
        for category, items in sorted(content.items()):
            scores = score(pipelines[category], items, options)
            table.append(print_row(category, scores))
            pooled.setdefault(category, []).extend(scores.hits)
            seconds.extend(scores.seconds)
            if options.sheet is not None:
                write_picture(options.sheet / f"{folder.name}_{category}.png", sheet(scores.tiles))
        rates = [rates for rates in table if rates is not None]
        if len(rates) > 1:
            print("mean of categories PCK " + " / ".join(f"{rate:.1f}" for rate in np.mean(rates, 0)))
    print_pooled(pooled)
    print(f"median CPU time of a photograph {1000 * np.median(seconds):.0f} ms")
    print_false_finds(pipelines, contents, options.others)


def print_pooled(pooled):
    rates = {category: 100 * np.concatenate(hits).mean(0) for category, hits in pooled.items() if hits}
    if rates:
        print("\nall folders together, PCK@0.1: " + ", ".join(f"{category} {rate[1]:.1f}" for category, rate in rates.items()), end="")
        print("; mean PCK@.05/.1/.2 " + " / ".join(f"{rate:.1f}" for rate in np.mean(list(rates.values()), 0)))


def print_false_finds(pipelines, contents, count):
    """How often every category is found in photographs of the others."""
    every = [(ALSO_CALLED.get(record.category, record.category), record) for content in contents.values()
             for items in content.values() for record, _ in items]  # fmt: skip
    cells, false, tried = [], 0, 0
    for category, pipeline in pipelines.items() if count else ():
        others = [record for name, record in every if name != category]
        others = others[:: max(1, len(others) // count)]
        shown = tqdm(others, desc=f"without {category}", leave=False, disable=None)
        found = sum(bool(pipeline.process(read_image(r.path, record=r)).alignment.found) for r in shown)
        cells.append(f"{category} {found} of {len(others)}")
        false, tried = false + found, tried + len(others)
    if tried:
        print("found in photographs of other things: " + ", ".join(cells) + f"; together {100 * false / tried:.1f} %")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
