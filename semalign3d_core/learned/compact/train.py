"""Training of the embedded backbone: dense correspondences between different instances of the synthetic categories.

Every pixel of a rendered object knows its place on the category's template (canonical coordinates), which is the same for
all instances. A feature shall be near the embedding of its place, which is learned with it, and far from the embeddings of other
places, other categories and the background (InfoNCE with soft targets).
"""

import json
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from semalign3d_core.learned.compact.augmentation import Augmentation, views
from semalign3d_core.learned.compact.samples import SampleSet, photograph_pieces
from semalign3d_core.learned.loop import Training, is_started, load_module, train
from semalign3d_core.perception.backbones.compact import CELL, INPUT_SIDE, CompactNet, is_network, load_network
from semalign3d_core.runtime.errors import InputError, MissingFileError
from semalign3d_core.runtime.tensors import write_tensors

VOXEL = 0.08  # of the template, in diameters: the places that evenness is about
HEAD_STEPS, HEAD_BATCHES, HEAD_RATE = 1500, 60, 3e-3  # what files of networks do not keep is learned anew


@dataclass(frozen=True)
class CompactTraining:
    """Settings of one training run."""

    categories: tuple = ("bottle", "mug", "chair", "car", "aeroplane", "tvmonitor")
    images: int = 1500  # rendered once, all categories together
    steps: int = 1500
    per_category: int = 2  # views of each category in a step
    emphasis: tuple[float, ...] = ()  # how many times as many pictures, and views in a step, each category has (none: once)
    points: int = 64  # object cells drawn per view
    background_points: int = 24
    evenness: float = 0.0  # of the points over the templates' surfaces (1) instead of over the cells (0), of which thin parts have few
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    temperature: float = 0.07
    tolerance: float = 0.04  # how far apart positives may be, in template diameters (standard deviation)
    channels: int = 64
    checkpoint_every: int = 100
    fixed_statistics: bool = False  # batch normalisation stays as it is, for a finished network that is trained on with few views
    pictures: str = ""  # folder of photographs that the renderings show behind and on things; "": scikit-image's, if installed
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.emphasis and (len(self.emphasis) != len(self.categories) or min(self.emphasis) <= 0):
            raise InputError(f"emphasis {self.emphasis} must hold one positive number for each of {', '.join(self.categories)}")

    def of_categories(self, count: int) -> list[int]:
        """``count`` of every category, as many times as the emphasis says, but at least one."""
        return [max(1, round(count * weight)) for weight in self.emphasis or [1.0] * len(self.categories)]


class TrainedModel(nn.Module):
    """Everything that is trained: the network that is kept, and the embedding of the surfaces and the head for places, which are not."""

    def __init__(self, config: CompactTraining) -> None:
        super().__init__()
        self.network = CompactNet(config.channels, 1 + len(config.categories))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.surface = SurfaceEmbedding(len(config.categories), config.channels)
        self.place = nn.Conv2d(self.network.head.in_channels, 3, 1)

    def see(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head reads, and the unit features, of images (B, 3, h, w)."""
        # The gradient of the fused attention takes longer on processors than that of its parts.
        attention = sdpa_kernel(SDPBackend.MATH) if images.device.type == "cpu" else nullcontext()
        with attention, torch.autocast(images.device.type, torch.bfloat16, halves_are_quick(images.device)):
            trunk = self.network.trunk(images.contiguous(memory_format=torch.channels_last))
        trunk = trunk.float()
        return trunk, nn.functional.normalize(self.network.head(trunk), dim=1)


def train_compact(
    config: CompactTraining,
    samples_folder: Path,
    work: Path,
    workers: int = 2,
    initial: Path | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> CompactNet:
    """Renders what is missing in ``samples_folder``, trains on ``device``, and returns the :class:`CompactNet` in evaluation mode.

    work: folder of the run, see :mod:`semalign3d_core.learned.loop`; an interrupted one goes on from there
    initial: checkpoint of an earlier run, or a network's file, whose weights this one starts with
    Deterministic on the CPU for a given seed and thread count, interrupted or not.
    """
    pictures = config.of_categories(math.ceil(config.images / len(config.categories)))
    samples = SampleSet.render(samples_folder, config.categories, pictures, config.seed, workers, quiet, device, config.pictures)
    if config.pictures:
        samples.photographs = photograph_pieces(config.pictures, seed=config.seed).to(device)
    torch.manual_seed(config.seed)
    model = TrainedModel(config).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    if initial is not None and not is_started(work):
        begin_with(initial, model, samples, config, quiet)
    set_training(model, config)
    settings = {name: value for name, value in asdict(config).items() if name != "checkpoint_every"}
    training = Training({"model": model}, optimiser, partial(training_step, model, optimiser, samples, config), settings=settings)
    train(training, work, config.steps, config.checkpoint_every, title="train compact", quiet=quiet)
    return model.network.eval().to("cpu")


def begin_with(initial: Path, model: TrainedModel, samples: SampleSet, config: CompactTraining, quiet: bool = False) -> None:
    """Gives the :class:`TrainedModel` the weights of a checkpoint, or those of a network's file and to them what it does not keep."""
    if not Path(initial).is_file():
        raise MissingFileError(f"{initial} does not exist: give the checkpoint of an earlier run, the file of a network, or none")
    if not is_network(initial):
        load_module(initial, "model", model)
        return
    model.network.load_state_dict(load_network(Path(initial))[0].state_dict())
    learn_heads(model, samples, config, quiet)


def learn_heads(model: TrainedModel, samples: SampleSet, config: CompactTraining, quiet: bool = False) -> None:
    """Trains the embedding of the surfaces and the head for places for a network that stays as it is."""
    device = samples.labels.device
    batches = [_seen(model.eval(), samples, config, number) for number in range(HEAD_BATCHES)]
    heads = [*model.surface.parameters(), *model.place.parameters()]
    optimiser = torch.optim.AdamW(heads, lr=HEAD_RATE, weight_decay=config.weight_decay)
    for step in tqdm(range(HEAD_STEPS), desc="learn heads", disable=quiet or None):
        optimiser.param_groups[0]["lr"] = HEAD_RATE * (1 - step / HEAD_STEPS)
        trunk, features, canonical, labels = batches[step % HEAD_BATCHES]
        generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + step)
        loss = matching_loss(model, features.float(), canonical, labels, config, generator)
        loss = loss + place_loss(model.place(trunk.float()), canonical)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _seen(model, samples, config, number):
    """Views and what the network says of them, in half precision, for many are kept."""
    generator = torch.Generator(samples.labels.device).manual_seed((config.seed + 1) * 1_000_003 - 1 - number)
    index = samples.draw(config.of_categories(config.per_category), generator)
    images, canonical, labels = views(samples, index, INPUT_SIDE, CELL, config.augmentation, generator)
    trunk, features = model.see(images)
    return trunk.half(), features.half(), canonical, labels


def set_training(model: TrainedModel, config: CompactTraining) -> None:
    """Training mode, but for the statistics that shall not change."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not config.fixed_statistics)


def set_learning_rate(optimiser: torch.optim.Optimizer, config: CompactTraining, step: int) -> None:
    """Linear warm-up over the first 5 %, then cosine decay to 1 % of the peak."""
    progress = (step + 1) / config.steps
    factor = progress / 0.05 if progress < 0.05 else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * factor


def training_step(
    model: TrainedModel, optimiser: torch.optim.Optimizer, samples: SampleSet, config: CompactTraining, step: int
) -> dict[str, torch.Tensor]:
    """Optimisation step number ``step``; returns its losses. Its randomness depends on the seed and the step alone."""
    set_learning_rate(optimiser, config, step)
    device = samples.labels.device
    generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + step)
    index = samples.draw(config.of_categories(config.per_category), generator)
    images, canonical, labels = views(samples, index, INPUT_SIDE, CELL, config.augmentation, generator)
    trunk, features = model.see(images)
    matching = matching_loss(model, features, canonical, labels, config, generator)
    classes = nn.functional.cross_entropy(model.network.classify(features), labels + 1)
    place = place_loss(model.place(trunk), canonical)
    optimiser.zero_grad(set_to_none=True)
    (matching + classes + place).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return {name: loss.detach() for name, loss in (("matching", matching), ("classes", classes), ("place", place))}


def halves_are_quick(device: torch.device) -> bool:
    """Whether ``device`` computes in bfloat16; a processor without AVX-512 would take a hundred times as long."""
    return device.type == "cuda" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def draw_points(
    features: torch.Tensor, canonical: torch.Tensor, labels: torch.Tensor, config: CompactTraining, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws object and background cells of every view.

    features (B, C, H, W); canonical (B, 3, H, W), NaN off the objects; labels (B, H, W), -1 for background.
    Returns descriptors (N, C), coordinates (N, 3), category (N,) with -1 for background, and weights (N,): 0 for the places
    of views that show too few cells of a kind.
    """
    flat, places, category = features.flatten(2), canonical.flatten(2).nan_to_num(), labels.flatten(1)
    # The largest log(u) / w are a sample without replacement with probabilities that go with w.
    score = torch.rand(category.shape, generator=generator, device=category.device).clamp(min=1e-9).log()
    if config.evenness:
        score = score * cells_of_a_place(places, category) ** config.evenness
    chosen, weighted = [], []
    for wanted, eligible in ((config.points, category >= 0), (config.background_points, category < 0)):
        best = torch.where(eligible, score, -torch.inf).topk(min(wanted, score.shape[1]), dim=1)
        chosen.append(best.indices)
        weighted.append(torch.isfinite(best.values).float())
    index, weights = torch.cat(chosen, 1), torch.cat(weighted, 1)

    def take(values):
        return values.gather(2, index[:, None].expand(-1, values.shape[1], -1)).transpose(1, 2).flatten(0, 1)

    return take(flat), take(places), category.gather(1, index).flatten(), weights.flatten()


def cells_of_a_place(places: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    """(B, N): how many cells of all views show the same place, within a voxel of the category's template, as each cell.

    places (B, 3, N); category (B, N), -1 for the background, all of which is one place.
    """
    voxel = (places / VOXEL).floor().long()
    low = voxel.amin((0, 2), keepdim=True)
    x, y, z = (voxel - low).unbind(1)
    _, width, height = (voxel - low).amax((0, 2)) + 1
    number = ((category + 1) * (x.max() + 1) + x) * width * height + y * height + z
    number = torch.where(category >= 0, number, 0)
    _, index, count = number.unique(return_inverse=True, return_counts=True)
    return count[index].to(places)


def matching_loss(
    model: TrainedModel,
    features: torch.Tensor,
    canonical: torch.Tensor,
    labels: torch.Tensor,
    config: CompactTraining,
    generator: torch.Generator,
) -> torch.Tensor:
    """:func:`contrastive_loss` of points of the views, see :func:`draw_points`, and the embeddings of their places."""
    descriptors, coordinates, categories, weights = draw_points(features, canonical, labels, config, generator)
    keys = model.surface(coordinates, categories)
    return contrastive_loss(descriptors, keys, coordinates, categories, weights, config.temperature, config.tolerance)


class SurfaceEmbedding(nn.Module):
    """Embeds places of the templates where the network's features of those places shall lie; used in training only.

    forward: coordinates (N, 3), categories (N,) with -1 for background -> (N, channels), unit norm.
    Source: continuous surface embeddings (Neverova et al., NeurIPS 2020), with a coordinate network in place of a table.
    """

    frequencies: torch.Tensor

    def __init__(self, categories: int, channels: int, frequencies: int = 32, width: int = 128) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3, frequencies) * 6)
        self.code = nn.Embedding(categories + 1, width)
        self.place = nn.Linear(2 * frequencies, width)
        self.output = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels))

    def forward(self, coordinates: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings (N, C) of places (N, 3) of categories (N,), -1 for the background."""
        phase = coordinates @ self.frequencies
        place = self.place(torch.cat([phase.sin(), phase.cos()], dim=1)) * (categories >= 0)[:, None]
        return nn.functional.normalize(self.output(place + self.code(categories + 1)), dim=1)


def contrastive_loss(
    descriptors: torch.Tensor,
    keys: torch.Tensor,
    coordinates: torch.Tensor,
    categories: torch.Tensor,
    weights: torch.Tensor,
    temperature: float,
    tolerance: float,
) -> torch.Tensor:
    """Cross entropy between soft positives and the softmax of the similarities of features to embedded places.

    descriptors, keys (N, C) unit; coordinates (N, 3); categories (N,), -1 for background; weights (N,), 0 leaves a point out.
    The target of a feature is proportional to ``exp(-d^2 / 2 tolerance^2)`` over the places of its own category, d in
    template diameters; a background feature's over all background.
    """
    logits = (descriptors @ keys.T / temperature).masked_fill(weights[None] == 0, -1e4)
    norm2 = coordinates.square().sum(1)
    distance2 = (norm2[:, None] + norm2[None] - 2 * coordinates @ coordinates.T).clamp(min=0)
    target = torch.exp(-distance2 / (2 * tolerance**2)) * (categories[:, None] == categories[None]) * weights[None]
    losses = -(target * torch.log_softmax(logits, dim=1)).sum(1) / target.sum(1).clamp(min=1e-12)
    return (losses * weights).sum() / weights.sum()


def place_loss(output: torch.Tensor, canonical: torch.Tensor) -> torch.Tensor:
    """Error of the place of every cell, asked directly: it carries the first steps, in which similarities say little.

    output, canonical (B, 3, H, W), the latter NaN off the objects.
    """
    on_object = ~torch.isnan(canonical[:, :1])
    error = nn.functional.smooth_l1_loss(output, torch.where(on_object, canonical, output.detach()), beta=0.05, reduction="none")
    return 10 * error.sum() / (3 * on_object.sum().clamp(min=1))


def save_network(network: CompactNet, path: Path, name: str, config: CompactTraining) -> None:
    """Writes the network (half precision safetensors with its name and settings) where the backbone expects it."""
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    header = {"name": name, "categories": json.dumps(config.categories), "training": json.dumps(asdict(config))}
    write_tensors(path, state, header)
