"""Resident memory of a process that looks for an object, step by step.

    python bench/memory.py [--category bottle]

The picture shows no such object: after some frames another place is searched (ImageNet's classes), and then the memory for that is
given back, as a node does while nothing is found.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import argparse
from pathlib import Path

import numpy as np


def tell(step):
    values = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    resident, own = (int(values[key]) / 1024 for key in ("Rss:", "Anonymous:"))
    print(f"{step:42s}{resident:8.0f}{own:8.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="bottle")
    options = parser.parse_args()
    print(f"{'MiB':42s}{'all':>8s}{'private':>8s}")
    tell("Python and NumPy")
    import torch

    torch.set_num_threads(1)
    tell("PyTorch")
    from semalign3d_core import load_pipeline

    tell("this package")
    pipeline = load_pipeline(options.category, device="cpu")
    tell("pipeline")
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    for _ in range(5):
        pipeline.process(picture, search=False)
    tell("five frames")
    pipeline.process(picture)
    tell("a search")
    pipeline.mask_source.rest()
    tell("at rest")


if __name__ == "__main__":
    main()
