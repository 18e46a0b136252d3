"""Train a sphere mapper on a data set with masks and viewpoints; keypoints are not needed."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semalign3d_core.learned.spherical_maps.samples import SampleConfig, SampleSet
from semalign3d_core.learned.spherical_maps.train import SphericalTraining
from semalign3d_core.runtime.outputs import claim
from semalign3d_core.runtime.tensors import has_entries


@dataclass
class Options:
    """Options of ``semalign3d train spherical_maps``."""

    dataset: Path
    """Data set folder; its images have azimuth_id (0 to 7) or azimuth_deg in their annotation."""
    split: str = "trn"
    """Split to train on; a folder without lists of pairs is used as a whole."""
    validation: str = ""
    """Split to validate on, for example val. Default: none."""
    categories: tuple[str, ...] = ()
    """Categories. Default: all."""
    backbone: str = "compact"
    """family[:argument] of the features, for example precomputed:NAME, efficientnet_lite:2 or dinov2:base,side=448."""
    masks: str = "precomputed"
    """Mask source: precomputed (those of the data set), compact, instances ..."""
    output: Path = Path("mapper.safetensors")
    """File to write; used with --backbone spherical_maps:FILE. Not .safetensors: as the official code writes it."""
    work: Path = Path("runs/spherical_maps")
    """Folder of extracted features, checkpoints and training.html; an interrupted run goes on from there."""
    device: str = "cpu"
    """Device that extracts features and trains, for example cuda."""
    samples: SampleConfig = field(default_factory=SampleConfig)
    """What the samples are made of."""
    config: SphericalTraining = field(default_factory=SphericalTraining)
    """Settings of the training."""


def run(options: Options) -> int:
    """Extracts what is missing, trains, and writes the mapper."""
    from semalign3d_core.category.storage import load_model
    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.learned.loop import Training, train
    from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps
    from semalign3d_core.learned.spherical_maps.train import Trainer
    from semalign3d_core.perception import backbones, masks
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.perception.providers import on_device
    from semalign3d_core.runtime.errors import InputError

    if options.output.suffix == ".safetensors":
        claim(options.output, has_entries("spherical_maps"))
    dataset = open_dataset(options.dataset)
    categories = tuple(options.categories or dataset.categories())
    backbone = backbones.create(on_device(options.backbone, backbones.BACKBONES, options.device), options.dataset)
    mask_source = on_device(options.masks, masks.MASKS, options.device)
    segmenter = masks.create(mask_source, options.dataset, backbone=backbone, load_model=load_model)
    if segmenter is None:
        raise InputError("--masks none: the training needs to know where the objects are; choose another mask source")
    providers = backbone, segmenter
    samples = _samples(dataset, options.split, categories, providers, options)
    others = _samples(dataset, options.validation, categories, providers, options) if options.validation else None
    trainer = Trainer(samples, len(categories), options.config, choose_device(options.device))
    settings = {"backbone": backbone.name, "categories": categories, "samples": dataclasses.asdict(options.samples)}
    free = ("checkpoint_every",) if options.config.schedule == "cosine" else ("checkpoint_every", "steps")  # may change on the way
    kept = {k: v for k, v in dataclasses.asdict(options.config).items() if k not in free}
    training = Training(
        {"spherical_maps": trainer.model},
        trainer.optimiser,
        trainer.step,
        None if others is None else lambda: trainer.validate(others),
        lambda: _pictures(trainer, samples, others),
        {**settings, "config": kept},
    )
    every = options.config.checkpoint_every
    train(training, options.work, options.config.steps, every, every if others else 0, "spherical_maps")
    save_spherical_maps(trainer.model, options.output, MapperFacts(backbone.name, options.samples.raw, categories))
    print(f"wrote {options.output} after {options.config.steps} steps on {len(samples)} samples of {len(categories)} categories")
    return 0


def _samples(dataset: Any, split: str | None, categories: tuple[str, ...], providers: tuple[Any, Any], options: Options) -> SampleSet:
    from semalign3d_core.learned.spherical_maps.samples import gather_samples

    split = split if dataset.splits() else None
    records = [record for category in categories for record in dataset.images(category, split)]
    backbone, segmenter = providers
    return gather_samples(records, categories, backbone, segmenter, options.work / "samples", options.samples)


def _pictures(trainer: Any, samples: SampleSet, others: SampleSet | None) -> dict[str, Any]:
    """A few samples with their sphere colours, for the page of the training."""
    from semalign3d_core.visualization.sphere import sample_pictures

    shown = {"training": samples} if others is None else {"training": samples, "validation": others}
    return sample_pictures(trainer.model.sphere_mapper, shown)
