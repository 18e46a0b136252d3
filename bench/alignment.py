"""Alignment and transfer with simulated, left/right-folded features: both presets and nearest neighbour side by side.

    python bench/alignment.py [--categories chair bottle] [--reference 6] [--hard] [--video] [--wide]

Renders training and test images (unless --dataset and --models name some), builds the categories from annotations and
disparity with this package's own builder, and prints, per category: PCK (0.1 / 0.05 of the longer box side, in percent, per point) of
transferred and of aligned keypoints, share of poses within 30 degrees, CPU milliseconds per image in one thread; then how far
confidence can be believed. --hard: the hard cases; --video: warm starts; --wide: time and memory at C = 768, J = 300.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alignment_scenes import HARD_CASES, Scene, impossible_evidence, orbit, scenes

from semalign3d_core.alignment.aligner import Aligner
from semalign3d_core.alignment.calibration import rotation_right
from semalign3d_core.alignment.logistic import area_under_roc, calibration_error
from semalign3d_core.category.storage import find_model, load_model
from semalign3d_core.geometry import similarity_alignment
from semalign3d_core.matchers import MATCHERS

ALPHAS = (0.1, 0.05)


@dataclass
class Options:
    """Options of the benchmark."""

    categories: tuple[str, ...] = ("chair", "aeroplane", "tvmonitor", "bottle")
    """Synthetic categories."""
    dataset: Path | None = None
    """Data set with simulated features ('semalign3d synth --features sim'), needed to build models; nothing renders one."""
    models: Path | None = None
    """Folder of models built from such a data set; nothing builds them."""
    train: int = 50
    """Training images per category."""
    images: int = 20
    """Test images per category."""
    pairs: int = 60
    """Pairs per category."""
    reference: int = 0
    """Images per category that are also aligned with the reference preset (seconds each), with the same images for both."""
    hard: bool = False
    """Also the hard cases."""
    video: bool = False
    """Also orbits with warm starts."""
    wide: bool = False
    """Also time and memory with 768 channels and 300 points."""


@dataclass
class Score:
    """Of one image: keypoints within each alpha (V, alphas), pose right, CPU seconds, the alignment."""

    keypoints: np.ndarray
    pose: bool
    seconds: float
    alignment: object


def prepare_models(options, folder):
    """The folder of the models; what is missing is rendered and built with the commands a user has."""
    if options.models:
        return options.models
    from semalign3d_core.cli import build, synth

    data = options.dataset or Path(folder) / "data"
    if not options.dataset:
        synth.run(synth.Options(data, options.categories, options.train, 0, 2, 1, features="sim"))
    build.run(build.Options(data, options.categories, Path(folder) / "models", "precomputed:sim"))
    return Path(folder) / "models"


def score(prepare, model, scene: Scene):
    """:class:`Score` of one scene; ``prepare`` gives an object with ``alignment``, or the alignment itself."""
    start = time.process_time()
    prepared = prepare(scene.evidence)
    seconds = time.process_time() - start
    alignment = getattr(prepared, "alignment", prepared)
    known = torch.isfinite(scene.shape).all(-1) & model.present
    frame = similarity_alignment(model.shape[known], scene.shape[known])[1]  # the object frame of a model is its own
    distance = (alignment.keypoints_2d - scene.keypoints).norm(dim=-1)[scene.visible & model.present].numpy()
    pose = rotation_right(alignment.rotation, scene.rotation @ frame, alignment.undetermined_axis)
    return prepared, Score(distance[:, None] < np.array(ALPHAS) * scene.size, pose, seconds, alignment)


def transfer_pck(matcher, prepared, tests, pairs):
    """(points, alphas) bool of transferred keypoints visible in both images, over random ordered pairs."""
    rng, correct = np.random.default_rng(0), []
    for _ in range(pairs):
        i, j = rng.choice(len(tests), 2, replace=False)
        common = tests[i].visible & tests[j].visible
        if common.any():
            found = matcher.match(prepared[i], prepared[j], tests[i].keypoints[common]).points
            distance = (found - tests[j].keypoints[common]).norm(dim=-1).numpy()
            correct.append(distance[:, None] < np.array(ALPHAS) * tests[j].size)
    return np.concatenate(correct)


def percent(correct):
    return " / ".join(f"{100 * value:5.1f}" for value in np.concatenate(correct).mean(0))


def compare(name, model, tests, options, presets):
    """Prints one line per method and returns the scores of the fast preset."""
    result = None
    for preset, count in presets:
        matcher = MATCHERS["semalign3d"](model=model, preset=preset)
        prepared, scores = zip(*(score(matcher.prepare, model, t) for t in tests[:count]), strict=True)
        moved = transfer_pck(matcher, prepared, tests[:count], options.pairs)
        ms = 1e3 * np.median([s.seconds for s in scores])
        poses = 100 * np.mean([s.pose for s in scores])
        placed = percent([s.keypoints for s in scores])
        print(f"{name:12s}{preset + f' ({count})':20s}{percent([moved]):>16s}{placed:>18s}{poses:8.0f}{ms:10.0f}", flush=True)
        result = result or scores
    nearest = MATCHERS["nearest_neighbour"]()
    moved = transfer_pck(nearest, [t.evidence for t in tests], tests, options.pairs)
    print(f"{name:12s}{f'nearest ({len(tests)})':20s}{percent([moved]):>16s}", flush=True)
    return result


def print_confidence(name, model, scores, tests):
    """AUROC and calibration error of the confidence, and rejection of images without the object."""
    aligner = Aligner(model)
    absent = [aligner.align(evidence) for evidence in impossible_evidence(tests)]
    confidence = torch.tensor([s.alignment.confidence for s in scores], dtype=torch.float64)
    pose = torch.tensor([s.pose for s in scores])
    keypoints = torch.tensor([s.keypoints[:, 0].mean() >= 0.8 for s in scores])
    belief = torch.tensor([s.alignment.diagnostics["probabilities"]["keypoints"] for s in scores], dtype=torch.float64)
    both = torch.cat([confidence, torch.tensor([a.confidence for a in absent], dtype=torch.float64)])
    there = torch.arange(len(both)) < len(scores)
    separation = area_under_roc(confidence, pose), area_under_roc(belief, keypoints)
    found = [100 * np.mean([a.found for a in alignments]) for alignments in ([s.alignment for s in scores], absent)]
    print(f"{name:12s}{separation[0]:10.2f}{separation[1]:10.2f}{calibration_error(confidence, pose, 5):10.3f}", end="")
    print(f"{area_under_roc(both, there):10.2f}{found[0]:10.0f}{found[1]:10.0f}", flush=True)


def print_hard_cases(name, model, tests):
    aligner = Aligner(model)
    for case, change in HARD_CASES.items():
        scores = [score(aligner.align, model, change(t, n))[1] for n, t in enumerate(tests)]
        poses, ms = 100 * np.mean([s.pose for s in scores]), 1e3 * np.median([s.seconds for s in scores])
        print(f"{name:12s}{case:32s}{percent([s.keypoints for s in scores]):>16s}{poses:8.0f}{ms:10.0f}", flush=True)


def print_video(name, model, count):
    """An orbit with a cut in the middle, every frame from the alignment before."""
    aligner, previous, rows = Aligner(model), None, []
    for scene in orbit(name, count):
        previous, row = score(lambda evidence, before=previous: aligner.align(evidence, before), model, scene)
        rows.append(row)
    warm = [r for r in rows if r.alignment.diagnostics["warm_frames"]]
    ms = 1e3 * np.median([r.seconds for r in warm]) if warm else float("nan")
    poses, placed = 100 * np.mean([r.pose for r in rows]), percent([r.keypoints for r in rows])
    print(f"{name:12s}{f'{len(warm)} of {len(rows)} frames warm':32s}{placed:>16s}{poses:8.0f}{ms:10.0f}", flush=True)


def print_wide(name, model, scene):
    """CPU time of one alignment with 768 channels, and the memory that a hundred alignments add."""
    channels = model.dense_features.shape[1]
    spread = torch.randn(channels, 768, generator=torch.Generator().manual_seed(0)) / 768**0.5  # keeps cosines nearly
    wide = replace(model, dense_features=model.dense_features @ spread, keypoint_features=model.keypoint_features @ spread)
    features = replace(scene.evidence.features, values=torch.einsum("cd,chw->dhw", spread, scene.evidence.features.values))
    evidence, aligner = replace(scene.evidence, features=features), Aligner(wide)
    previous = aligner.align(evidence)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cold, warm = [], []
    for _ in range(20):
        for times, start in ((cold, None), (warm, previous)):
            begin = time.process_time()
            aligner.align(evidence, start)
            times.append(1e3 * (time.process_time() - begin))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = f"J = {len(aligner.category.points)}, C = 768"
    print(f"{name:12s}{size}: cold {np.median(cold):.0f} ms, warm {np.median(warm):.0f} ms, memory grows by {grown:.0f} MiB")


def main(options):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models_folder = prepare_models(options, folder)
        models = {name: load_model(find_model(name, models_folder)) for name in options.categories}
    tests = {name: scenes(name, options.images) for name in options.categories}
    presets = [("fast", options.images)] + ([("fast", options.reference), ("reference", options.reference)] if options.reference else [])
    print(f"{'category':12s}{'method (images)':20s}{'transfer':>16s}{'keypoints':>18s}{'pose':>8s}{'CPU ms':>10s}")
    scores = {name: compare(name, models[name], tests[name], options, presets) for name in options.categories}
    print(f"\n{'confidence':12s}{'pose':>10s}{'keypoints':>10s}{'error':>10s}{'rejection':>10s}{'found %':>10s}{'false %':>10s}")
    for name in options.categories:
        print_confidence(name, models[name], scores[name], tests[name])
    if options.hard or options.video:
        print(f"\n{'category':12s}{'case':32s}{'keypoints':>16s}{'pose':>8s}{'CPU ms':>10s}")
    for name in options.categories:
        if options.hard:
            print_hard_cases(name, models[name], tests[name])
        if options.video:
            print_video(name, models[name], 24)
    if options.wide:
        for name in options.categories:
            print_wide(name, models[name], tests[name][0])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
