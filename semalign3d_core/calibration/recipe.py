"""The build that a command asks for: which images, which providers, which settings, and the files that come of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from semalign3d_core.calibration.build import build_category
from semalign3d_core.category.annotations.views import Providers
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.progress import Progress, no_progress
from semalign3d_core.category.storage import load_model, save_model
from semalign3d_core.datasets import open_dataset
from semalign3d_core.datasets.records import Dataset, ImageRecord
from semalign3d_core.perception import backbones, depth, masks
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.cached_providers import CachedBackbone, CachedDepth, CachedMasks
from semalign3d_core.perception.masks import MaskSource
from semalign3d_core.perception.masks.at_hand import masks_at_hand
from semalign3d_core.perception.providers import ProviderOptions, on_device
from semalign3d_core.runtime.cache import Cache
from semalign3d_core.runtime.code_hash import code_of
from semalign3d_core.runtime.config import from_dict, load_preset, to_dict
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import write_json
from semalign3d_core.runtime.outputs import check_replaceable


@dataclass(frozen=True)
class Built:
    """What came of a build: the model's file, the model, the report, and where features, depth and masks came from."""

    path: Path
    model: CategoryModel
    report: dict[str, Any]
    providers: Providers


@dataclass(frozen=True, kw_only=True)
class BuildOptions(ProviderOptions):
    """Options of ``semalign3d build``."""

    dataset: Path
    """Data set folder in SPair-71k's layout."""
    category: tuple[str, ...] = ()
    """Categories to build. Default: all of the data set."""
    output: Path
    """Folder of the models: <output>/<category>.safetensors and <category>.report.json."""
    depth: str = "auto"
    """Depth source; auto: the maps in Depth/ of the data set folder, or none: the shape then comes from the views alone."""
    masks: str = "auto"
    """Mask source: precomputed, sam2:tiny (prompted by the annotated box and keypoints), or similarity:FILE with a model of this
    category that was built earlier with the same backbone; auto: for each image the best one at hand."""
    preset: str = "em"
    """em, reference, or path of a YAML file."""
    split: str = "trn"
    """Images of this split's pairs are used; without split files, or with 'all', every annotated image."""
    max_images: int = 0
    """Use at most this many images, spread evenly over the sorted names; 0: all."""
    on_bad_image: str = ""
    """skip or error; empty: as the preset says."""
    seed: int = -1
    """Seed of everything random; -1: as the preset says."""
    overwrite: bool = False
    """Replace a file <category>.safetensors that is no category model."""
    cache: Path | None = None
    """Folder of a cache of features, depth and masks, that of eval_spair for example, which then finds them there. Default: no cache."""


def configuration(options: BuildOptions) -> BuildConfig:
    """The :class:`BuildConfig` that the options stand for."""
    config = load_preset(BuildConfig, "build", options.preset)
    if options.on_bad_image:
        config = replace(config, policy=replace(config.policy, on_bad_image=options.on_bad_image))
    return config if options.seed < 0 else replace(config, seed=options.seed)


def training_records(dataset: Dataset, category: str, split: str, limit: int) -> list[ImageRecord]:
    """The records to build from: those of the split, or all where the data set has no splits (or ``all`` is asked for)."""
    splits = dataset.splits()
    if split != "all" and splits and split not in splits:
        raise InputError(f"{dataset.root} has no split {split!r}: choose one of {', '.join(splits)}, or all (test images included)")
    records = dataset.images(category, split if splits and split != "all" else None)
    if limit > 0 and len(records) > limit:
        records = [records[n * len(records) // limit] for n in range(limit)]
    if not records:
        raise InputError(f"{dataset.root}: no image of category {category!r} in split {split!r}; choose another split or category")
    return records


def build_one(options: BuildOptions, category: str, config: BuildConfig | None = None, progress: Progress = no_progress) -> Built:
    """Builds one category and writes its model and its report; an interrupted build goes on where it was.

    config: instead of the one that the options stand for. Raises as :func:`~semalign3d_core.calibration.build.build_category`.
    """
    settings = config or configuration(options)
    check_replaceable(options.output / f"{category}.safetensors", options.overwrite)
    dataset = open_dataset(options.dataset)
    records = training_records(dataset, category, options.split, options.max_images)
    providers = training_providers(options, category)
    work = options.output / ".build" / category
    model, report = build_category(category, dataset.keypoint_spec(category), records, providers, settings, work, progress)
    model.built_from["dataset"] = str(options.dataset)
    model.built_from["backbone_spec"] = "compact" if options.backbone == "auto" else options.backbone
    path = options.output / f"{category}.safetensors"
    report["model_hash"] = save_model(model, path)
    report["config"] = to_dict(settings)
    write_json(options.output / f"{category}.report.json", report)
    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()
    return Built(path, model, report, providers)


def build_model(dataset: str | Path, category: str, output: str | Path, **options: str | int) -> CategoryModel:
    """Builds the model of a category and writes it to ``output/<category>.safetensors``, with a report beside it.

    dataset: folder in SPair-71k's layout, as ``semalign3d import`` makes it from annotated images
    options: those of ``semalign3d build``, for example ``backbone="dinov2:base"``, ``split="all"``
    Returns the :class:`CategoryModel`. Raises :class:`InputError` for images or options that cannot be used.
    An interrupted build goes on where it stopped when it is started again.
    """
    chosen: dict[str, Any] = dict(options)
    legal = [field.name for field in fields(BuildOptions) if field.name not in ("dataset", "category", "output")]
    unknown = sorted(set(chosen) - set(legal))
    if unknown:
        raise InputError(f"build_model has no option {unknown[0]!r}: choose one of {', '.join(legal)}")
    return build_one(BuildOptions(dataset=Path(dataset), category=(category,), output=Path(output), **chosen), category).model


def config_of(model: CategoryModel) -> BuildConfig | None:
    """The configuration that a model says it was built with; None if it does not say."""
    known = model.built_from.get("config")
    return from_dict(BuildConfig, known, f"model of {model.category}") if known else None


def training_providers(options: BuildOptions, category: str) -> Providers:
    """Where features, depth and masks of the training images come from, through the cache if there is one."""
    device = choose_device(options.device)
    backbone = backbones.create(on_device(options.backbone, backbones.BACKBONES, device), options.dataset)
    stored = any((options.dataset / "Depth" / category).glob("[!.]*.npz"))
    depth_spec = ("precomputed" if stored else "none") if options.depth == "auto" else options.depth
    depth_source = depth.create(on_device(depth_spec, depth.DEPTHS, device), options.dataset)
    mask_source: MaskSource | None
    if options.masks == "auto":
        mask_source = masks_at_hand(options.dataset, category)
    else:
        mask_spec = on_device(options.masks, masks.MASKS, device)
        mask_source = masks.create(mask_spec, options.dataset, backbone=backbone, load_model=load_model)
    if mask_source is None:
        raise InputError("building needs a mask of every training image: give another source with --masks")
    if options.cache is not None:
        cache, code = Cache(options.cache), code_of(backbone)
        knows = {"features": backbone.name, "code": code_of(mask_source), "features code": code, "model": ""}
        knows["own features"] = mask_source.own_features
        backbone = CachedBackbone.wrap(backbone, options.backbone, cache, code=code)
        depth_source = CachedDepth.wrap(depth_source, depth_spec, cache, code=code_of(depth_source))
        mask_source = mask_source if options.masks == "auto" else CachedMasks.wrap(mask_source, mask_spec, cache, **knows)
    return Providers(backbone, depth_source, mask_source)
