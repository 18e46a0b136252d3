"""SFNet by its own protocols: frozen features, adapted features and the trained network side by side, beside the published rows.

    python bench/sfnet.py DIR [--network sfnet.safetensors] [--mode bbox]
    python bench/sfnet.py DIR --speed --network sfnet.safetensors
    python bench/sfnet.py PICTURES_WITH_MASKS --training 3 [--precision bfloat16]

DIR: PF-WILLOW, PF-PASCAL, Caltech-101, SPair-71k or any data set folder of ours with pairs (for masks: Caltech-101). Keypoints: target
points are carried to the source, PCK is inclusive and a mean over pairs, with its 95 % bootstrap interval (images drawn anew); the mode
``bbox`` relates thresholds to the longer side of the source's box, ``image`` to 288 pixels of the stretched images. Without --network only
the frozen features of --pyramid are scored.
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from semalign3d_core.datasets import open_dataset
from semalign3d_core.learned.sfnet.benchmark import FrozenLevels, adapted_levels, interval, keypoint_scores, mask_scores, pixel_grid
from semalign3d_core.learned.sfnet.network import SFNet, SFNetConfig
from semalign3d_core.learned.sfnet.pictures import masked_pictures
from semalign3d_core.learned.sfnet.pyramids import create_pyramid
from semalign3d_core.learned.sfnet.storage import load_network
from semalign3d_core.learned.sfnet.train import Batches, Lesson, SFNetTraining, new_network
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.files import read_json

ALPHAS = (0.05, 0.1, 0.15)
PUBLISHED = {
    "pf_willow": "PF-WILLOW, bbox: 74.0 at 0.1",
    "pf_pascal": "PF-PASCAL, bbox: 78.7 at 0.1",
    "caltech101": "Caltech-101: label-transfer accuracy 0.88, IoU 0.67",
}


@dataclass
class Options:
    """Options of the benchmark."""

    dataset: tyro.conf.Positional[Path]
    """Data set folder."""
    network: str = ""
    """File that semalign3d train sfnet wrote, or the authors' checkpoint (FILE.pth,resnet101:FILE)."""
    pyramid: str = "efficientnet_lite:2"
    """Frozen features, without --network."""
    mode: Literal["bbox", "image"] = "bbox"
    """What thresholds are relative to."""
    split: str = "test"
    """Split of the pairs."""
    limit: int | None = None
    """Only the first so many pairs."""
    speed: bool = False
    """Print what a pair costs, instead of scores."""
    training: int = 0
    """Print what a step of the training on a folder of pictures with masks costs, measured over so many steps."""
    precision: str = "float32"
    """Of the training: float32 or bfloat16."""


def rows(options):
    """{row of the table: network}."""
    trained = load_network(options.network) if options.network else None
    pyramid = trained.pyramid if trained else create_pyramid(options.pyramid)
    settings = trained.config if trained else SFNetConfig(options.pyramid)
    found = {}
    for readout, text in (("hard", "nearest neighbour"), ("soft", "soft arg-max"), ("kernel", "kernel soft arg-max")):
        found[f"frozen features, {text}"] = SFNet(pyramid, replace(settings, adapt=False, readout=readout)).eval()
    for readout, text in (("hard", "nearest neighbour"), ("soft", "soft arg-max"), ("kernel", "kernel soft arg-max")):
        if trained:
            network = SFNet(pyramid, replace(settings, readout=readout)).eval()
            network.load_state_dict(trained.state_dict())
            found[f"adapted features, {text}"] = network
    return found


def print_keypoints(options, pairs):
    heads = "".join(f"{f'PCK@{alpha}':>9s}" for alpha in ALPHAS)
    print(f"{len(pairs)} pairs, mode {options.mode}\n{'':38s}{heads}   95 % interval at 0.1")
    scores, networks = {}, rows(options)
    first = next(iter(networks.values()))
    frozen = FrozenLevels(first.pyramid, first.config.cells)
    for name, network in networks.items():
        scores[name] = keypoint_scores(network, pairs, options.mode, ALPHAS, frozen)
        low, high = interval(pairs, scores[name][:, 1])
        values = "".join(f"{100 * value:9.1f}" for value in np.nanmean(scores[name], axis=0))
        print(f"{name:38s}{values}   {100 * low:.1f} to {100 * high:.1f}", flush=True)
    groups = [group_of(options.dataset, pair) for pair in pairs]
    print("\nPCK@0.1 by group" + "".join(f"\n{number + 1}: {name}" for number, name in enumerate(scores)))
    print(f"{'':20s}" + "".join(f"{number + 1:7d}" for number in range(len(scores))))
    for group in dict.fromkeys(groups):
        chosen = np.array([other == group for other in groups])
        print(f"{group:20s}" + "".join(f"{100 * np.nanmean(values[chosen, 1]):7.1f}" for values in scores.values()))


def group_of(root, pair):
    """The group that the pair's own file names, else its category."""
    path = root / "PairAnnotation" / "test" / f"{pair.name}.json"
    return (read_json(path).get("group") if path.is_file() else None) or pair.category


def print_masks(options, dataset, pairs):
    print(f"{len(pairs)} pairs\n{'':38s}{'LT-ACC':>9s}{'IoU':>9s}")
    for name, network in rows(options).items():
        scores = mask_scores(network, dataset, pairs)
        print(f"{name:38s}" + "".join(f"{value:9.3f}" for value in np.nanmean(scores, axis=0)), flush=True)


def print_speed(options, pairs):
    """Seconds of a pair, two pictures looked at and matched: medians over pairs, wall clock and processor."""
    network = list(rows(options).values())[-1]
    pictures = [[read_image(image.path, image).rgb for image in (pair.source, pair.target)] for pair in pairs[:20]]
    wall, cpu = [], []
    for source, target in pictures:
        start, used = time.perf_counter(), time.process_time()
        levels = [adapted_levels(network, picture) for picture in (target, source)]
        pixel_grid(network, *levels, target.shape[:2])
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    print(f"a pair: {np.median(wall):.3f} s wall clock, {np.median(cpu):.3f} s of processor time, {torch.get_num_threads()} threads")


def print_training(options):
    """Seconds of a training step of 16 pairs, and of 40 epochs of 400 pictures: wall clock and processor."""
    config = SFNetTraining(SFNetConfig(options.pyramid), precision=options.precision)
    batches = Batches(masked_pictures(options.dataset), config)
    network = new_network(config.network, create_pyramid(options.pyramid), 0)
    lesson = Lesson({"one": (network, config.losses)}, batches, config)
    lesson.step(0)
    start, used = time.perf_counter(), time.process_time()
    for number in range(options.training):
        lesson.step(number + 1)
    wall, cpu = ((now - then) / options.training for now, then in ((time.perf_counter(), start), (time.process_time(), used)))
    print(f"a step: {wall:.2f} s wall clock, {cpu:.2f} s of processor time, {torch.get_num_threads()} threads, {options.precision}")
    print(f"40 epochs of 400 pictures: {wall * 1000 / 60:.1f} minutes wall clock, {cpu * 1000 / 60:.1f} minutes of processor time")


def main(options):
    if options.training:
        return print_training(options)
    dataset = open_dataset(options.dataset)
    pairs = list(dataset.pairs(options.split))[: options.limit]
    print(f"{options.dataset}; published with ResNet-101: {'; '.join(PUBLISHED.values())}")
    if options.speed:
        print_speed(options, pairs)
    elif dataset.annotation == "masks":
        print_masks(options, dataset, pairs)
    else:
        print_keypoints(options, pairs)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
