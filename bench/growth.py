"""How the time of an alignment grows: with keypoints, dense points, channels, cells, and images.

    python bench/growth.py [--output docs/images/growth.png] [--repeats 5]

Random categories and random images of them (``bench/throughput.py``): what is measured is the machinery, not accuracy. Printed and drawn:
CPU milliseconds of one thread, the smallest of all repeats, while one size changes and the others keep their usual values.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import throughput
import torch
import tyro

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence

USUAL = {"keypoints": 12, "dense points": 300, "channels": 384, "cells": 48, "images": 1}
TRIED = {
    "keypoints": (6, 12, 24, 48),
    "dense points": (75, 150, 300, 600, 1200),
    "channels": (96, 192, 384, 768, 1536),
    "cells": (24, 48, 72, 96),
    "images": (1, 2, 4, 8),
}


@dataclass
class Options:
    """Options of the benchmark."""

    repeats: int = 5
    """Repetitions; the fastest counts."""
    output: Path | None = None
    """File of the plot; nothing draws none."""


def made(sizes):
    """Model and evidence of the given sizes."""
    throughput.KEYPOINTS, throughput.DENSE = sizes["keypoints"], sizes["dense points"]
    generator = torch.Generator().manual_seed(0)
    model, cells = throughput.random_model("chair", sizes["channels"], generator), sizes["cells"]
    values = torch.nn.functional.normalize(torch.randn(sizes["channels"], cells, cells, generator=generator), dim=0)
    mask = torch.zeros(480, 480, dtype=torch.bool)
    mask[90:390, 90:390] = True
    evidence = ImageEvidence(FeatureMap(values, SquareGrid(480, 480, cells)), PinholeCamera.centred(1.5, 480, 480), mask=mask)
    return model, evidence


def milliseconds(sizes, repeats):
    """(making an aligner, aligning all images cold, warm) in CPU ms."""
    model, evidence = made(sizes)
    rows = []
    for _ in range(repeats):
        start = time.process_time()
        aligner = Aligner(model)
        ready = time.process_time()
        first = [aligner.align(evidence) for _ in range(sizes["images"])][-1]
        cold = time.process_time()
        for _ in range(sizes["images"]):
            aligner.solve(aligner.prepare(evidence), first.tracking)
        rows.append((ready - start, cold - ready, time.process_time() - cold))
    return 1e3 * np.min(rows, axis=0)


def main(options):
    torch.set_num_threads(1)
    milliseconds(USUAL, 1)
    print(f"usual: {', '.join(f'{count} {name}' for name, count in USUAL.items())}; CPU ms of one thread\n")
    print(f"{'':14s}{'':>6s}{'aligner':>10s}{'cold':>8s}{'warm':>8s}")
    found = {}
    for name, counts in TRIED.items():
        found[name] = [milliseconds(USUAL | {name: count}, options.repeats) for count in counts]
        for count, (ready, cold, warm) in zip(counts, found[name], strict=True):
            print(f"{name:14s}{count:6d}{ready:10.1f}{cold:8.1f}{warm:8.1f}", flush=True)
    if options.output is not None:
        draw(found, options.output)


def draw(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(3 * len(found), 3), sharey=True, layout="constrained")
    for panel, (name, rows) in zip(panels, found.items(), strict=True):
        for column, label in enumerate(("making an aligner", "cold", "warm")):
            panel.loglog(TRIED[name], [row[column] for row in rows], "o-", label=label)
        panel.set_xlabel(name)
    panels[0].set_ylabel("CPU ms")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
