"""Are pictures with left and right exchanged found by the features of their keypoints? docs/own_category.md.

    python bench/swapped_pictures.py [--categories car chair aeroplane]

Renders 30 training pictures per category, exchanges the left and right labels of two of them, 20 times, and prints how many are found and
how many honest pictures are accused.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from semalign3d_core.category.annotations.checks import checked_keypoints, usable_flip
from semalign3d_core.category.annotations.swaps import left_right_scores, look_swapped
from semalign3d_core.category.annotations.views import Providers, gather_view
from semalign3d_core.category.config import ViewOptions
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


def exchanged(view, flip):
    return replace(
        view,
        keypoints=view.keypoints[flip],
        keypoint_features=view.keypoint_features[flip],
        mirrored_keypoint_features=view.mirrored_keypoint_features[flip],
    )


def main(options: Options, folder: Path) -> None:
    root = options.dataset or folder
    if options.dataset is None:
        sizes = ["--train", str(options.images), "--val", "0", "--test", "0", "--pairs", "1", "--workers", "1"]
        semalign3d(["synth", "--output", str(root), "--categories", *options.categories, *sizes])
    dataset = FolderDataset(root)
    providers = Providers(backbones.create(options.backbone, root), None, masks.create("precomputed", root))
    for category in options.categories:
        spec = dataset.keypoint_spec(category)
        flip = usable_flip(spec.flip_permutation)
        records = dataset.images(category)[: options.images]
        views = [gather_view(r, checked_keypoints(r, spec.names)[0], providers, ViewOptions(), flip) for r in records]
        found, false = 0, 0
        for seed in range(options.draws):
            swapped = set(np.random.default_rng(seed).choice(len(views), options.swapped, replace=False).tolist())
            shown = [exchanged(view, flip) if n in swapped else view for n, view in enumerate(views)]
            flagged = set(np.flatnonzero(look_swapped(left_right_scores(shown, flip))).tolist())
            found, false = found + len(flagged & swapped), false + len(flagged - swapped)
        total = options.draws * options.swapped
        print(
            f"{category:12s} {found} of {total} found, {false} of {options.draws * len(views) - total} honest pictures accused", flush=True
        )


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        main(chosen, Path(temporary))
