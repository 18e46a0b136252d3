"""Training of the embedded backbone: dense correspondences between different instances of the synthetic categories.

Every pixel of a rendered object knows its place on the category's template (canonical coordinates). Pixels of two
different instances at the same place are positives, weighted by how near they are; all other places of the category,
other categories and backgrounds are negatives (InfoNCE with soft targets).
"""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from semalign3d_core.backbones.compact import CompactNet
from semalign3d_core.errors import InputError
from semalign3d_core.files import atomic_path
from semalign3d_core.training.checkpoint import load_checkpoint, save_checkpoint
from semalign3d_core.training.samples import SampleSet


@dataclass(frozen=True)
class CompactTraining:
    """Settings of one training run."""

    categories: tuple = ("bottle", "mug", "chair", "car", "aeroplane", "tvmonitor")
    images: int = 2400  # rendered once, all categories together
    steps: int = 1500
    per_category: int = 2  # images of each category in a step
    points: int = 96  # object pixels drawn per image
    background_points: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    temperature: float = 0.07
    tolerance: float = 0.05  # how far apart positives may be, in template diameters (standard deviation)
    channels: int = 64
    checkpoint_every: int = 100
    seed: int = 0


def train_compact(config, samples_folder, checkpoint, workers=2, quiet=False):
    """Renders what is missing in ``samples_folder``, trains, and returns the :class:`CompactNet` in evaluation mode.

    ``checkpoint`` (a path) is written every ``checkpoint_every`` steps and resumed from. Deterministic for a given seed and
    thread count, interrupted or not.
    """
    samples = SampleSet.render(samples_folder, config.categories, config.images, config.seed, workers, quiet)
    torch.manual_seed(config.seed)
    network = CompactNet(config.channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    first = load_checkpoint(checkpoint, network, optimiser)
    network.train()
    with tqdm(total=config.steps, initial=first, desc="train compact", disable=quiet) as bar:
        for step in range(first, config.steps):
            set_learning_rate(optimiser, config, step)
            loss = training_step(network, optimiser, samples, config, step)
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(checkpoint, network, optimiser, step + 1)
    return network.eval()


def set_learning_rate(optimiser, config, step):
    """Linear warm-up over the first 5 %, then cosine decay to 1 % of the peak."""
    progress = (step + 1) / config.steps
    factor = progress / 0.05 if progress < 0.05 else 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (progress - 0.05) / 0.95))
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * float(factor)


def training_step(network, optimiser, samples, config, step):
    """One optimisation step; returns the loss. Its randomness depends on the seed and the step alone."""
    generator = np.random.default_rng((config.seed, step))
    images, canonical, labels = samples.batch(config.per_category, generator)
    features = network(images.to(memory_format=torch.channels_last))
    points = draw_points(features, canonical, labels, config, generator)
    loss = contrastive_loss(*points, config.temperature, config.tolerance)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def draw_points(features, canonical, labels, config, generator):
    """Draws object and background cells of every image.

    features (B, C, H, W); canonical (B, H, W, 3), NaN off the object; labels (B,) category index.
    Returns descriptors (N, C), coordinates (N, 3), category (N,) with -1 for background, image (N,).
    """
    flat = features.flatten(2).transpose(1, 2)
    descriptors, coordinates, categories, images = [], [], [], []
    for index, label in enumerate(labels):
        places = canonical[index].reshape(-1, 3)
        on_object = ~torch.isnan(places[:, 0])
        for wanted, cells in ((config.points, on_object.nonzero()[:, 0]), (config.background_points, (~on_object).nonzero()[:, 0])):
            chosen = cells[torch.from_numpy(generator.permutation(len(cells))[:wanted])]
            descriptors.append(flat[index, chosen])
            coordinates.append(places[chosen].nan_to_num())
            categories.append(torch.where(on_object[chosen], int(label), -1))
            images.append(torch.full((len(chosen),), index))
    return torch.cat(descriptors), torch.cat(coordinates), torch.cat(categories), torch.cat(images)


def contrastive_loss(descriptors, coordinates, categories, images, temperature, tolerance):
    """Cross entropy between soft positives and the softmax of similarities, over object points as queries.

    Keys are all points except the object points of the query's own image (its background stays as negatives). The target of a query is
    proportional to ``exp(-d^2 / 2 tolerance^2)`` over keys of its category, d in template diameters; queries whose nearest positive
    is farther than 3 tolerances are left out (the part is missing or hidden in the other images).
    """
    query = categories >= 0
    logits = descriptors[query] @ descriptors.T / temperature
    same_category = categories[query][:, None] == categories[None]
    own = images[query][:, None] == images[None]
    distance2 = torch.cdist(coordinates[query], coordinates).square()
    positive = torch.where(same_category & ~own, torch.exp(-distance2 / (2 * tolerance**2)), 0.0)
    usable = positive.amax(1) > np.exp(-4.5)
    if not usable.any():
        raise InputError("no two images of a batch show the same part: render more images or raise the tolerance")
    logits = logits.masked_fill(own & same_category, float("-inf"))[usable]
    target = positive[usable] / positive[usable].sum(1, keepdim=True)
    log_probability = torch.log_softmax(logits, dim=1).masked_fill(target == 0, 0.0)  # 0 * -inf otherwise
    return -(target * log_probability).sum(1).mean()


def save_network(network, path, name, config):
    """Writes the network (half precision safetensors with its name and settings) where the backbone expects it."""
    from dataclasses import asdict
    from json import dumps

    from safetensors.torch import save_file

    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"name": name, "training": dumps(asdict(config))})
