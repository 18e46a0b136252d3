"""How build, alignment and evaluation grow with keypoints, dense points, channels, cells, images, categories and pairs.

    python bench/growth.py [--output docs/images/growth.png] [--repeats 3]

Random categories and random images of them (``throughput.py``, ``build_speed.py``): what is measured is the machinery, not accuracy.
Printed and drawn: CPU time of one thread, the smallest of all repeats, while one size changes and the others keep their usual values.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import build_speed
import numpy as np
import throughput
import torch
import tyro

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.category.config import BuildConfig, DenseOptions
from semalign3d_core.datasets.tables import SPAIR_CATEGORIES
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.evaluation.run.runner import evaluate
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.evidence import FeatureMap, ImageEvidence


@dataclass
class Options:
    """Options of the benchmark."""

    repeats: int = 3
    """Repetitions; the fastest counts."""
    only: tuple[str, ...] = ("build", "alignment", "evaluation")
    """What is measured."""
    output: Path | None = None
    """File of the plot; nothing draws none."""


class Alignment:
    """One image, or several."""

    columns, unit = ("making an aligner", "cold", "warm"), "ms"
    usual = {"keypoints": 12, "dense points": 300, "channels": 384, "cells": 48, "images": 1}
    tried = {
        "keypoints": (6, 12, 24, 48),
        "dense points": (75, 150, 300, 600, 1200),
        "channels": (96, 192, 384, 768, 1536),
        "cells": (24, 48, 72, 96),
        "images": (1, 2, 4, 8),
    }

    @staticmethod
    def made(sizes):
        """Model and evidence of the given sizes."""
        throughput.KEYPOINTS, throughput.DENSE = sizes["keypoints"], sizes["dense points"]
        generator = torch.Generator().manual_seed(0)
        model, cells = throughput.random_model("chair", sizes["channels"], generator), sizes["cells"]
        values = torch.nn.functional.normalize(torch.randn(sizes["channels"], cells, cells, generator=generator), dim=0)
        mask = torch.zeros(480, 480, dtype=torch.bool)
        mask[90:390, 90:390] = True
        return model, ImageEvidence(FeatureMap(values, SquareGrid(480, 480, cells)), PinholeCamera.centred(1.5, 480, 480), mask=mask)

    @classmethod
    def measured(cls, sizes):
        model, evidence = cls.made(sizes)
        start = time.process_time()
        aligner = Aligner(model)
        ready = time.process_time()
        first = [aligner.align(evidence) for _ in range(sizes["images"])][-1]
        cold = time.process_time()
        for _ in range(sizes["images"]):
            aligner.solve(aligner.prepare(evidence), first.tracking)
        return 1e3 * (ready - start), 1e3 * (cold - ready), 1e3 * (time.process_time() - cold)


class Build:
    """A category from its annotated images, whose features are given."""

    columns, unit = ("without calibration", "as users run it"), "s"
    usual = {"keypoints": 12, "dense points": 300, "images": 40}
    tried = {"keypoints": (6, 12, 24), "dense points": (75, 300, 1200), "images": (20, 40, 80)}

    @staticmethod
    def measured(sizes):
        config = BuildConfig(dense=replace(DenseOptions(), points=sizes["dense points"]))
        configs = replace(config, calibrate=False), config
        return tuple(build_speed.built(sizes["keypoints"], sizes["images"], 128, 48, one)["cpu"] for one in configs)


class Evaluation:
    """Pairs whose features are given; the first run aligns the images, the second finds the alignments in the cache."""

    columns, unit = ("first run", "with alignments"), "s"
    usual = {"pairs": 60, "images": 16, "categories": 1, "keypoints": 12}
    tried = {"pairs": (30, 60, 120, 240), "images": (16, 32, 64), "categories": (1, 2, 4), "keypoints": (6, 12, 24)}

    @staticmethod
    def measured(sizes):
        throughput.KEYPOINTS, throughput.DENSE, throughput.CELLS = sizes["keypoints"], 300, 48
        categories, pairs, images = sizes["categories"], sizes["pairs"], sizes["images"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            throughput.make_stand_in(folder, 128, (pairs,) * categories, images)
            config = EvaluationConfig(
                folder, folder / "results", backbone="precomputed:random", depth="precomputed", masks="precomputed",
                models=folder / "models", method="semalign3d", workers=1, gallery=0, categories=SPAIR_CATEGORIES[:categories],
            )  # fmt: skip
            seconds = [_cpu(lambda: evaluate(config))]
            shutil.rmtree(config.cache_folder / "matches")
            return *seconds, _cpu(lambda: evaluate(config))


STUDIES = {"build": Build, "alignment": Alignment, "evaluation": Evaluation}


def _cpu(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def main(options):
    torch.set_num_threads(1)
    found = {}
    for study in options.only:
        one = STUDIES[study]
        one.measured({name: counts[0] for name, counts in one.tried.items()})  # the first one loads modules
        print(f"\n{study}, usually {', '.join(f'{count} {name}' for name, count in one.usual.items())}; CPU {one.unit} of one thread")
        print(f"{'':20s}" + "".join(f"{column:>20s}" for column in one.columns))
        for name, counts in one.tried.items():
            rows = [np.min([one.measured(one.usual | {name: count}) for _ in range(options.repeats)], axis=0) for count in counts]
            found[study, name] = rows
            for count, row in zip(counts, rows, strict=True):
                print(f"{name:14s}{count:6d}" + "".join(f"{value:20.1f}" for value in row), flush=True)
    if options.output is not None:
        draw(found, options)


def draw(found, options):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width = max(len(STUDIES[study].tried) for study in options.only)
    figure, panels = pyplot.subplots(
        len(options.only), width, figsize=(2.6 * width, 2.6 * len(options.only)), sharey="row", squeeze=False, layout="constrained"
    )
    for row, study in zip(panels, options.only, strict=True):
        one = STUDIES[study]
        for panel, name in zip(row, one.tried, strict=False):
            for column, label in enumerate(one.columns):
                panel.loglog(one.tried[name], [values[column] for values in found[study, name]], "o-", label=label)
            panel.set_xlabel(name)
            panel.set_xticks(one.tried[name], [str(count) for count in one.tried[name]], fontsize=7)
            panel.minorticks_off()
        for panel in row[len(one.tried) :]:
            panel.set_visible(False)
        row[0].set_ylabel(f"{study}, CPU {one.unit}")
        row[0].legend(fontsize=7)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=80)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
