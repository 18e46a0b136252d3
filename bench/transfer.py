"""What each ingredient of the transfer buys, and what a pair costs once its images are aligned.

    python bench/transfer.py [--dataset DIR --models MODELS --features sim] [--categories chair bottle]

Without --dataset it renders one with simulated, left/right-folded features and builds the categories from its annotations and
disparity. Prints, per variant, PCK at 0.1 / 0.05 / 0.025 of the longer box side (percent, per point) over all ordered pairs of
test images, alignments shared by all variants; then CPU milliseconds per pair in one thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core.category.storage import load_model
from semalign3d_core.cli.main import main as semalign3d
from semalign3d_core.datasets.folder import FolderDataset
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.perception.look import look
from semalign3d_core.runtime.config import load_preset
from semalign3d_core.transfer.config import Transfer

ALPHAS = (0.1, 0.05, 0.025)


@dataclass
class Options:
    """Options of the benchmark."""

    dataset: Path | None = None
    """Data set folder with features, masks and depth; nothing renders one."""
    models: Path | None = None
    """Models built from it."""
    features: str = "sim"
    """Features/<this> of the data set."""
    categories: tuple[str, ...] = ("chair", "bottle")
    """Categories."""
    train: int = 40
    """Training images per category, if rendered."""
    test: int = 12
    """Test images per category, if rendered."""


def variants():
    """{name: settings}: the default for keypoints, each ingredient left out, and the published form."""
    best = load_preset(Transfer, "transfer", "keypoints")
    published = load_preset(Transfer, "transfer", "reference")
    return {
        "default": best,
        "no residual carried": replace(best, residual=0.0),
        "whole residual carried": replace(best, residual=1.0),
        "argmax in step 2": replace(best, second_step="argmax"),
        "no keypoint preference": replace(best, keypoint_preference=0.0),
        "no own feature": replace(best, own_feature=0.0),
        "no hidden penalty": replace(best, hidden_penalty=0.0),
        "best solution of each image": replace(best, solution_similarity=0.0),
        "full log p_sem in step 1": replace(best, semantic_weight=1.0),
        "spread 0.03": replace(best, sigma=0.03, target_sigma=0.03),
        "published": published,
    }


def prepare_data(options, folder):
    """(data set, models): given ones, or rendered and built in ``folder``."""
    if options.dataset is not None and options.models is not None:
        return options.dataset, options.models
    data, models = folder / "data", folder / "models"
    sizes = ["--train", str(options.train), "--test", str(options.test), "--features", options.features]
    semalign3d(["synth", "--output", str(data), "--categories", *options.categories, *sizes])
    method = ["--backbone", f"precomputed:{options.features}", "--depth", "precomputed", "--masks", "precomputed"]
    semalign3d(["build", "--dataset", str(data), "--category", *options.categories, *method, "--output", str(models)])
    return data, models


def pck(errors):
    errors = torch.cat(errors)
    return " ".join(f"{100 * (errors <= alpha).float().mean():5.1f}" for alpha in ALPHAS)


def errors_of(match, records, points):
    """Errors of all common keypoints of all ordered pairs, in longer box sides."""
    errors = []
    for a, b in itertools.permutations(range(len(records)), 2):
        common = torch.isfinite(points[a][:, 0]) & torch.isfinite(points[b][:, 0])
        if common.any():
            x1, y1, x2, y2 = records[b].box.tolist()
            errors.append((match(a, b, points[a][common]) - points[b][common]).norm(dim=1) / max(x2 - x1, y2 - y1))
    return errors


def measure(category, data, models, features):
    """Prints the table of one category."""
    records = FolderDataset(data).images(category, "test")
    providers = backbones.create(f"precomputed:{features}", data), depth.create("precomputed", data), masks.create("precomputed", data)
    evidence = [look(read_image(record.path, record), *providers) for record in records]
    points = [torch.tensor(record.keypoints) for record in records]
    model, nearest = load_model(models / f"{category}.safetensors"), MATCHERS["nearest_neighbour"]()
    matcher = MATCHERS["semalign3d_keypoints"](model=model)
    prepared = [matcher.prepare(one) for one in evidence]
    print(f"\n{category}: {len(records)} test images, PCK at {' / '.join(map(str, ALPHAS))}")
    print(f"{'nearest neighbour':28s} {pck(errors_of(lambda a, b, q: nearest.match(evidence[a], evidence[b], q).points, records, points))}")
    for name, config in variants().items():
        matcher.config = config
        start, errors = time.process_time(), errors_of(lambda a, b, q: matcher.match(prepared[a], prepared[b], q).points, records, points)
        print(f"{name:28s} {pck(errors)}   {1000 * (time.process_time() - start) / len(errors):.1f} ms per pair", flush=True)


def main():
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data, models = prepare_data(options, Path(folder))
        for category in options.categories:
            measure(category, data, models, options.features)


if __name__ == "__main__":
    main()
