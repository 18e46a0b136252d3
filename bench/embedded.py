"""The embedded backbone and the shipped models on unseen synthetic instances: README, "Numbers".

    python bench/embedded.py [--images 24] [--pairs 120] [--masks similarity] [--depth none]

Renders test instances that neither the backbone nor the models have seen, aligns every image once, and prints per category:
PCK of the aligned keypoints themselves, of points transferred from one image to another (Eq. 14), and of nearest-neighbour
transfer with the same features on the same pairs; the share of right poses; CPU time per image in one thread. Without options
an image is all that the method gets: no mask, no depth, no focal length.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from semalign3d_core import backbones, depth, masks
from semalign3d_core.category.storage import find_model, load_model
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.synthetic import CATEGORIES
from semalign3d_core.evidence import gather
from semalign3d_core.geometry import rotation_angle, similarity_alignment
from semalign3d_core.images import read_image
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.metrics.pck import pck_correct

ALPHAS = (0.1, 0.05)
ROWS = ("nearest neighbour", "transfer", "aligned keypoints")


@dataclass
class Options:
    """Options of the benchmark."""

    dataset: Path | None = None
    """A synthetic data set; nothing renders one into a temporary folder."""
    categories: tuple[str, ...] = tuple(sorted(CATEGORIES))
    """Categories to score."""
    images: int = 24
    """Test images per category."""
    pairs: int = 120
    """Pairs per category."""
    masks: str = "similarity"
    """similarity (from the features), precomputed (the true mask) or none."""
    depth: str = "none"
    """none, or precomputed (monocular-like disparity)."""
    models: str = ""
    """Folder of category models; nothing takes the shipped ones."""
    backbone: str = "compact"
    """compact, or compact:FILE."""
    seed: int = 77
    """Seed of the data set."""


def render(options, folder):
    from semalign3d_core.cli import synth

    synth.run(synth.Options(Path(folder), options.categories, 0, 0, options.images, options.pairs, options.seed))
    return Path(folder)


def score_category(options, dataset, category, backbone):
    """{row: (points, alphas) bool}, right poses (bool), CPU seconds per image."""
    model = load_model(find_model(category, options.models or None))
    matcher, nearest = MATCHERS["semalign3d"](model=model), MATCHERS["nearest_neighbour"]()
    segmenter = masks.create(options.masks, dataset.root, model=model, backbone=backbone)
    depths = depth.create(options.depth, dataset.root)
    records = {r.name: r for r in dataset.images(category, "test")}
    evidence, aligned, poses, seconds = {}, {}, [], []
    for name, record in tqdm(records.items(), desc=f"align {category}", leave=False):
        image = read_image(record.path, record=record)
        start = time.process_time()
        evidence[name] = gather(image, backbone, depths, segmenter)
        aligned[name] = matcher.prepare(evidence[name])
        seconds.append(time.process_time() - start)
        poses.append(pose_error(dataset, category, name, model, aligned[name].alignment))
    scores = {row: [] for row in ROWS}
    for pair in tqdm(dataset.pairs("test", categories=(category,)), desc=f"pairs {category}", leave=False):
        score_pair(pair, evidence, aligned, nearest, matcher, scores)
    return {row: np.concatenate(found) for row, found in scores.items()}, np.array(poses), np.median(seconds)


def score_pair(pair, evidence, aligned, nearest, matcher, scores):
    source, target = pair.source, pair.target
    common = np.isfinite(source.keypoints).all(1) & np.isfinite(target.keypoints).all(1)
    if not common.any():
        return
    queries, truth = torch.from_numpy(source.keypoints[common]), target.keypoints[common]
    x1, y1, x2, y2 = target.box
    alignment = aligned[target.name].alignment
    predictions = {
        "nearest neighbour": nearest.match(evidence[source.name], evidence[target.name], queries).points,
        "transfer": matcher.match(aligned[source.name], aligned[target.name], queries).points,
        "aligned keypoints": alignment.keypoints_2d[torch.from_numpy(common)],
    }
    for row, points in predictions.items():
        scores[row].append(pck_correct(points.numpy(), truth, max(x2 - x1, y2 - y1), ALPHAS))


def pose_error(dataset, category, name, model, alignment):
    """Rotation error in degrees against the data set's truth, whose object frame is turned against the model's."""
    with np.load(dataset.root / "Truth" / category / f"{name}.npz", allow_pickle=False) as truth:
        rotation, shape = (torch.from_numpy(truth[key].astype(np.float32)) for key in ("R", "shape"))
    both = model.present & torch.isfinite(shape).all(1)
    _, turn, _ = similarity_alignment(model.shape[both], shape[both])
    return float(torch.rad2deg(rotation_angle(alignment.rotation.float(), rotation @ turn)))


def main(options):
    torch.set_num_threads(1)
    backbone = backbones.create(options.backbone)
    with tempfile.TemporaryDirectory() as temporary:
        dataset = open_dataset(options.dataset or render(options, temporary))
        print(f"masks: {options.masks}, depth: {options.depth}; PCK in percent at {ALPHAS} of the object box, per point\n")
        print(f"{'category':12s}" + "".join(f"{row:>22s}" for row in ROWS) + f"{'pose < 30 deg':>16s}{'CPU ms/image':>14s}")
        table = []
        for category in options.categories:
            scores, poses, seconds = score_category(options, dataset, category, backbone)
            means = [100 * scores[row].mean(0) for row in ROWS]
            table.append([*np.concatenate(means), 100 * (poses < 30).mean(), 1000 * seconds])
            print_row(category, table[-1])
        print_row("mean", np.mean(table, axis=0))


def print_row(name, values):
    cells = "".join(f"{f'{values[2 * i]:.1f} / {values[2 * i + 1]:.1f}':>22s}" for i in range(len(ROWS)))
    print(f"{name:12s}{cells}{values[-2]:16.0f}{values[-1]:14.0f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
