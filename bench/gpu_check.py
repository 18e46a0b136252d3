"""Checks a GPU in under five minutes: agreement with the CPU, times cold and warm, images per second.

    python bench/gpu_check.py                                # on a machine with a GPU
    python bench/gpu_check.py --device cpu --images 4        # tries the script itself

Needs nothing but the package: the images are the pictures of its pose templates. Stops with exit code 1 where results differ.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
import tyro

import semalign3d_core
from semalign3d_core.pipeline import load_pipeline

TOLERANCE = 1.0  # pixels by which the median keypoint may differ between devices; networks compute in other precisions there


@dataclass
class Options:
    """Options of the check."""

    category: str = "chair"
    """Category to look for."""
    device: str = "cuda"
    """Device to check."""
    images: int = 64
    """Images that are timed."""


def milliseconds(call, device, repeats):
    """Median wall milliseconds of a call."""
    spent = []
    for _ in range(repeats + 2):  # the first ones set up libraries
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(1e3 * (time.perf_counter() - start))
    return float(np.median(spent[2:]))


def main(options):
    print(f"{torch.cuda.get_device_name() if options.device != 'cpu' else 'CPU'}, PyTorch {torch.__version__}")
    folder = Path(semalign3d_core.__file__).parent / "assets" / "templates" / options.category
    paths = sorted(folder.glob("*/*.jpg"))
    ours, theirs = (
        load_pipeline(options.category, device=device, backbone="compact,runtime=pytorch") for device in (options.device, "cpu")
    )
    differences = []
    for path in paths[: min(8, options.images)]:
        found, expected = ours.process(path).alignment, theirs.process(path).alignment
        if expected.found:
            differences.append(float((found.keypoints_2d - expected.keypoints_2d).norm(dim=-1).nanmedian()))
    print(f"agreement with the CPU on {len(differences)} images: keypoints differ by {np.median(differences):.3f} pixels (median)")
    first = ours.process(paths[0])
    repeats = max(min(options.images, 20), 3)
    for name, call in (
        ("frame, cold", lambda: ours.process(paths[0])),
        ("frame, warm", lambda: ours.process(paths[0], previous=first.alignment)),
        ("alignment, cold", lambda: ours.aligner.align(first.evidence)),
        ("alignment, warm", lambda: ours.aligner.align(first.evidence, first.alignment)),
    ):
        print(f"{name:20s}{milliseconds(call, options.device, repeats):8.1f} ms", flush=True)
    start = time.perf_counter()
    ours.process_batch(list(islice(cycle(paths), options.images)))
    print(f"{'a batch of images':20s}{options.images / (time.perf_counter() - start):8.1f} images/s")
    return 0 if np.median(differences) < TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
