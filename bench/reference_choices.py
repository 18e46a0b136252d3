"""What the choices are worth that the preset ``reference`` makes where the paper says nothing: docs/reference_preset.md.

    python bench/reference_choices.py [--category chair] [--images 6] [--dataset DIR]

Aligns rendered test images (true mask and monocular-like disparity, embedded backbone, shipped model) with the preset and with one choice
changed at a time; prints PCK@0.1 / 0.05 of the visible keypoints, per point, in shares of the object's box.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import tyro

from semalign3d_core.alignment import observation, published
from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.category.storage import find_model, load_model
from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.look import look
from semalign3d_core.runtime.config import load_preset

ALPHAS = (0.1, 0.05)


@dataclass
class Options:
    """Options of the benchmark."""

    category: str = "chair"
    """Category."""
    images: int = 6
    """Test images."""
    dataset: Path | None = None
    """A synthetic data set; nothing renders one."""


def choices() -> dict[str, tuple[Callable[[AlignConfig], AlignConfig], AbstractContextManager]]:
    """{choice: (change of the configuration, what is patched meanwhile)}."""

    def seen(**values):
        return lambda config: replace(config, observation=replace(config.observation, **values))

    def starts(**values):
        return lambda config: replace(config, reference=replace(config.reference, **values))

    decay = patch.object(published.torch.optim, "AdamW", partial(_with_decay, torch.optim.AdamW))
    return {
        "the preset": (lambda config: config, nullcontext()),
        "weight decay 0.01 (PyTorch's default) in place of 0": (lambda config: config, decay),
        "2 focal lengths in place of 4": (starts(focals=(1.1, 2.0)), nullcontext()),
        "8 rotations in place of 4": (starts(rotations=8), nullcontext()),
        "30 sampled pixels in place of 120": (seen(pixels=30), nullcontext()),
        "300 sampled pixels in place of 120": (seen(pixels=300), nullcontext()),
        "all cells in place of the best 96 in Eq. 9": (lambda config: config, patch.object(observation, "SPARSE_CELLS", 10**6)),
        "standard deviations not below 0.001 in place of 0.05": (seen(sd_floor=0.001), nullcontext()),
        "all edges and tetrahedra drawn 512 at a time in place of 128": (
            lambda config: config,
            patch.object(published, "GEOMETRY_ROWS", 512),
        ),
    }


def _with_decay(optimizer, *arguments, weight_decay=0.0, **options):
    return optimizer(*arguments, weight_decay=0.01, **options)


def main(options: Options, folder: Path) -> None:
    root = options.dataset or folder
    if options.dataset is None:
        sizes = ["--train", "0", "--test", str(options.images), "--pairs", "1", "--seed", "77", "--workers", "1"]
        semalign3d(["synth", "--output", str(root), "--categories", options.category, *sizes])
    providers = backbones.create("compact"), depth.create("precomputed", root), masks.create("precomputed", root)
    records = FolderDataset(root).images(options.category)[: options.images]
    evidence = [look(read_image(record.path, record), *providers) for record in records]
    model = load_model(find_model(options.category))
    for name, (changed, patched) in choices().items():
        right = []
        with patched:
            aligner = Aligner(model, changed(load_preset(AlignConfig, "align", "reference")))
            for record, image in zip(records, evidence, strict=True):
                seen = np.isfinite(record.keypoints).all(1)
                unit = max(record.box[2] - record.box[0], record.box[3] - record.box[1])
                right.append(pck_correct(aligner.align(image).keypoints_2d.numpy()[seen], record.keypoints[seen], unit, ALPHAS))
        score = 100 * np.concatenate(right).mean(0)
        print(f"{name:62s} {score[0]:5.1f} / {score[1]:5.1f}", flush=True)


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        main(chosen, Path(temporary))
