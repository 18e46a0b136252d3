"""The embedded backbone and the shipped models on unseen synthetic instances: README, "Numbers".

    python bench/embedded.py [--images 72] [--pairs 360] [--masks auto] [--depth none]

Renders test instances that neither the backbone nor the models have seen, aligns every image once with the pipeline that command
line and node run, and prints per category: PCK of the aligned keypoints themselves, of points transferred from one image to
another (Eq. 14), and of nearest-neighbour transfer with the same features on the same pairs, both as they are and told that the
points of a pair are different keypoints; the share of right
poses among the images that determine the pose (a mug whose handle is hidden does not); CPU
time per image in one thread; then how far the confidence can be believed. Without options an image is all that the method
gets: no mask, no depth, no focal length.
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
from alignment_scores import calibration_error
from tqdm import tqdm

from semalign3d_core.calibration.confidence_maps import keypoints_right, rotation_right
from semalign3d_core.calibration.logistic import area_under_roc
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.synthetic import CATEGORIES, shows_its_turn
from semalign3d_core.geometry.rotations import similarity_alignment
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.pipeline import PipelineConfig, create_pipeline
from semalign3d_core.transfer.aligned_image import aligned_image

ALPHAS = (0.1, 0.05)
ALIGNED = ("semalign3d", "semalign3d_keypoints")
ROWS = ("nearest_neighbour", "semalign3d", "nearest_neighbour_keypoints", "semalign3d_keypoints", "aligned keypoints")
STRANGERS = 6  # images of every other category that a category is looked for in


@dataclass
class Options:
    """Options of the benchmark."""

    dataset: Path | None = None
    """A synthetic data set; nothing renders one into a temporary folder."""
    categories: tuple[str, ...] = tuple(sorted(CATEGORIES))
    """Categories to score."""
    images: int = 72
    """Test images per category."""
    pairs: int = 360
    """Pairs per category."""
    masks: str = "auto"
    """auto (the embedded backbone's own), similarity, precomputed (the true mask) or none."""
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


@dataclass
class Scored:
    """What was scored of one category.

    {row: (points, alphas) bool}; per image whether pose and keypoints are right, whether it determines the pose (a mug whose handle is
    hidden does not), and its alignment; alignments of images without the category; CPU seconds per image.
    """

    rows: dict
    pose: torch.Tensor
    keypoints: torch.Tensor
    determined: torch.Tensor
    present: list
    absent: list
    seconds: float


def score_category(options, dataset, category):
    """:class:`Scored` of a category."""
    config = PipelineConfig(category=category, models=options.models, backbone=options.backbone, depth=options.depth, masks=options.masks)
    pipeline = create_pipeline(config, dataset.root)
    methods = {name: MATCHERS[name](model=pipeline.model) for name in ALIGNED} | {
        "nearest_neighbour": MATCHERS["nearest_neighbour"](),
        "nearest_neighbour_keypoints": MATCHERS["nearest_neighbour_keypoints"](model=pipeline.model),
    }
    evidence, aligned, pose, right, told, seconds = {}, {}, [], [], [], []
    for record in tqdm(dataset.images(category, "test"), desc=f"align {category}", leave=False):
        image = read_image(record.path, record=record)
        start = time.process_time()
        found = pipeline.process(image)
        seconds.append(time.process_time() - start)
        evidence[record.name] = found.evidence
        aligned[record.name] = aligned_image(pipeline.surface, found.evidence, found.alignment)
        pose.append(pose_right(dataset, record, pipeline.model, found.alignment))
        told.append(shows_its_turn(category, np.isfinite(record.keypoints[:, 0])))
        right.append(keypoints_right(found.alignment.keypoints_2d[None], record.keypoints)[0])
    rows = {row: [] for row in ROWS}
    for pair in tqdm(dataset.pairs("test", categories=(category,)), desc=f"pairs {category}", leave=False):
        score_pair(pair, evidence, aligned, methods, rows)
    present = [a.alignment for a in aligned.values()]
    others = [r for other in options.categories if other != category for r in dataset.images(other, "test")[:STRANGERS]]
    absent = [pipeline.process(read_image(r.path, record=r)).alignment for r in tqdm(others, desc=f"without {category}", leave=False)]
    rows = {row: np.concatenate(found) for row, found in rows.items()}
    return Scored(rows, torch.tensor(pose), torch.tensor(right), torch.tensor(told), present, absent, float(np.median(seconds)))


def score_pair(pair, evidence, aligned, methods, scores):
    source, target = pair.source, pair.target
    common = np.isfinite(source.keypoints).all(1) & np.isfinite(target.keypoints).all(1)
    if not common.any():
        return
    queries, truth = torch.from_numpy(source.keypoints[common]), target.keypoints[common]
    x1, y1, x2, y2 = target.box
    alignment = aligned[target.name].alignment
    predictions = {"aligned keypoints": alignment.keypoints_2d[torch.from_numpy(common)]}
    for name, matcher in methods.items():
        seen = aligned if name in ALIGNED else evidence
        predictions[name] = matcher.match(seen[source.name], seen[target.name], queries).points
    for row, points in predictions.items():
        scores[row].append(pck_correct(points.numpy(), truth, max(x2 - x1, y2 - y1), ALPHAS))


def pose_right(dataset, record, model, alignment):
    """Whether the rotation is right: within 30 degrees of the data set's truth.

    The truth's object frame is turned against the model's. Only what is determined counts (of a bottle: up to a turn about its axis).
    """
    with np.load(dataset.root / "Truth" / record.category / f"{record.name}.npz", allow_pickle=False) as truth:
        rotation, shape = (torch.from_numpy(truth[key].astype(np.float32)) for key in ("R", "shape"))
    both = model.present & torch.isfinite(shape).all(1)
    _, turn, _ = similarity_alignment(model.shape[both], shape[both])
    return rotation_right(alignment.rotation.float(), rotation @ turn, alignment.undetermined_axis)


def main(options):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        dataset = open_dataset(options.dataset or render(options, temporary))
        print(f"masks: {options.masks}, depth: {options.depth}; PCK in percent at {ALPHAS} of the object box, per point\n")
        print(f"{'category':12s}" + "".join(f"{row:>29s}" for row in ROWS) + f"{'pose right':>16s}{'CPU ms/image':>14s}")
        table, scored = [], {}
        for category in options.categories:
            scored[category] = found = score_category(options, dataset, category)
            means = [100 * found.rows[row].mean(0) for row in ROWS]
            table.append([*np.concatenate(means), 100 * float(found.pose[found.determined].float().mean()), 1000 * found.seconds])
            print_row(category, table[-1])
        print_row("mean", np.mean(table, axis=0))
    print_confidence(scored)


def print_confidence(scored):
    """How well the confidence ranks right and wrong results, how far it is off, and how well it tells images without the object."""
    print(f"\n{'confidence':12s}{'AUROC pose':>12s}{'keypoints':>12s}{'rejection':>12s}{'error':>8s}{'found %':>10s}{'false %':>10s}")
    told = (torch.cat([getattr(s, name) for s in scored.values()]) for name in ("pose", "keypoints", "determined"))
    everything = Scored({}, *told, [], [], 0.0)
    for found in scored.values():
        everything.present.extend(found.present)
        everything.absent.extend(found.absent)
    for name, found in {**scored, "all": everything}.items():
        confidence = torch.tensor([float(a.confidence) for a in found.present], dtype=torch.float64)
        both = torch.cat([confidence, torch.tensor([float(a.confidence) for a in found.absent], dtype=torch.float64)])
        there = torch.arange(len(both)) < len(confidence)
        ranks = [area_under_roc(confidence, found.pose), area_under_roc(keypoint_belief(found.present), found.keypoints)]
        ranks.append(area_under_roc(both, there))
        shares = [100 * np.mean([bool(a.found) for a in group]) if group else np.nan for group in (found.present, found.absent)]
        error = calibration_error(confidence, found.pose, 5)
        print(f"{name:12s}" + "".join(f"{r:12.2f}" for r in ranks) + f"{error:8.3f}" + "".join(f"{s:10.0f}" for s in shares), flush=True)


def keypoint_belief(alignments):
    """(N,) probability that the object is there and at least 80 % of its keypoints are right."""
    parts = [alignment.diagnostics.probabilities for alignment in alignments]
    return torch.tensor([part["keypoints"] * part["present"] for part in parts], dtype=torch.float64)


def print_row(name, values):
    cells = "".join(f"{f'{values[2 * i]:.1f} / {values[2 * i + 1]:.1f}':>29s}" for i in range(len(ROWS)))
    print(f"{name:12s}{cells}{values[-2]:16.0f}{values[-1]:14.0f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
