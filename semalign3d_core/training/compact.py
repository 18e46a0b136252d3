"""Training of the embedded backbone: dense correspondences between different instances of the synthetic categories.

Every pixel of a rendered object knows its place on the category's template (canonical coordinates), which is the same for
all instances. A feature shall be near the embedding of its place, which is learned with it, and far from the embeddings of other
places, other categories and the background (InfoNCE with soft targets).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from semalign3d_core.backbones.compact import CompactNet
from semalign3d_core.errors import MissingFileError
from semalign3d_core.files import atomic_path
from semalign3d_core.training.checkpoint import load_checkpoint, save_checkpoint
from semalign3d_core.training.samples import SampleSet


@dataclass(frozen=True)
class CompactTraining:
    """Settings of one training run."""

    categories: tuple = ("bottle", "mug", "chair", "car", "aeroplane", "tvmonitor")
    images: int = 2400  # rendered once, all categories together
    steps: int = 4000
    per_category: int = 2  # images of each category in a step
    points: int = 64  # object cells drawn per image
    background_points: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    temperature: float = 0.07
    tolerance: float = 0.05  # how far apart positives may be, in template diameters (standard deviation)
    channels: int = 64
    checkpoint_every: int = 100
    seed: int = 0


class TrainedModel(nn.Module):
    """Everything that is trained: the network that is kept, and the embedding of the surfaces that is not."""

    def __init__(self, config):
        super().__init__()
        self.network = CompactNet(config.channels).to(memory_format=torch.channels_last)
        self.surface = SurfaceEmbedding(len(config.categories), config.channels)
        self.place = nn.Conv2d(self.network.head.in_channels, len(config.categories) + 4, 1)


def train_compact(config, samples_folder, checkpoint, workers=2, initial=None, quiet=False):
    """Renders what is missing in ``samples_folder``, trains, and returns the :class:`CompactNet` in evaluation mode.

    ``checkpoint`` (a path) is written every ``checkpoint_every`` steps and resumed from; ``initial`` is the checkpoint of an earlier
    run whose weights this one starts with. Deterministic for a given seed and
    thread count, interrupted or not.
    """
    samples = SampleSet.render(samples_folder, config.categories, config.images, config.seed, workers, quiet)
    torch.manual_seed(config.seed)
    model = TrainedModel(config)
    if initial is not None and load_checkpoint(initial, model) == 0:
        raise MissingFileError(f"{initial} does not exist: give the checkpoint of an earlier run, or none")
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    first = load_checkpoint(checkpoint, model, optimiser)
    model.train()
    with tqdm(total=config.steps, initial=first, desc="train compact", disable=quiet) as bar:
        for step in range(first, config.steps):
            set_learning_rate(optimiser, config, step)
            loss = training_step(model, optimiser, samples, config, step)
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(checkpoint, model, optimiser, step + 1)
    return model.network.eval()


def set_learning_rate(optimiser, config, step):
    """Linear warm-up over the first 5 %, then cosine decay to 1 % of the peak."""
    progress = (step + 1) / config.steps
    factor = progress / 0.05 if progress < 0.05 else 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (progress - 0.05) / 0.95))
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * float(factor)


def training_step(model, optimiser, samples, config, step):
    """One optimisation step; returns the loss. Its randomness depends on the seed and the step alone."""
    generator = np.random.default_rng((config.seed, step))
    images, canonical, labels = samples.batch(config.per_category, generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trunk = model.network.trunk(images.to(memory_format=torch.channels_last))
    trunk = trunk.float()
    features = nn.functional.normalize(model.network.head(trunk), dim=1)
    descriptors, coordinates, categories = draw_points(features, canonical, labels, config, generator)
    keys = model.surface(coordinates, categories)
    loss = contrastive_loss(descriptors, keys, coordinates, categories, config.temperature, config.tolerance)
    loss = loss + place_loss(model.place(trunk), canonical, labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def draw_points(features, canonical, labels, config, generator):
    """Draws object and background cells of every image.

    features (B, C, H, W); canonical (B, H, W, 3), NaN off the object; labels (B,) category index.
    Returns descriptors (N, C), coordinates (N, 3), category (N,) with -1 for background.
    """
    flat = features.flatten(2).transpose(1, 2)
    descriptors, coordinates, categories = [], [], []
    for index, label in enumerate(labels):
        places = canonical[index].reshape(-1, 3)
        on_object = ~torch.isnan(places[:, 0])
        for wanted, cells in ((config.points, on_object.nonzero()[:, 0]), (config.background_points, (~on_object).nonzero()[:, 0])):
            chosen = cells[torch.from_numpy(generator.permutation(len(cells))[:wanted])]
            descriptors.append(flat[index, chosen])
            coordinates.append(places[chosen].nan_to_num())
            categories.append(torch.where(on_object[chosen], int(label), -1))
    return torch.cat(descriptors), torch.cat(coordinates), torch.cat(categories)


class SurfaceEmbedding(nn.Module):
    """Embeds places of the templates where the network's features of those places shall lie; used in training only.

    forward: coordinates (N, 3), categories (N,) with -1 for background -> (N, channels), unit norm.
    Source: continuous surface embeddings (Neverova et al., NeurIPS 2020), with a coordinate network in place of a table.
    """

    def __init__(self, categories, channels, frequencies=32, width=128):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3, frequencies) * 6)
        self.code = nn.Embedding(categories + 1, width)
        self.place = nn.Linear(2 * frequencies, width)
        self.output = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels))

    def forward(self, coordinates, categories):
        phase = coordinates @ self.frequencies
        place = self.place(torch.cat([phase.sin(), phase.cos()], dim=1)) * (categories >= 0)[:, None]
        return nn.functional.normalize(self.output(place + self.code(categories + 1)), dim=1)


def contrastive_loss(descriptors, keys, coordinates, categories, temperature, tolerance):
    """Cross entropy between soft positives and the softmax of the similarities of features to embedded places.

    descriptors, keys (N, C) unit; coordinates (N, 3); categories (N,), -1 for background. The target of a feature is proportional to
    ``exp(-d^2 / 2 tolerance^2)`` over the places of its own category, d in template diameters; a background feature's over all background.
    """
    log_probability = torch.log_softmax(descriptors @ keys.T / temperature, dim=1)
    distance2 = torch.cdist(coordinates, coordinates).square()
    target = torch.exp(-distance2 / (2 * tolerance**2)) * (categories[:, None] == categories[None])
    return -(target / target.sum(1, keepdim=True) * log_probability).sum(1).mean()


def place_loss(output, canonical, labels):
    """Category and place of every cell, asked directly: it carries the first steps, in which similarities say little.

    output (B, 3 + categories + 1, H, W): coordinates, then logits with the background first; canonical (B, H, W, 3); labels (B,).
    """
    on_object = ~torch.isnan(canonical[..., 0])
    category = torch.where(on_object, labels[:, None, None] + 1, 0)
    classes = nn.functional.cross_entropy(output[:, 3:], category)
    error = nn.functional.smooth_l1_loss(output[:, :3].movedim(1, -1)[on_object], canonical[on_object], beta=0.05)
    return classes + 10 * error


def save_network(network, path, name, config):
    """Writes the network (half precision safetensors with its name and settings) where the backbone expects it."""
    from dataclasses import asdict
    from json import dumps

    from safetensors.torch import save_file

    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"name": name, "training": dumps(asdict(config))})
