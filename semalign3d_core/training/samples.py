"""Rendered training samples: pictures with the template coordinates of every feature cell, kept on disk."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from semalign3d_core.backbones.compact import INPUT_SIDE
from semalign3d_core.files import atomic_path

SIDE = 240  # of the rendered pictures: crops of them are shrunk, never enlarged
CELL = 4  # pixels between places that are kept
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

    def batch(self, per_category, generator, side=INPUT_SIDE):
        """Draws ``per_category`` samples of every category, cropped, half of them mirrored, and with changed colours.

        Returns images (B, 3, side, side) float in [0, 1], canonical (B, side / 4, side / 4, 3) float32 and labels (B,).
        """
        categories = np.unique(self.labels)
        chosen = np.concatenate([generator.choice(np.flatnonzero(self.labels == c), per_category, replace=False) for c in categories])
        views = [random_crop(self.pictures[index], self.canonical[index], side, generator) for index in chosen]
        pictures = np.stack([picture for picture, _ in views])
        canonical = np.stack([places for _, places in views]).astype(np.float32)
        for index in np.flatnonzero(generator.random(len(chosen)) < 0.5):
            pictures[index] = pictures[index, :, ::-1]
            canonical[index] = canonical[index, :, ::-1] * np.array([-1, 1, 1], np.float32)
        images = change_colours(torch.from_numpy(pictures).movedim(3, 1), generator)
        return images, torch.from_numpy(canonical), torch.from_numpy(self.labels[chosen])


def random_crop(picture, canonical, side, generator):
    """A random square window of 0.75 to 1.1 picture sides, resized to ``side``: its picture and the places of its cells."""
    whole = len(picture)
    window = whole * generator.uniform(0.75, 1.1)
    left, top = generator.uniform(min(0, whole - window), max(0, whole - window), 2)
    step = window / side  # pixels of the whole picture per pixel of the window
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) if side < whole else picture
    ratio = side / whole
    transform = np.array([[step * ratio, 0, (left + step / 2) * ratio - 0.5], [0, step * ratio, (top + step / 2) * ratio - 0.5]])
    view = cv2.warpAffine(small, transform, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=(128, 128, 128))
    cell = whole // len(canonical)
    centres = (np.arange(side // cell) * cell + cell / 2) * step - 0.5
    columns, rows = (np.round((centres + start - cell // 2) / cell).astype(int) for start in (left, top))
    places = canonical[np.clip(rows, 0, len(canonical) - 1)][:, np.clip(columns, 0, len(canonical) - 1)].copy()
    places[(rows < 0) | (rows >= len(canonical))] = np.nan
    places[:, (columns < 0) | (columns >= len(canonical))] = np.nan
    return view, places


def change_colours(pictures, generator):
    """Random brightness, contrast, tint and noise per picture (B, 3, h, w) uint8: colours carry no meaning. Returns [0, 1] floats."""
    count = len(pictures)
    contrast = torch.from_numpy(generator.uniform(0.6, 1.4, (count, 1, 1, 1))).float() / 255
    tint = torch.from_numpy(generator.normal(0, 0.06, (count, 3, 1, 1)) + generator.normal(0, 0.08, (count, 1, 1, 1))).float()
    level = torch.from_numpy(generator.uniform(0, 0.03, (count, 1, 1, 1))).float()
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(int(generator.integers(2**31))))
    return ((pictures.float() - 127.5) * contrast + 0.5 + tint + noise * level).clamp(0, 1)


def _render_chunk(job):
    from semalign3d_core.datasets.synthetic import sample_rendering

    path, category, seed, start, stop = job
    pictures, canonical = [], []
    for index in range(start, stop):
        # Every instance is seen twice, so that there are pairs of views as well as pairs of instances.
        rendering = sample_rendering(category, instance_seed=seed * 100_000 + index // 2, view_seed=seed * 100_000 + index, size=SIDE)
        pictures.append(rendering.image)
        canonical.append(rendering.canonical[CELL // 2 :: CELL, CELL // 2 :: CELL].astype(np.float16))
    with atomic_path(path) as temporary:
        np.savez(temporary, pictures=np.stack(pictures), canonical=np.stack(canonical))
