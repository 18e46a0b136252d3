"""How long many images take to be aligned whose features are cached: one thread, two threads, two processes.

    python bench/batch.py                               # 1000 images, features as of the embedded backbone
    python bench/batch.py --channels 768 --cells 60     # as of DINOv2

Random features and a random category model (``throughput.py``): what is measured is the machinery, not accuracy. Features and masks lie
on disk, in files of their own; as many as ``--files``, again and again.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import functools
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import throughput
import torch
import tyro

from semalign3d_core.category.storage import save_model
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.pipeline import PipelineConfig, create_pipeline
from semalign3d_core.runtime import processes, threads


@dataclass
class Options:
    """Options of the benchmark."""

    images: int = 1000
    """Images aligned in each way."""
    workers: int = 2
    """Threads and processes."""
    channels: int = 128
    """Of the features."""
    cells: int = 48
    """Of the features, along a side."""
    files: int = 100
    """Different images."""


def make_folder(folder, options):
    """A data set folder with features and masks, and a category model."""
    throughput.CELLS, generator = options.cells, torch.Generator().manual_seed(0)
    throughput.write_head(folder)
    model = throughput.random_model("chair", options.channels, generator)
    save_model(model, folder / "chair.safetensors")
    for number in range(options.files):
        throughput.write_image(folder, "chair", f"{number:04d}", model, generator)


@functools.cache
def made(folder):
    """Data set and pipeline; every process makes its own."""
    config = PipelineConfig(str(folder / "chair.safetensors"), backbone="precomputed:random", masks="precomputed", device="cpu")
    return FolderDataset(folder), create_pipeline(config, folder)


def read(folder, name):
    record = made(folder)[0].image("chair", name)
    return read_image(record.path, record)


def aligned(folder, name):
    """(confidence, CPU seconds) of an image."""
    start = time.thread_time()
    confidence = made(folder)[1].process(read(folder, name)).alignment.confidence
    return confidence, time.thread_time() - start


def one_thread(folder, names, workers):
    with threads.one_thread():
        return [aligned(folder, name) for name in names]


def several_threads(folder, names, workers):
    return list(threads.in_parallel(functools.partial(aligned, folder), names, workers))


def several_processes(folder, names, workers):
    return list(processes.in_processes(functools.partial(aligned, folder), names, workers))


def main(options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder, options)
        names = list(islice(cycle(f"{number:04d}" for number in range(options.files)), options.images))
        print(f"{options.images} images, {options.channels} channels, {options.cells} x {options.cells} cells, {options.workers} workers")
        print(f"{'':18s}{'seconds':>9s}{'CPU s':>8s}{'images/s':>10s}")
        expected = one_thread(folder, names[: options.files], 1)
        for way in (one_thread, several_threads, several_processes):
            start = time.perf_counter()
            found, spent = np.transpose(way(folder, names, options.workers))
            seconds = time.perf_counter() - start
            assert all(abs(a - b[0]) < 1e-5 for a, b in zip(found, cycle(expected), strict=False)), way.__name__
            print(f"{way.__name__:18s}{seconds:9.1f}{spent.sum():8.1f}{options.images / seconds:10.1f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
