"""Training of the sphere mapper on kept features (SphericalMaps, CVPR 2024, sections 3 and 4)."""

from dataclasses import dataclass, field

import torch
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
from semalign3d_core.learned.spherical_maps.network import SphericalMaps, sphere_points
from semalign3d_core.learned.spherical_maps.viewpoint import angle_between, fit_azimuth, mean_directions, read_azimuth


@dataclass(frozen=True)
class SphericalTraining:
    """Settings of a training run; the published ones have 200 epochs of batches of 64 and look at every cell (cells = 0)."""

    steps: int = 2000
    batch: int = 16
    cells: int = 256  # random cells of each sample that a step looks at; 0: all of them
    learning_rate: float = 1e-3
    triplets: int = 32  # per image and loss
    margin: float = 0.5
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0


def training_losses(model, features, masks, positions, categories, degrees, config, generator=None):
    """Named losses of a batch: features (B, N, C), masks (B, N, 1), positions (B, N, 2) or (N, 2), categories (B,), azimuths (B,)."""
    weights = config.weights
    points = sphere_points(model.sphere_mapper(features), masks)
    condition = one_hot(categories, model.prototypes.blocks[0].attn.v.in_features).to(features)
    losses = {}
    if weights.reconstruction:
        losses["reconstruction"] = reconstruction_loss(features, points, condition, model.prototypes)
    if weights.orientation:
        losses["orientation"] = orientation_loss(points, positions, *draw_triplets(points, config.triplets, generator))
    if weights.distance:
        drawn = draw_triplets(points, config.triplets, generator)
        losses["distance"] = distance_loss(points, positions, *drawn, margin=config.margin)
    if weights.viewpoint:
        losses["viewpoint"] = viewpoint_loss(points, degrees)
    return losses


class Trainer:
    """Model, optimiser and the steps of one run; what step ``n`` draws depends on the seed and on ``n`` alone.

    samples: :class:`~semalign3d_core.learned.spherical_maps.samples.SampleSet`;  categories: how many the decoder knows
    """

    def __init__(self, samples, categories, config):
        torch.manual_seed(config.seed)
        self.samples, self.config = samples, config
        self.model = SphericalMaps(samples.channels, categories)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=config.learning_rate)
        self.positions = grid_positions(samples.cells, samples.cells)

    def step(self, number):
        """Optimisation step ``number``; returns its losses, detached."""
        generator = self._generator(0, number)
        index = self._batch(number)
        losses = self._losses(self.samples, index, generator)
        total = weighted_sum(losses, self.config.weights)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        return {"total": total.detach(), **{name: value.detach() for name, value in losses.items()}}

    @torch.no_grad()
    def validate(self, samples, chunk=16):
        """Minus the mean total loss on other samples, and the median error of the azimuth that is read from the sphere."""
        generator, totals = self._generator(1, 0), []
        for index in torch.arange(len(samples)).split(chunk):
            losses = self._losses(samples, index, generator)
            totals.append(float(weighted_sum(losses, self.config.weights)))
        every = torch.linspace(0, len(self.samples) - 1, min(len(self.samples), 256)).long()
        axes = fit_azimuth(directions_of(self.model.sphere_mapper, self.samples, every), self.samples.degrees[every])
        found = read_azimuth(directions_of(self.model.sphere_mapper, samples), axes)
        return {"minus_loss": -sum(totals) / len(totals), "azimuth_error": float(angle_between(found, samples.degrees).median())}

    def _losses(self, samples, index, generator):
        cells, positions = None, self.positions
        if 0 < self.config.cells < len(positions):
            cells = torch.rand(len(index), len(positions), generator=generator).topk(self.config.cells, dim=1).indices
            positions = positions[cells]
        features, masks = samples.take(index, cells)
        known = samples.categories[index], samples.degrees[index]
        return training_losses(self.model, features, masks, positions, *known, self.config, generator)

    def _batch(self, number):
        """Samples of a step: epoch after epoch in a new order, the last batch of one smaller."""
        count = len(self.samples)
        epoch, place = divmod(number, -(-count // self.config.batch))
        order = torch.randperm(count, generator=self._generator(2, epoch))
        return order[place * self.config.batch : (place + 1) * self.config.batch]

    def _generator(self, purpose, number):
        return torch.Generator().manual_seed((self.config.seed * 4 + purpose) * 10_000_000 + number)


@torch.no_grad()
def directions_of(mapper, samples, index=None, chunk=16):
    """Mean directions (M, 3) of the objects of samples (of ``index`` (M,), or of all), all cells seen."""
    index = torch.arange(len(samples)) if index is None else index
    found = []
    for part in index.split(chunk):
        features, masks = samples.take(part)
        found.append(mean_directions(sphere_points(mapper(features), masks)))
    return torch.cat(found)
