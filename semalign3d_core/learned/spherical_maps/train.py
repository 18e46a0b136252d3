"""Training of the sphere mapper on kept features (SphericalMaps, CVPR 2024, sections 3 and 4)."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import one_hot

from semalign3d_core.learned.spherical_maps.losses import (
    LossWeights,
    distance_loss,
    draw_triplets,
    grid_positions,
    orientation_loss,
    reconstruction_loss,
    viewpoint_loss,
    weighted_sum,
)
from semalign3d_core.learned.spherical_maps.network import HEAD, SphericalMaps, sphere_points
from semalign3d_core.learned.spherical_maps.samples import SampleSet
from semalign3d_core.learned.spherical_maps.viewpoint import BINS, angle_between, fit_azimuth, mean_directions, read_azimuth
from semalign3d_core.runtime.errors import InputError

CHUNK = 16  # samples at a time
KNOWN = 256  # training samples whose azimuths say how the sphere stands


@dataclass(frozen=True)
class SphericalTraining:
    """Settings of a training run; the published ones have 200 epochs of batches of 64 and leave no cell out."""

    steps: int = 2000
    batch: int = 16
    cells: int = 64  # random cells of each sample that a step looks at; 0: all of them
    reconstructed: int = 16  # object cells per sample, on average, whose features a step reconstructs; 0: all of them
    width: int = 0  # channels inside the mapper, a multiple of 64; 0: half as many as features have, as published
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate; cosine: it falls to 0 towards the last step
    checkpoint_every: int = 200
    triplets: int = 32  # per image and loss
    margin: float = 0.5
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0


def training_losses(
    model: SphericalMaps,
    features: torch.Tensor,
    masks: torch.Tensor,
    positions: torch.Tensor,
    categories: torch.Tensor,
    degrees: torch.Tensor,
    config: SphericalTraining,
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """Named losses of a batch: features (B, N, C), masks (B, N, 1), positions (B, N, 2) or (N, 2), categories (B,), azimuths (B,)."""
    weights = config.weights
    points = sphere_points(model.sphere_mapper(features), masks)
    condition = one_hot(categories, model.prototypes.categories).to(features)
    losses = {}
    if weights.reconstruction:
        chosen = _some(points, config.reconstructed * len(points), generator)
        losses["reconstruction"] = reconstruction_loss(features, chosen, condition, model.prototypes)
    if weights.orientation:
        losses["orientation"] = orientation_loss(points, positions, *draw_triplets(points, config.triplets, generator))
    if weights.distance:
        rows, triplets = draw_triplets(points, config.triplets, generator)
        losses["distance"] = distance_loss(points, positions, rows, triplets, config.margin)
    if weights.viewpoint:
        losses["viewpoint"] = viewpoint_loss(points, degrees)
    return losses


def _some(points: torch.Tensor, count: int, generator: torch.Generator | None) -> torch.Tensor:
    """About ``count`` random ones of the points (B, N, 3) that are not 0, and 0 for the others; all of them for a count of 0."""
    seen = int((points.detach() != 0).any(-1).sum())
    if not 0 < count < seen:
        return points
    kept = torch.rand(points.shape[:2], generator=generator) < count / seen
    return points * kept[..., None].to(points.device)


class Trainer:
    """Model, optimiser and the steps of one run; what step ``n`` draws depends on the seed and on ``n`` alone.

    samples: :class:`~semalign3d_core.learned.spherical_maps.samples.SampleSet`;  categories: how many the decoder knows
    """

    def __init__(self, samples: SampleSet, categories: int, config: SphericalTraining, device: Any = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.samples, self.config, self.device = samples, config, torch.device(device)
        if config.width < 0 or config.width % HEAD:
            raise InputError(f"config.width {config.width}: it must be a multiple of {HEAD}, or 0 for the published width")
        self.model = SphericalMaps(samples.channels, categories, config.width or None)
        _start_at_standard_scale(self.model.sphere_mapper[0], samples)
        self.model.to(self.device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=config.learning_rate)
        self.positions = grid_positions(samples.cells, samples.cells)

    def step(self, number: int) -> dict[str, torch.Tensor]:
        """Optimisation step ``number``; returns its losses, detached."""
        losses = self._losses(self._batch(number), self._generator(0, number))
        total = weighted_sum(losses, self.config.weights)
        if self.config.schedule == "cosine":
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate / 2 * (1 + math.cos(math.pi * number / self.config.steps))
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        return {"total": total.detach(), **{name: value.detach() for name, value in losses.items()}}

    def validate(self, samples: SampleSet) -> dict[str, float]:
        """How well the azimuth is read off the sphere in other samples: share within half a bin in percent, median error in degrees."""
        every = torch.linspace(0, len(self.samples) - 1, min(len(self.samples), KNOWN)).long()
        axes = fit_azimuth(directions_of(self.model.sphere_mapper, self.samples, every), self.samples.degrees[every])
        errors = angle_between(read_azimuth(directions_of(self.model.sphere_mapper, samples), axes), samples.degrees)
        near = (errors <= 180 / BINS).float().mean()
        return {"azimuth_within_half_a_bin": 100 * float(near), "median_azimuth_error": float(errors.median())}

    def _losses(self, index: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        cells, positions = None, self.positions
        if 0 < self.config.cells < len(positions):
            cells = torch.rand(len(index), len(positions), generator=generator).topk(self.config.cells, dim=1).indices
            positions = positions[cells]
        known = *self.samples.take(index, cells), positions, self.samples.categories[index], self.samples.degrees[index]
        features, masks, positions, categories, degrees = (values.to(self.device) for values in known)
        return training_losses(self.model, features, masks, positions, categories, degrees, self.config, generator)

    def _batch(self, number: int) -> torch.Tensor:
        """Samples of a step: epoch after epoch in a new order, the last batch of one smaller."""
        count = len(self.samples)
        epoch, place = divmod(number, -(-count // self.config.batch))
        order = torch.randperm(count, generator=self._generator(1, epoch))
        return order[place * self.config.batch : (place + 1) * self.config.batch]

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed * 2 + purpose) * 10_000_000 + number)


@torch.no_grad()
def _start_at_standard_scale(layer: Any, samples: SampleSet) -> None:
    """Scales a new first layer as if every channel had mean 0 and deviation 1: what all features have in common hides the rest."""
    every = torch.linspace(0, len(samples) - 1, min(len(samples), KNOWN // 4)).long()
    features, _ = samples.take(every)
    mean, deviation = features.mean((0, 1)), features.std((0, 1)).clamp(min=1e-3)
    layer.weight /= deviation
    layer.bias.sub_(layer.weight @ mean)


@torch.no_grad()
def directions_of(mapper: nn.Sequential, samples: SampleSet, index: torch.Tensor | None = None) -> torch.Tensor:
    """Mean directions (M, 3) of the objects of samples (of ``index`` (M,), or of all), all cells seen."""
    index, device = torch.arange(len(samples)) if index is None else index, next(mapper.parameters()).device
    found = []
    for part in index.split(CHUNK):
        features, masks = samples.take(part)
        found.append(mean_directions(sphere_points(mapper(features.to(device)), masks.to(device))).cpu())
    return torch.cat(found)
