"""Rendered training samples: pictures with the template coordinates of every feature cell, kept on disk."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from semalign3d_core.backbones.compact import CELLS, INPUT_SIDE
from semalign3d_core.files import atomic_path

CHUNK = 50  # pictures per file: an interrupted rendering loses at most one file per process


class SampleSet:
    """Pictures (N, 240, 240, 3) uint8, canonical coordinates of the cells (N, 60, 60, 3) float16 and category indices (N,)."""

    def __init__(self, pictures, canonical, labels):
        self.pictures, self.canonical, self.labels = pictures, canonical, labels

    @classmethod
    def render(cls, folder, categories, count, seed, workers, quiet=False):
        """Renders the samples that are missing in ``folder`` and loads all; instances come from the training range."""
        folder = Path(folder)
        per_category = -(-count // len(categories))
        jobs = [
            (
                folder / f"{category}_{seed}_{start}_{min(start + CHUNK, per_category)}.npz",
                category,
                seed,
                start,
                min(start + CHUNK, per_category),
            )
            for category in categories
            for start in range(0, per_category, CHUNK)
        ]
        missing = [job for job in jobs if not job[0].is_file()]
        with ProcessPoolExecutor(workers) as pool:
            list(tqdm(pool.map(_render_chunk, missing), total=len(missing), desc="render training samples", disable=quiet or not missing))
        pictures, canonical, labels = [], [], []
        for path, category, *_ in jobs:
            with np.load(path, allow_pickle=False) as stored:
                pictures.append(stored["pictures"])
                canonical.append(stored["canonical"])
            labels.append(np.full(len(pictures[-1]), categories.index(category)))
        return cls(np.concatenate(pictures), np.concatenate(canonical), np.concatenate(labels))

    def batch(self, per_category, generator):
        """Draws ``per_category`` samples of every category, half of them mirrored.

        Returns images (B, 3, 240, 240) float in [0, 1], canonical (B, 60, 60, 3) float32 and labels (B,).
        """
        categories = np.unique(self.labels)
        chosen = np.concatenate([generator.choice(np.flatnonzero(self.labels == c), per_category, replace=False) for c in categories])
        pictures = self.pictures[chosen].astype(np.float32) / 255
        canonical = self.canonical[chosen].astype(np.float32)
        for index in np.flatnonzero(generator.random(len(chosen)) < 0.5):
            pictures[index] = pictures[index, :, ::-1]
            canonical[index] = canonical[index, :, ::-1] * np.array([-1, 1, 1], np.float32)
        pictures = change_colours(pictures, generator)
        return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()), torch.from_numpy(canonical), torch.from_numpy(self.labels[chosen])


def change_colours(pictures, generator):
    """Random brightness, contrast, tint and noise per picture (B, h, w, 3) in [0, 1]: colours carry no meaning."""
    count = len(pictures)
    contrast = generator.uniform(0.6, 1.4, (count, 1, 1, 1))
    tint = generator.normal(0, 0.06, (count, 1, 1, 3)) + generator.normal(0, 0.08, (count, 1, 1, 1))
    noise = generator.normal(0, 1, pictures.shape) * generator.uniform(0, 0.03, (count, 1, 1, 1))
    return np.clip((pictures - 0.5) * contrast + 0.5 + tint + noise, 0, 1).astype(np.float32)


def _render_chunk(job):
    from semalign3d_core.datasets.synthetic import sample_rendering

    path, category, seed, start, stop = job
    pictures, canonical = [], []
    cell = INPUT_SIDE // CELLS
    for index in range(start, stop):
        # Every instance is seen twice, so that there are pairs of views as well as pairs of instances.
        rendering = sample_rendering(category, instance_seed=seed * 100_000 + index // 2, view_seed=seed * 100_000 + index, size=INPUT_SIDE)
        pictures.append(rendering.rgb)
        canonical.append(rendering.canonical[cell // 2 :: cell, cell // 2 :: cell].astype(np.float16))
    with atomic_path(path) as temporary:
        np.savez(temporary, pictures=np.stack(pictures), canonical=np.stack(canonical))
