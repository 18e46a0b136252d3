"""Which weights should the embedded backbone's training start from? docs/embedded_backbone.md, "On photographs".

    python bench/encoder_start.py DIR --start shipped|random|imagenet [--samples FOLDER] [--steps 600] [--learning-rate 5e-4]

Trains equally long from the shipped network, from random weights, or with the encoder of EfficientNet-Lite0 from ImageNet (extra
``lite``; its batch statistics are fixed, its learning rate is a tenth of the rest) under the same attention and top-down path. Then it
prints, per category, the PCK@0.1 of nearest neighbours from 30 rendered pictures into the marked boxes of the photographs in DIR (our
layout): features alone, without category models. ``--steps 0`` measures the start itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import time
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from photographs import photographs
from torch import nn

from semalign3d_core.datasets.synthetic import KEYPOINTS, RenderConfig, sample_rendering
from semalign3d_core.geometry.mask_field import square_around
from semalign3d_core.learned.compact import train
from semalign3d_core.learned.compact.samples import SampleSet
from semalign3d_core.metrics.pck import pck_correct
from semalign3d_core.perception.backbones.compact import INPUT_SIDE, CompactBackbone, CompactNet, load_network
from semalign3d_core.perception.backbones.efficientnet_lite import at_cells, block_table, load_efficientnet_lite
from semalign3d_core.perception.evidence import ImageInput, read_image

BLOCKS = (2, 4, 10)  # of EfficientNet-Lite0: the last at strides 4, 8 and 16
SOURCES, SOURCE_SEED, SOURCE_SIDE = 30, 77_000, 256
ALPHA = 0.1


@dataclass
class Options:
    """Options of the benchmark."""

    dir: tyro.conf.Positional[Path]
    """Folder of photographs in our layout."""
    start: Literal["shipped", "random", "imagenet"]
    """Weights to start from."""
    samples: Path = Path("runs/encoder_start")
    """Folder of the rendered training pictures; missing ones are rendered."""
    images: int = 1500
    """Training pictures, all categories together."""
    steps: int = 600
    """Training steps of one view per category."""
    learning_rate: float = 5e-4
    """Peak of the learning rate."""


class ImageNetStart(CompactNet):
    """The embedded network with the first blocks of EfficientNet-Lite0 in place of its stem and residual blocks."""

    def __init__(self, channels, classes):
        super().__init__(channels, classes)
        widths = (*[layer.out_channels for layer in self.lateral], self.lateral[-1].in_channels)
        del self.stem, self.down, self.blocks
        self.encoder = load_efficientnet_lite("0", BLOCKS)
        inputs = [block_table("0")[block][0] for block in BLOCKS]
        self.enter = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b in zip(inputs, widths, strict=True)
        )

    def trunk(self, image):
        """See :class:`CompactNet`."""
        sides = [INPUT_SIDE // stride for stride in (4, 8, 16)]
        seen = zip(self.enter, self.encoder(image), sides, strict=True)
        levels = [enter(at_cells(level.float(), side, INPUT_SIDE)) for enter, level, side in seen]
        x = self.attention(levels[-1] + self.position)
        for index in reversed(range(len(self.lateral))):
            x = nn.functional.interpolate(self.lateral[index](x), size=levels[index].shape[-2:], mode="bilinear", align_corners=False)
            x = self.refine[index](x + levels[index])
        return x


def trained(options, config):
    """The network in evaluation mode after ``options.steps`` steps from ``options.start``."""
    counts = config.of_categories(config.images // len(config.categories))
    samples = SampleSet.render(options.samples, config.categories, counts, config.seed, workers=1)
    torch.manual_seed(config.seed)
    model = train.TrainedModel(config)
    if options.start == "imagenet":
        model.network = ImageNetStart(config.channels, 1 + len(config.categories)).to(memory_format=torch.channels_last)
    if options.start == "shipped":
        shipped = Path(str(resources.files("semalign3d_core"))) / "assets" / "compact.safetensors"
        model.network.load_state_dict(load_network(shipped)[0].state_dict())
        if options.steps:
            train.learn_heads(model, samples, config, quiet=True)
    gentle = [p for name, p in model.named_parameters() if ".encoder." in name]
    rest = [p for name, p in model.named_parameters() if ".encoder." not in name]
    optimiser = torch.optim.AdamW([{"params": rest}, {"params": gentle}], lr=config.learning_rate, weight_decay=config.weight_decay)
    train.set_training(model, config)
    for step in range(options.steps):
        train.set_learning_rate(optimiser, config, step)
        optimiser.param_groups[1]["lr"] *= 0.1
        loss = train.training_step(model, optimiser, samples, config, step)
        if step % 50 == 0:
            print(f"step {step}: loss {float(loss):.2f}, {time.process_time():.0f} s of CPU", flush=True)
    return model.network.eval()


def backbone_of(network):
    """The network behind the backbone protocol, two views as shipped."""
    backbone = CompactBackbone()
    backbone._run, backbone._classes, backbone.channels = network, network.classes, 2 * network.head.out_channels
    return backbone


def within(backbone, image, box):
    """(features, grid) of the surroundings of a box."""
    features = backbone.extract(replace(image, window=square_around(box, backbone.close_up)))
    return features, features.grid


def source_descriptors(backbone, category):
    """{keypoint name index: (N, channels)} of the visible keypoints of rendered pictures."""
    found = {}
    for number in range(SOURCES):
        picture = sample_rendering(category, SOURCE_SEED + number, number, SOURCE_SIDE, RenderConfig())
        features, _ = within(backbone, ImageInput(picture.image), picture.box)
        visible = np.flatnonzero(picture.visible)
        for index, vector in zip(visible, features.sample(torch.tensor(picture.keypoints_2d[visible], dtype=torch.float32)), strict=True):
            found.setdefault(int(index), []).append(vector)
    return {index: torch.stack(vectors) for index, vectors in found.items()}


def pck(backbone, folder, categories):
    """{category: PCK@0.1 in percent} of nearest neighbours; the longer side of the box counts."""
    rates = {}
    for category, items in sorted(photographs(folder, categories).items()):
        sources, index = source_descriptors(backbone, category), {n: k for k, n in enumerate(KEYPOINTS[category].names)}
        hits = []
        for record, names in items:
            features, grid = within(backbone, read_image(record.path, record=record), np.asarray(record.box, dtype=float))
            flat, centres = features.values.flatten(1), grid.cell_centres().numpy()
            hidden = set(record.attributes.get("hidden", ()))
            x1, y1, x2, y2 = record.box
            for k, name in enumerate(names):
                if k in hidden or not np.isfinite(record.keypoints[k]).all() or index.get(name) not in sources:
                    continue
                place = centres[int((sources[index[name]] @ flat).amax(0).argmax())]
                hits.append(pck_correct(place[None], record.keypoints[k][None], max(x2 - x1, y2 - y1), (ALPHA,))[0, 0])
        rates[category] = 100 * float(np.mean(hits))
    return rates


def main(options):
    torch.set_num_threads(1)
    config = train.CompactTraining(
        images=options.images, steps=max(options.steps, 1), per_category=1, points=80, background_points=20, evenness=0.5,
        learning_rate=options.learning_rate, fixed_statistics=options.start == "shipped", seed=7,
        augmentation=train.Augmentation(close_rate=0.6, close_margin=(0.02, 0.35), any_turn_rate=0.05, paste_rate=0.2, studio_rate=0.2,
                                        gamma=0.25, jpeg_rate=0.3, grey_rate=0.05),
    )  # fmt: skip
    network = trained(options, config)
    size = sum(p.numel() for p in network.parameters()) / 1e6
    with torch.inference_mode():
        picture = torch.rand(2, 3, INPUT_SIDE, INPUT_SIDE)
        network(picture)
        start = time.process_time()
        for _ in range(10):
            network(picture)
        look = 100 * (time.process_time() - start)
    rates = pck(backbone_of(network), options.dir, config.categories)
    print(f"{options.start}, {options.steps} steps: {size:.1f} million parameters, {look:.0f} ms of CPU for a look")
    print(", ".join(f"{category} {rate:.0f}" for category, rate in rates.items()) + f"; mean {np.mean(list(rates.values())):.1f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
