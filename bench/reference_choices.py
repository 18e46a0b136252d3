"""What the choices are worth that the preset ``reference`` makes where the paper says nothing or we differ: the table of docs/methods.md.

    python bench/reference_choices.py [--category chair] [--images 4] [--dataset DIR] [--only PART OF A NAME ...]

Renders a category with simulated features (no network is involved), true masks and monocular-like disparity, builds its model from 40
images, and aligns test images with the preset and with one choice changed at a time. Prints PCK@0.1 / 0.05 of the visible keypoints, per
point, in shares of the object's box.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import tyro

from semalign3d_core.alignment import judgement, observation, published
from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.config import AlignConfig
from semalign3d_core.category.storage import load_model
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
    images: int = 4
    """Test images."""
    dataset: Path | None = None
    """Folder of the synthetic data set and its model; what is there is used again. Default: a temporary one."""
    only: tuple[str, ...] = ()
    """Only choices whose names hold one of these."""


def choices() -> dict[str, tuple[Callable[[AlignConfig], AlignConfig], AbstractContextManager]]:
    """{choice: (change of the configuration, what is patched meanwhile)}."""

    def seen(**values):
        return lambda config: replace(config, observation=replace(config.observation, **values))

    def starts(**values):
        return lambda config: replace(config, reference=replace(config.reference, **values))

    def same(config):
        return config

    decay = patch.object(published.torch.optim, "AdamW", partial(_with_decay, torch.optim.AdamW))
    return {
        "the preset": (same, nullcontext()),
        "winner by the loss of the last step": (same, patch.object(published.AdamWSolver, "solve", _least_loss)),
        "winner without the order in depth": (same, patch.object(judgement, "depth_order", _no_order)),
        "order in depth of neighbours in place of the whole object": (same, patch.object(judgement, "depth_order", _local_order)),
        "starts whose face looks away discarded (for flat categories)": (same, patch.object(published.AdamWSolver, "solve", _facing)),
        "winner without the cost of unusual views": (lambda config: replace(config, view_weight=0.0), nullcontext()),
        "weight decay 0.01 (PyTorch's default) in place of 0": (same, decay),
        "2 focal lengths in place of 4": (starts(focals=(1.1, 2.0)), nullcontext()),
        "8 rotations in place of 4": (starts(rotations=8), nullcontext()),
        "30 sampled pixels in place of 120": (seen(pixels=30), nullcontext()),
        "300 sampled pixels in place of 120": (seen(pixels=300), nullcontext()),
        "all cells in place of the best 96 in Eq. 9": (same, patch.object(observation, "SPARSE_CELLS", 10**6)),
        "standard deviations not below 0.001 in place of 0.05": (seen(sd_floor=0.001), nullcontext()),
        "512 rows of Eq. 10 in every step in place of 128": (same, patch.object(published, "GEOMETRY_ROWS", 512)),
    }


def _with_decay(optimizer, *arguments, weight_decay=0.0, **options):
    return optimizer(*arguments, weight_decay=0.01, **options)


SOLVE = published.AdamWSolver.solve
SOLVED: dict[int, object] = {}  # {image: solutions of the preset}: choices of the winner start from them
IMAGE = [0]  # that is aligned
FRONT: list[torch.Tensor] = []  # (3,) direction of the object's frame that faces the cameras of the training images
NEIGHBOURS = 0.1  # distance in the image, of its longer side


def _solved(solver, observation):
    """The solutions of the preset, found once."""
    if IMAGE[0] not in SOLVED:
        SOLVED[IMAGE[0]] = SOLVE(solver, observation)
    return SOLVED[IMAGE[0]]


def _least_loss(solver, observation):
    """The published winner: the start whose loss (Eq. 13 with the weights of the last step) is the smallest."""
    found = _solved(solver, observation)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        loss = solver._energy(observation, found.keypoints, found.focal, solver.config.steps, generator)
    best = loss.argmin()[None]
    return replace(found, keypoints=found.keypoints[best], focal=found.focal[best], rotations=found.rotations[best])


def _facing(solver, observation):
    """The solutions that turn their front to the camera, the side that most training images show; all of them if none does."""
    found = _solved(solver, observation)
    facing = (found.rotations @ FRONT[0])[:, 2] < 0
    keep = facing if facing.any() else ~facing
    return replace(found, keypoints=found.keypoints[keep], focal=found.focal[keep], rotations=found.rotations[keep])


def _no_order(image, solutions):
    return torch.zeros(len(solutions.points))


def _local_order(image, solutions):
    """How well the order in depth of neighbouring points of the cloud agrees with the depth map, from -1 to 1."""
    cloud = solutions.front.shape[1]
    place, near = solutions.projected[:, :cloud], 1 / solutions.points[:, :cloud, 2].clamp(min=1e-3)
    seen = image.inverse_depth(place)
    usable = solutions.front & torch.isfinite(seen)
    both = (torch.cdist(place, place) < NEIGHBOURS) & usable[:, :, None] & usable[:, None]
    alike = [(values[:, :, None] - values[:, None]).sign() for values in (near, seen.nan_to_num())]
    return (alike[0] * alike[1] * both).sum((1, 2)) / both.sum((1, 2)).clamp(min=1)


def main(options: Options, folder: Path) -> None:
    root, models = options.dataset or folder, (options.dataset or folder) / "models"
    sizes = ["--train", "40", "--test", str(options.images), "--pairs", "80", "--seed", "77", "--workers", "1", "--features", "sim"]
    semalign3d(["synth", "--output", str(root), "--categories", options.category, *sizes])
    inputs = ["--backbone", "precomputed:sim", "--depth", "precomputed", "--masks", "precomputed"]
    if not (models / f"{options.category}.safetensors").is_file():
        semalign3d(["build", "--dataset", str(root), "--category", options.category, *inputs, "--output", str(models)])
    providers = backbones.create("precomputed:sim", root), depth.create("precomputed", root), masks.create("precomputed", root)
    records = FolderDataset(root).images(options.category, "test")[: options.images]
    evidence = [look(read_image(record.path, record), *providers) for record in records]
    model = load_model(models / f"{options.category}.safetensors")
    FRONT[:] = [-model.pose_rotations[:, 2].mean(0)]
    for name, (changed, patched) in choices().items():
        if options.only and not any(part in name for part in options.only):
            continue
        right, started = [], time.process_time()
        with ExitStack() as stack:
            if name.startswith(("the preset", "winner", "order", "starts")):
                stack.enter_context(patch.object(published.AdamWSolver, "solve", _solved))
            stack.enter_context(patched)
            aligner = Aligner(model, changed(load_preset(AlignConfig, "align", "reference")))
            for IMAGE[0], (record, image) in enumerate(zip(records, evidence, strict=True)):
                seen = np.isfinite(record.keypoints).all(1)
                unit = max(record.box[2] - record.box[0], record.box[3] - record.box[1])
                right.append(pck_correct(aligner.align(image).keypoints_2d.numpy()[seen], record.keypoints[seen], unit, ALPHAS))
        score = 100 * np.concatenate(right).mean(0)
        print(f"{name:62s} {score[0]:5.1f} / {score[1]:5.1f}   {time.process_time() - started:5.0f} s of CPU", flush=True)


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        main(chosen, Path(temporary))
