"""Training of the post-processor on the pairs of a data set, as published: sparse and dense losses of a pair and of its pose variants.

Source: GeoAware-SC (CVPR 2024), sections 3.3 and 4.1. What the published runs on AP-10K (pre-training), SPair-71k and PF-PASCAL
(fine-tuning) do differently is in :data:`RECIPES`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from semalign3d_core.datasets import DATASETS, open_dataset
from semalign3d_core.learned.geoaware.losses import LossConfig, TrainingImage, pair_loss
from semalign3d_core.learned.geoaware.network import AggregationNetwork, load_network
from semalign3d_core.learned.geoaware.samples import FeatureSource, PairSamples, Sample
from semalign3d_core.learned.geoaware.schedule import one_cycle
from semalign3d_core.learned.loop import Training, load_module, train
from semalign3d_core.perception.backbones.fused import to_tokens, unit_norm
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.runtime.errors import InputError


@dataclass(frozen=True)
class GeoAwareTraining:
    """Settings of one training; what is None is what the published run on that kind of data set has."""

    epochs: int | None = None
    """Passes over the training pairs: 1 on AP-10K, 100 on PF-PASCAL, else 2."""
    steps: int | None = None
    """Optimisation steps instead of epochs."""
    schedule: Literal["constant", "one_cycle"] | None = None
    """Of the learning rate: constant on AP-10K and PF-PASCAL, else one_cycle."""
    learning_rate: float = 1.25e-3
    """The largest."""
    weight_decay: float = 1e-3
    """Of AdamW, for all weights."""
    accumulate: int = 1
    """Pairs per optimisation step (and process)."""
    width: int = 768
    """Channels of the trained features, a multiple of 128."""
    dropout: float = 0.2
    """Probability of dropping single values of the input."""
    losses: LossConfig = field(default_factory=LossConfig)
    """The losses of a pair."""
    pose_variants: bool | None = None
    """Whether mirror images take part: not on PF-PASCAL, nor where nobody knows which keypoints they exchange."""
    moving_grid: bool = False
    """Also train the coordinates that soft arg-max is the mean of, as the published code does unawares; they are not kept."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the network's products; losses and weights stay in single precision."""
    validate_every: int = 5000
    """Steps between validations."""
    validation_pairs: int | None = None
    """Pairs per category of a validation, drawn with replacement as published: 20 on AP-10K, else 0, which is all."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    seed: int = 42


RECIPES: dict[str, dict[str, Any]] = {
    "ap10k": {"epochs": 1, "schedule": "constant", "pose_variants": True, "validation_pairs": 20},
    "pf_pascal": {"epochs": 100, "schedule": "constant", "pose_variants": False, "validation_pairs": 0},
}
OTHERS: dict[str, Any] = {"epochs": 2, "schedule": "one_cycle", "pose_variants": True, "validation_pairs": 0}


def resolved(config: GeoAwareTraining, dataset: Any) -> GeoAwareTraining:
    """The settings with everything filled in that was left open, by the kind of data set."""
    kind = next(kind for kind, dataset_class in DATASETS.items() if type(dataset) is dataset_class)
    recipe = dict(RECIPES.get(kind, OTHERS))
    if not dataset.has_mirror_table:
        recipe["pose_variants"] = False
        if config.pose_variants:
            raise InputError(f"{dataset.root} does not say which keypoints mirror images exchange: use --config.pose-variants False")
    config = replace(config, **{name: value for name, value in recipe.items() if getattr(config, name) is None})
    if config.width % 128 or config.width < 1 or config.accumulate < 1 or not 0 <= config.dropout < 1:
        raise InputError(f"width {config.width} must be a multiple of 128, accumulate at least 1, dropout in 0..1; found {config}")
    return config


class PairModule(nn.Module):
    """The network and what else is trained, from a sample to its losses: one module, so that several processes can share its gradients."""

    def __init__(self, network: AggregationNetwork, config: GeoAwareTraining, cells: int):
        super().__init__()
        self.network, self.config = network, config
        self.grid = nn.Parameter(torch.linspace(-1, 1, cells).repeat(2, 1)) if config.moving_grid else None

    def tokens(self, features: Tensor) -> Tensor:
        """Unit-norm tokens (B, cells * cells, width) of raw features (B, C, cells, cells)."""
        half = self.config.precision == "bfloat16"
        with torch.autocast(features.device.type, torch.bfloat16, half):
            maps = self.network(features)
        return unit_norm(to_tokens(maps.float()))

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """The losses of a :class:`Sample`, see :func:`pair_loss`; its noise comes from the global generator of the CPU."""
        device = self.network.mixing_weights.device
        tokens = self.tokens(sample.features.to(device).float())
        ends = list(zip(sample.keypoints.to(device), sample.thresholds, strict=True))
        images = tuple(TrainingImage(t, *end) for t, end in zip(tokens, ends * (len(tokens) // 2), strict=True))
        permutation = sample.permutation.to(device)
        losses = replace(self.config.losses, variants=bool(self.config.pose_variants) and self.config.losses.variants)
        found = pair_loss(images, permutation, losses, self.network.logit_scale, lambda n: torch.randn(n, 2), self.grid)
        return found or {"loss": 0 * tokens.sum()}


class Step:
    """Optimisation step number n: its pairs, dropout and noise depend on the seed and n alone."""

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        samples: PairSamples,
        config: GeoAwareTraining,
        steps: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.module, self.optimiser, self.samples, self.config, self.steps = module, optimiser, samples, config, steps
        self.rank, self.world = rank, world

    def __call__(self, number: int) -> dict[str, Tensor]:
        """Performs the step; returns the mean of each loss."""
        self.set_rate(number)
        torch.manual_seed(self.config.seed * 1_000_003 + number * self.world + self.rank)
        self.module.train()
        total: dict[str, list[Tensor]] = {}
        for part in range(self.config.accumulate):
            index = (number * self.config.accumulate + part) * self.world + self.rank
            losses = self.module(self.samples.at(index, index + self.world))
            (losses["loss"] / self.config.accumulate).backward()
            for name, value in losses.items():
                total.setdefault(name, []).append(value.detach())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {name: torch.stack(values).mean() for name, values in total.items()}

    def set_rate(self, number: int) -> None:
        """Learning rate and beta1 of step ``number``."""
        if self.config.schedule == "one_cycle":
            rate, beta = one_cycle(number, self.steps, self.config.learning_rate)
            for group in self.optimiser.param_groups:
                group["lr"], group["betas"] = rate, (beta, group["betas"][1])


# (data set, features, categories, settings) -> function(PairModule) -> {name: score}, or None where the data set has nothing to validate on
ValidationMaker = Callable[[Any, FeatureSource, tuple[str, ...], GeoAwareTraining], Callable[[PairModule], dict[str, float]] | None]


def train_geoaware(
    root: Path,
    config: GeoAwareTraining,
    work: Path,
    backbone: str,
    segmenter: str = "none",
    categories: tuple[str, ...] = (),
    initial: Path | None = None,
    cache: Path | None = None,
    validation: ValidationMaker | None = None,
    kind: str | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> AggregationNetwork:
    """Trains on the split ``trn`` of the data set in ``root`` and returns the network of the best validation, on the CPU.

    work: folder of the run, see :mod:`semalign3d_core.learned.loop`; an interrupted one goes on from there
    backbone, segmenter, cache: see :class:`FeatureSource`; the cache is in ``work`` unless given
    initial: checkpoint of an earlier training, whose weights this one starts with
    validation: makes what chooses the network, of the data set, the features, the categories and the settings; where that is None, or
        there is no such function, the last network is taken
    Started by ``torchrun`` it trains in all its processes, each of which takes its own pairs.
    """
    dataset = open_dataset(root, kind)
    config = resolved(config, dataset)
    rank, world, own = _processes(device)
    source = FeatureSource(backbone, segmenter, root, cache or work / "cache", str(own))
    samples = PairSamples(dataset, source, "trn", categories, bool(config.pose_variants) and config.losses.variants, config.seed)
    steps = config.steps or max(1, (config.epochs or 1) * len(samples) // (config.accumulate * world))
    torch.manual_seed(config.seed)
    network = AggregationNetwork(source.dims, config.width, dropout=config.dropout).to(own)
    if initial is not None:
        start_from(network, initial)
    module = PairModule(network, config, samples.at(0).features.shape[-1]).to(own)
    optimiser = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    shared = nn.parallel.DistributedDataParallel(module, find_unused_parameters=True) if world > 1 else module
    validate = None if validation is None else validation(dataset, source, categories, config)
    training = Training(
        {"pair": module},
        optimiser,
        Step(shared, optimiser, samples, config, steps, rank, world),
        None if validate is None else lambda: validate(module),
        settings=settings(config, dataset, source, categories, initial, steps),
    )
    train(training, work, steps, config.checkpoint_every, config.validate_every, f"GeoAware on {source.spec}", quiet)
    if validate is not None and rank == 0:
        load_module(work / "best.safetensors", "pair", module)
    return network.eval().to("cpu")


def settings(
    config: GeoAwareTraining, dataset: Any, source: FeatureSource, categories: Sequence[str], initial: Path | None, steps: int
) -> dict[str, Any]:
    """What a run depends on, as JSON: its checkpoint only continues the same."""
    known = {name: value for name, value in asdict(config).items() if name not in ("epochs", "checkpoint_every")}
    data = {"dataset": str(dataset.root), "backbone": source.backbone.name, "categories": list(categories)}
    return {**data, **known, "steps": steps, "initial": "" if initial is None else str(initial)}


def start_from(network: AggregationNetwork, path: Path) -> None:
    """Gives ``network`` the weights of a checkpoint of the same shape."""
    stored = load_network(path)
    if (stored.feature_dims, stored.width) != (network.feature_dims, network.width):
        raise InputError(
            f"{path} reads features of {stored.feature_dims} channels and gives {stored.width}; this training reads {network.feature_dims} "
            f"and gives {network.width} (--config.width): choose features and width of the checkpoint, or another one"
        )
    network.load_state_dict(stored.state_dict())


def _processes(device: str) -> tuple[int, int, torch.device]:
    """(number of this process, number of processes, device) as ``torchrun`` started them; one process otherwise."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1, choose_device(device)
    own = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if str(device).startswith("cuda") else device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), own
