"""A model from 15 photographs of one's own, without a download: docs/own_category.md, "What to expect of fifteen photographs".

    python bench/own_photographs.py DIR [--categories car winebottle] [--backbone efficientnet_lite:0] [--masks compact]

DIR is a folder of photographs in our layout, for example PF-WILLOW's (Ham et al. 2016). Of every category every fourth photograph is kept
for the test; 15 of the others are imported and built from as docs/own_category.md says, with the real commands. Nothing is downloaded:
masks are those of the embedded mask source within the marked box, depth is what the outline would enclose if the object were puffed up.
Prints, for the kept ones, the share found and PCK@0.05 / 0.1 / 0.2 (shares of the box's longer side), from the picture alone and with
the marked box.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from photographs import Options as Scoring
from photographs import print_row, score

from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception import masks
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.pipeline import PipelineConfig, create_pipeline

EVERY = 4  # photograph is kept
PAIRS = {"winebottle": "part_B:part_A part_C:part_D part_E:part_F part_G:part_H part_I:part_J"}  # left and right


@dataclass
class Options:
    """Options of the benchmark."""

    dir: tyro.conf.Positional[Path]
    """Folder of photographs in our layout."""
    categories: tuple[str, ...] = ("car", "winebottle")
    """Categories to build, each from photographs of its own."""
    own: int = 15
    """Photographs to build from."""
    backbone: str = "efficientnet_lite:0"
    """Feature backbone."""
    masks: str = "compact"
    """Mask source."""


def marked(records, names):
    """The photographs' keypoints as the JSON that ``semalign3d import`` reads."""
    return {
        record.path.name: {
            name: place.tolist() if np.isfinite(place).all() else None for name, place in zip(names, record.keypoints, strict=True)
        }
        for record in records
    }


def inflated(mask):
    """Disparity (h, w) of a mask (h, w): as thick as it is wide, and nothing beside it."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    widest = max(inside.max(), 1.0)
    return 1 + 0.1 * np.sqrt(np.clip(inside * (2 * widest - inside), 0, None)) / widest * mask


def build(options, folder, category, records, names):
    """Imports and builds; returns the folder of the model."""
    points, outlines = folder / f"{category}.json", folder / f"{category}_masks"
    points.write_text(json.dumps(marked(records, names)))
    data, models = folder / category, folder / "models"
    source, found = masks.create(options.masks), {}
    outlines.mkdir()
    for record in records:
        mask = source.segment(read_image(record.path, record=record), box=tuple(record.box))
        found[record.path.stem] = np.zeros((record.height, record.width), bool) if mask is None else mask.numpy()
        cv2.imwrite(str(outlines / f"{record.path.stem}.png"), found[record.path.stem].astype(np.uint8))
    semalign3d(["import", str(points), "--images", str(records[0].path.parent), "--output", str(data), "--category", category,
                "--masks", str(outlines), "--left-right", PAIRS.get(category, ""), "--split", "0"])  # fmt: skip
    (data / "Depth" / category).mkdir(parents=True)
    for name, mask in found.items():
        np.savez(data / "Depth" / category / f"{name}.npz", depth=inflated(mask), kind="disparity")
    semalign3d(["build", "--dataset", str(data), "--category", category, "--backbone", options.backbone, "--output", str(models)])
    return models


def main(options):
    torch.set_num_threads(1)
    dataset = FolderDataset(options.dir)
    with tempfile.TemporaryDirectory() as work:
        for category in options.categories:
            records, names = sorted(dataset.images(category), key=lambda record: record.path.name), dataset.keypoint_spec(category).names
            kept = records[EVERY - 1 :: EVERY]
            own = [record for record in records if record not in kept][: options.own]
            models = build(options, Path(work), category, own, names)
            config = PipelineConfig(category=category, models=str(models), backbone=options.backbone, masks=options.masks)
            pipeline = create_pipeline(config)
            for boxes in (False, True):
                scores = score(pipeline, [(record, names) for record in kept], Scoring(options.dir, boxes=boxes))
                print_row(f"{category[:6]} box" if boxes else category, scores)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
