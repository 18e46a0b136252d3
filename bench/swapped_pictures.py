"""Are pictures with left and right exchanged found? docs/own_category.md.

    python bench/swapped_pictures.py [--categories car chair aeroplane] [--seed 0]

Renders 30 training pictures per category, exchanges the left and right labels of two of them, 20 times, finds the shape without depth as a
build does, and prints how many are found and how many right pictures are accused.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from semalign3d_core.category.annotations.checks import Problems, checked_keypoints, present_keypoints, usable_flip
from semalign3d_core.category.annotations.constellations import constellations
from semalign3d_core.category.annotations.swaps import look_swapped
from semalign3d_core.category.annotations.views import Providers, gather_view
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.report import left_right_odds
from semalign3d_core.category.shape.find import find_shape
from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception import backbones, masks


@dataclass
class Options:
    """Options of the benchmark."""

    dataset: Path | None = None
    """A synthetic data set; nothing renders one."""
    categories: tuple[str, ...] = ("car", "chair", "aeroplane")
    """Categories with a left and a right."""
    backbone: str = "compact"
    """Feature backbone."""
    images: int = 30
    """Pictures per category."""
    swapped: int = 2
    """Pictures whose labels are exchanged."""
    draws: int = 20
    """Draws of these."""
    seed: int = 0
    """Of the rendered pictures."""
    world: str = "simple"
    """simple or varied."""


OF_KEYPOINTS = (
    "keypoints",
    "corrected",
    "keypoint_inverse",
    "keypoint_inset",
    "middle_inverse",
    "keypoint_features",
    "mirrored_keypoint_features",
)


def exchanged(view, flip):
    """The view as if left and right had been exchanged in its annotation."""
    return replace(view, **{name: getattr(view, name)[flip] for name in OF_KEYPOINTS})


def flagged(views, names, flip, config):
    """Indices of the views that look swapped."""
    keypoints = torch.stack([view.keypoints for view in views])
    labels = present_keypoints(keypoints, names, flip, config.policy, Problems()).nonzero()[:, 0]
    shape = find_shape(constellations(views, labels, flip), config)
    return set(np.flatnonzero(look_swapped(left_right_odds(views, shape, flip))).tolist())


def main(options: Options, folder: Path) -> None:
    root = options.dataset or folder
    if options.dataset is None:
        sizes = ["--train", str(options.images), "--val", "0", "--test", "0", "--pairs", "1", "--workers", "1"]
        world = ["--seed", str(options.seed), "--world", options.world]
        semalign3d(["synth", "--output", str(root), "--categories", *options.categories, *sizes, *world])
    dataset, config = FolderDataset(root), BuildConfig()
    providers = Providers(backbones.create(options.backbone, root), None, masks.create("precomputed", root))
    for category in options.categories:
        spec = dataset.keypoint_spec(category)
        flip, views = usable_flip(spec.flip_permutation), []
        for record in dataset.images(category)[: options.images]:
            keypoints = checked_keypoints(record, spec.names)[0]
            if int((~keypoints.isnan()).all(1).sum()) >= config.policy.minimum_keypoints:  # a build leaves the others out
                views.append(gather_view(record, keypoints, providers, config.views, flip))
        found, false = 0, 0
        for seed in range(options.draws):
            swapped = set(np.random.default_rng(seed).choice(len(views), options.swapped, replace=False).tolist())
            shown = [exchanged(view, flip) if n in swapped else view for n, view in enumerate(views)]
            accused = flagged(shown, spec.names, flip, config)
            found, false = found + len(accused & swapped), false + len(accused - swapped)
        total = options.draws * options.swapped
        print(
            f"{category:12s} {len(views)} pictures, {found} of {total} exchanged ones found, {false} right ones accused in {options.draws} "
            f"draws: {30 * false / (options.draws * len(views)):.2f} per 30",
            flush=True,
        )


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        main(chosen, Path(temporary))
