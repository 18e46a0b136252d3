"""Rendered training samples: pictures with the template coordinates of every second pixel, kept on disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import atomic_path, files_below, read_arrays
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES
from semalign3d_core.runtime.processes import in_processes

SIDE = 288  # of the rendered pictures; the network sees crops of them
STEP = 2  # pixels between places that are kept
SEEDS = 100_000  # instances of one training seed; those of the seeds 0 to 9 are all in the range of the training split
SIMPLE = 5  # every fifth instance is of the simple world
EMPTY = 15  # in every 15th picture the object is left out
PIECES = 6  # of every photograph
CHUNK = 50  # pictures per file: an interrupted rendering loses at most one file per process


class SampleSet:
    """N pictures with their truth, as tensors on the device that trains.

    pictures: (N, 3, 288, 288) uint8;  labels: (N,) int64 category index
    canonical: (N, 3, 144, 144) float16, place on the category's template of every second pixel's surface point; NaN off the object
    boxes:    (N, 3) middle (x, y) and half of the longer side of the object's box, where the picture goes from -1 to 1
    photographs: (M, 3, 288, 288) uint8, what may be put behind and onto the objects
    """

    def __init__(
        self, pictures: torch.Tensor, canonical: torch.Tensor, labels: torch.Tensor, photographs: torch.Tensor | None = None
    ) -> None:
        self.pictures, self.canonical, self.labels = pictures, canonical, labels
        self.photographs = pictures[:0] if photographs is None else photographs
        self.categories = int(labels.max()) + 1
        self.boxes = torch.cat([_boxes(part) for part in canonical.split(CHUNK)])

    @classmethod
    def render(
        cls,
        folder: Path,
        categories: tuple[str, ...],
        counts: list[int],
        seed: int,
        workers: int,
        quiet: bool = False,
        device: str = "cpu",
        pictures: str = "",
    ) -> Any:
        """Renders the samples that are missing in ``folder``, ``counts`` of the categories, and loads all.

        Instances come from the training range. ``pictures``: folder of photographs that the varied world shows.
        """
        jobs = chunk_jobs(Path(folder), categories, counts, seed, pictures)
        missing = [job for job in jobs if not job[0].is_file()]
        rendered = in_processes(render_chunk, missing, workers)
        for _ in tqdm(rendered, total=len(missing), desc="render training samples", disable=quiet or not missing or None):
            pass
        return cls.load(jobs, categories, device)

    @classmethod
    def load(cls, jobs: Any, categories: Sequence[str], device: str = "cpu") -> Any:
        """The samples of finished ``jobs``."""
        pictures, canonical, labels = [], [], []
        for path, category, *_ in jobs:
            stored = read_arrays(path)
            pictures.append(torch.from_numpy(stored["pictures"]).to(device).movedim(3, 1).contiguous())
            canonical.append(torch.from_numpy(stored["canonical"]).to(device).movedim(3, 1).contiguous())
            labels.append(torch.full((len(pictures[-1]),), categories.index(category), device=device))
        return cls(torch.cat(pictures), torch.cat(canonical), torch.cat(labels))

    def draw(self, counts: list[int], generator: torch.Generator) -> torch.Tensor:
        """Indices (B,) of as many random samples of every category as ``counts`` says, one category after the other."""
        score = torch.rand(self.labels.shape, generator=generator, device=self.labels.device)
        chosen = [torch.where(self.labels == c, score, -1.0).topk(count).indices for c, count in enumerate(counts)]
        return torch.cat(chosen)


def photograph_pieces(folder: Path | str, seed: int = 0) -> torch.Tensor:
    """(M, 3, 288, 288) uint8: random squares of all picture files below ``folder``, a few of each."""
    rng, found = np.random.default_rng(seed), []
    files = [path for path in files_below(Path(folder)) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    for path in files:
        rgb = read_image(path).rgb
        for size in rng.uniform(0.3, 1.0, PIECES) * min(rgb.shape[:2]):
            size = int(size)
            top, left = (int(rng.integers(0, length - size + 1)) for length in rgb.shape[:2])
            found.append(cv2.resize(rgb[top : top + size, left : left + size], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(found)).movedim(3, 1).contiguous()


def _boxes(canonical):
    """Boxes (N, 3) of the objects of :class:`SampleSet`."""
    on_object = ~torch.isnan(canonical[:, 0])
    spans = []
    for axis in (1, 2):  # seen along the rows, then along the columns
        seen = on_object.any(axis).float()
        first, last = seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)
        spans.append(torch.stack([first, last], 1) * (2 / seen.shape[1]) - 1)
    low, high = torch.stack(spans, 1).unbind(2)
    return torch.cat([(low + high) / 2, (high - low).amax(1, keepdim=True) / 2], 1)


def chunk_jobs(folder: Path, categories: tuple[str, ...], counts: list[int], seed: int, pictures: str = "") -> list[tuple]:
    """[(file, category, seed, first, end, pictures)] of ``counts`` pictures of the categories, which take turns."""
    if not 0 <= seed < 10 or max(counts) > 2 * SEEDS:
        raise InputError(f"training uses seeds 0 to 9 and up to {2 * SEEDS} images per category, not seed {seed} and {max(counts)}")
    return [
        (folder / f"varied_{category}_{seed}_{first}_{(end := min(first + CHUNK, count))}.npz", category, seed, first, end, pictures)
        for first in range(0, max(counts), CHUNK)
        for category, count in zip(categories, counts, strict=True)
        if first < count
    ]


def render_chunk(job: Any) -> None:
    """Renders and writes the pictures of one job of :func:`chunk_jobs`."""
    from semalign3d_core.datasets.synthetic import WORLDS, sample_rendering
    from semalign3d_core.datasets.synthetic.rendering import RenderConfig

    path, category, seed, start, stop, folder = job
    simple, varied = (RenderConfig(world=world, pictures=folder, samples=1) for world in WORLDS)  # crops are shrunk, which averages rays
    pictures, canonical = [], []
    for index in range(start, stop):
        # Every instance is seen twice, so that there are pairs of views as well as pairs of instances.
        config = simple if index // 2 % SIMPLE == 0 else varied
        config = replace(config, empty=index % EMPTY == EMPTY - 1)
        rendering = sample_rendering(category, seed * SEEDS + index // 2, seed * SEEDS + index, SIDE, config)
        pictures.append(rendering.image)
        canonical.append(rendering.canonical[STEP // 2 :: STEP, STEP // 2 :: STEP].astype(np.float16))
    with atomic_path(path) as temporary:
        np.savez(temporary, pictures=np.stack(pictures), canonical=np.stack(canonical))
