"""Both presets and nearest neighbour side by side, in alignment and transfer, each beside what was told as much.

With simulated, left/right-folded features and with the embedded backbone.

    python bench/alignment.py [--reference 8] [--backbones sim compact] [--confidence] [--hard] [--video] [--ablation] [--wide]
                              [--part development]

Renders training and test images into --work and builds the categories from annotations and disparity with this package's own
builder; what is there already is used again, also after an interruption. Prints, per kind of features and category: PCK (0.1 / 0.05 of
the longer box side, in percent, per point) of transferred keypoints, of those whose images both tell the object's turn (a mug whose handle
is hidden does not), and of aligned keypoints; share of poses within 30 degrees among the images that tell the turn; CPU milliseconds per
image in one thread. Masks and disparity are given. Further tables on request: what confidence is worth; hard cases, each with its
remedy; video; each term of the energy left out; time and memory at C = 768, J = 300. Constants of the method were chosen on
--part development; the default, test, has other instances and views.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alignment_ablation import print_ablation
from alignment_cases import print_hard_cases, print_video
from alignment_confidence import print_confidence
from alignment_cost import print_cost
from alignment_scenes import SceneStore
from alignment_scores import keypoint_pck, pck, pose_percent, score_of, text, timed, transfer_distances
from alignment_stored import StoredAlignments

from semalign3d_core.category.storage import find_model, load_model
from semalign3d_core.matchers import MATCHERS
from semalign3d_core.transfer.aligned_image import aligned_image

CATEGORIES = ("chair", "aeroplane", "tvmonitor", "bottle", "mug", "car")


@dataclass
class Options:
    """Options of the benchmark."""

    work: Path = Path("out/alignment")
    """Folder of the rendered images, the models and the alignments of the reference preset."""
    models: Path | None = None
    """Folder of models of the first kind of features, instead of those built in the work folder."""
    backbones: tuple[str, ...] = ("sim", "compact")
    """Kinds of features that the presets are compared with: sim (simulated), compact (embedded). Everything else is of the first."""
    part: str = "test"
    """test, or development: the instances on which constants may be chosen."""
    categories: tuple[str, ...] = CATEGORIES
    """Synthetic categories."""
    train: int = 50
    """Training images per category."""
    images: int = 120
    """Test images per category."""
    pairs: int = 400
    """Pairs per category."""
    reference: int = 8
    """Images per category that are also aligned with the reference preset (seconds each); 0: none."""
    confidence: bool = False
    """What confidence is worth on easy and hard images, and on images without the object."""
    hard: bool = False
    """Hard cases, each with its remedy."""
    video: bool = False
    """Orbits with cuts."""
    ablation: bool = False
    """Each term of the energy left out."""
    wide: bool = False
    """Time and memory with 768 channels and 300 points, and how many times cheaper the fast preset is."""


def prepare_models(options, backbone):
    """{category: model}; what is missing is rendered and built with the commands a user has."""
    from semalign3d_core.cli import build, synth

    given, data = options.models if backbone == options.backbones[0] else None, options.work / "data"
    folder = given or options.work / ("models" if backbone == "sim" else f"models_{backbone}")
    missing = [name for name in options.categories if not (folder / f"{name}.safetensors").is_file()]
    if missing and given is None:
        synth.run(synth.Options(data, tuple(missing), options.train, 0, 0, 8 * options.train, workers=1, features="sim"))
        for name in missing:
            spec = "precomputed:sim" if backbone == "sim" else backbone
            build.run(build.Options(dataset=data, category=(name,), output=folder, backbone=spec, depth="precomputed", masks="precomputed"))
    return {name: load_model(find_model(name, folder)) for name in options.categories}


def comparison(options, backbone):
    """Prints both presets and nearest neighbour with one kind of features.

    Returns models and scenes, {category: value} each, and the store of further scenes.
    """
    models, store = prepare_models(options, backbone), SceneStore(options.work / "scenes", options.part, backbone)
    scenes = {name: store.scenes(name, "plain", options.images) for name in options.categories}
    print(f"\n{options.part} instances, features: {backbone}")
    print(f"{'category':12s}{'method (images)':20s}{'transfer':>16s}{'keypoints':>18s}{'pose':>8s}{'CPU ms':>10s}")
    print_means([compare(name, models[name], scenes[name], options) for name in options.categories])
    return models, scenes, store


def compare(name, model, scenes, options):
    """Prints one line per method; returns {(method, images): what :func:`print_line` returns}.

    Like stands beside like: methods that are not told that queries are keypoints, those that are, and on the few images of the published
    optimiser both alignments with Eq. 14 as published.
    """
    few = min(options.reference, len(scenes))
    runs = [("fast", "fast", scenes), ("fast", "keypoints", scenes)]
    runs += [("reference", "reference", scenes[:few]), ("fast", "reference", scenes[:few])] if few else []
    rows = {}
    for label, method, extra in (("nearest", "nearest_neighbour", {}), ("nearest, told", "nearest_neighbour_keypoints", {"model": model})):
        moved = transfer_distances(MATCHERS[method](**extra).match, [scene.evidence for scene in scenes], scenes, options.pairs)
        rows[label, len(scenes)] = print_line(name, label, scenes, moved, [])
    for preset, transfer, tests in runs:
        label = {"fast": "fast", "keypoints": "fast, told", "reference": f"{preset}, Eq. 14"}[transfer]
        rows[label, len(tests)] = compare_preset(name, label, preset, transfer, model, tests, options)
    return rows


def compare_preset(name, label, preset, transfer, model, scenes, options):
    """Transfer, keypoints and poses of one preset of the alignment with one of the transfer, printed."""
    method = "semalign3d_keypoints" if transfer == "keypoints" else "semalign3d"
    matcher = MATCHERS[method](model=model, preset=preset, transfer=transfer)
    aligner = StoredAlignments(options.work / "alignments", matcher.aligner) if preset == "reference" else matcher.aligner
    scores = []
    for scene in tqdm(scenes, desc=f"{name}, {label}", leave=False, delay=2):
        alignment, seconds = timed(partial(aligner.align, scene.evidence))
        scores.append(score_of(model, scene, alignment, aligner.seconds if preset == "reference" else seconds))
    prepared = [aligned_image(matcher.surface, scene.evidence, score.alignment) for scene, score in zip(scenes, scores, strict=True)]
    return print_line(name, label, scenes, transfer_distances(matcher.match, prepared, scenes, options.pairs), scores)


def print_line(name, method, scenes, moved, scores):
    """One line of the table; returns its (transfer, transfer where the turns are told, keypoints, poses)."""
    distances, told = moved
    placed = (keypoint_pck(scores), pose_percent(scores)) if scores else (np.full(2, np.nan), np.nan)
    values = pck(distances), pck(distances[told]), *placed
    ms = f"{1e3 * np.median([score.seconds for score in scores]):10.0f}" if scores else ""
    placed = f"{text(values[2]):>18s}{values[3]:8.0f}" if scores else ""
    print(f"{name:12s}{f'{method} ({len(scenes)})':20s}{text(values[0]):>16s}{text(values[1]):>16s}{placed}{ms}", flush=True)
    return values


def print_means(tables):
    """The mean over categories of every method."""
    for method, count in tables[0]:
        values = [np.mean([np.atleast_1d(table[method, count][n]) for table in tables], axis=0) for n in range(4)]
        placed = "" if np.isnan(values[3][0]) else f"{text(values[2]):>18s}{values[3][0]:8.1f}"
        print(f"{'mean':12s}{f'{method} ({count})':20s}{text(values[0]):>16s}{text(values[1]):>16s}{placed}", flush=True)


def main(options):
    torch.set_num_threads(1)
    models, scenes, store = [comparison(options, backbone) for backbone in options.backbones][0]
    if options.confidence:
        print_confidence(models, scenes, store)
    if options.hard:
        print_hard_cases(models, scenes, store)
    if options.video:
        print_video(models, store)
    if options.ablation:
        print_ablation(models, scenes, options.pairs)
    if options.wide:
        print_cost(models, scenes)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
