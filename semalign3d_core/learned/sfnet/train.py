"""Training SFNet from single pictures with masks."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from semalign3d_core.learned.loop import Training, train
from semalign3d_core.learned.sfnet.losses import LossWeights, directions, loss_terms
from semalign3d_core.learned.sfnet.network import SFNet, SFNetConfig
from semalign3d_core.learned.sfnet.pictures import MaskedPicture
from semalign3d_core.learned.sfnet.pyramids import create_pyramid
from semalign3d_core.learned.sfnet.samples import CELL, Jitter, in_other_colours, resized, training_pair
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.errors import InputError


@dataclass(frozen=True)
class SFNetTraining:
    """Settings of a training; the published ones unless they say otherwise.

    drop_after: epochs after which the learning rate is multiplied by ``drop``, once;  precision: of features and convolutions
    """

    network: SFNetConfig = field(default_factory=SFNetConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    jitter: Jitter = field(default_factory=Jitter)
    epochs: int = 40
    batch: int = 16
    learning_rate: float = 3e-5
    drop_after: int = 30
    drop: float = 0.2
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise InputError(f"{self.epochs} epochs of batches of {self.batch}: expected at least 1 and 2")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision {self.precision!r}: choose float32 or bfloat16")


class Batches:
    """Batches of training pairs, drawn from the seed and the number of the step alone; the next one is made meanwhile."""

    def __init__(self, pictures: Sequence[MaskedPicture], config: SFNetTraining) -> None:
        if len(pictures) < config.batch:
            raise InputError(f"{len(pictures)} images with masks: training needs at least one batch of {config.batch}")
        self.pictures, self.config = pictures, config
        self.per_epoch = len(pictures) // config.batch
        self._ahead: dict[int, Future[list[list[torch.Tensor]]]] = {}
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, step: int) -> list[list[torch.Tensor]]:
        """(images, masks) of a step, source and target each: (B, 3, h, w) in [0, 1] and (B, 1, h / 16, w / 16)."""
        waiting = self._ahead.pop(step, None)
        batch = self._draw(step) if waiting is None else waiting.result()
        self._ahead[step + 1] = self._thread.submit(self._draw, step + 1)
        return batch

    def _draw(self, step: int) -> list[list[torch.Tensor]]:
        epoch, number = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.pictures))
        chosen = order[number * self.config.batch : (number + 1) * self.config.batch]
        generator = np.random.default_rng([self.config.seed, epoch, number])
        pairs = [self._pair(self.pictures[index], generator) for index in chosen]
        return [[torch.stack([pair[kind][side] for pair in pairs]) for side in (0, 1)] for kind in (0, 1)]

    def _pair(self, picture: MaskedPicture, generator: np.random.Generator) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        rgb, mask = picture.read()
        if generator.random() < 0.5:
            rgb, mask = rgb[:, ::-1].copy(), mask[:, ::-1].copy()
        side = CELL * self.config.network.cells
        scene, outline = resized(rgb, mask, (side, side))
        copies = [in_other_colours(scene, self.config.jitter, generator) for _ in range(2)]
        return training_pair(copies, outline, generator.standard_normal((2, 6)))


def new_network(config: SFNetConfig, pyramid: nn.Module, seed: int) -> SFNet:
    """A :class:`SFNet` with fresh adaptation layers, on the pyramid's device."""
    torch.manual_seed(seed)
    return SFNet(pyramid, config).to(next(pyramid.parameters()).device)


class Lesson:
    """Trains one or several networks above the same frozen features on the same pairs: ``step`` of :class:`Training`.

    networks: {name: (:class:`SFNet`, :class:`LossWeights`)} with the same pyramid;  config: :class:`SFNetTraining`
    """

    def __init__(self, networks: dict[str, tuple[SFNet, LossWeights]], batches: Batches, config: SFNetTraining) -> None:
        self.networks, self.batches, self.config = networks, batches, config
        self.pyramid = next(iter(networks.values()))[0].pyramid
        self.device = next(self.pyramid.parameters()).device
        self.modules = {name: network for name, (network, _) in networks.items()}
        parameters = [p for network in self.modules.values() for p in network.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Performs step ``number``; returns the loss terms, of several networks their totals."""
        epoch = number // self.batches.per_epoch
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * (self.config.drop if epoch >= self.config.drop_after else 1)
        images, masks = ([values.to(self.device) for values in kind] for kind in self.batches(number))
        with torch.no_grad(), self._precision():
            levels = [[level.float() for level in self.pyramid(image)] for image in images]
        self.optimiser.zero_grad()
        found = {name: self._learn(network, weights, levels, masks) for name, (network, weights) in self.networks.items()}
        self.optimiser.step()
        if len(found) == 1:
            return next(iter(found.values()))
        return {name: sum(terms.values(), torch.zeros(())) for name, terms in found.items()}

    def _learn(
        self, network: SFNet, weights: LossWeights, levels: list[list[torch.Tensor]], masks: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        network.train()
        with self._precision():
            source, target = (network.adapted(*level) for level in levels)  # source first: two updates of the statistics
        matching = network.compare([level.float() for level in source], [level.float() for level in target])
        source_mask, target_mask = masks
        terms = loss_terms(directions(matching, source_mask, target_mask, published=weights.published), weights)
        sum(terms.values(), torch.zeros(())).backward()
        return {name: value.detach() for name, value in terms.items()}

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.config.precision == "bfloat16" else nullcontext()


def train_sfnet(
    pictures: Sequence[MaskedPicture],
    config: SFNetTraining,
    work: Path,
    validate: Callable[[SFNet], float] | None = None,
    quiet: bool = False,
    device: Any = "cpu",
) -> SFNet:
    """Trains an :class:`SFNet`, going on in the folder ``work`` where an earlier run stopped, and returns it in evaluation mode.

    pictures: :class:`MaskedPicture` ...;  config: :class:`SFNetTraining`;  validate: function(network) -> PCK in percent, asked after every
    epoch: the best network is returned; without it the last one
    """
    network = new_network(config.network, create_pyramid(config.network.pyramid).to(device), config.seed)
    batches = Batches(pictures, config)
    lesson = Lesson({"sfnet": (network, config.losses)}, batches, config)
    training = Training(
        {"sfnet": network},
        lesson.optimiser,
        lesson.step,
        validate=None if validate is None else lambda: {"PCK": validate(network.eval())},
        settings={"training": to_dict(config), "pictures": [str(picture.picture) for picture in pictures]},
    )
    steps = config.epochs * batches.per_epoch
    train(training, work, steps, batches.per_epoch, batches.per_epoch if validate else 0, "SFNet", quiet)
    if validate is not None:
        from semalign3d_core.learned.loop import load_module

        load_module(work / "best.safetensors", "sfnet", network)
    return network.eval()
