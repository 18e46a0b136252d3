"""Build the model of one or several categories from an annotated data set folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.runtime.errors import InputError, SemAlign3DError

if TYPE_CHECKING:  # the command line starts without what only a build needs
    from semalign3d_core.category.config import BuildConfig
    from semalign3d_core.category.model import CategoryModel
    from semalign3d_core.category.progress import Progress
    from semalign3d_core.datasets.records import Dataset, ImageRecord


@dataclass(frozen=True, kw_only=True)
class Options(ProviderOptions):
    """Options of ``semalign3d build``."""

    dataset: Path
    """Data set folder in SPair-71k's layout."""
    category: tuple[str, ...]
    """Categories to build."""
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


def run(options: Options) -> int:
    """Builds all categories; with several, one that fails does not stop the others."""
    import logging

    logging.basicConfig(format="%(levelname)s: %(message)s")
    if not options.category:
        raise InputError("no category is given: --category NAME")
    failed = []
    for category in options.category:
        try:
            _build(options, category)
        except SemAlign3DError as error:
            if len(options.category) == 1:
                raise
            print(f"{category}: not built: {error}")
            failed.append(category)
    if failed:
        raise InputError(f"{len(failed)} of {len(options.category)} categories could not be built: {', '.join(failed)}; reasons above")
    return 0


def configuration(options: Options) -> BuildConfig:
    """The :class:`BuildConfig` that the options stand for."""
    from dataclasses import replace

    from semalign3d_core.category.config import BuildConfig
    from semalign3d_core.runtime.config import load_preset

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


def _build(options: Options, category: str) -> None:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from semalign3d_core.calibration.build import build_category
    from semalign3d_core.category.annotations.views import Providers
    from semalign3d_core.category.report import DEPTH_HELPS
    from semalign3d_core.category.storage import load_model, save_model
    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.perception import backbones, depth, masks
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.perception.masks.at_hand import masks_at_hand
    from semalign3d_core.perception.providers import on_device
    from semalign3d_core.runtime import config
    from semalign3d_core.runtime.files import write_json
    from semalign3d_core.visualization.inspect_report import images_to_look_at

    settings = configuration(options)
    dataset = open_dataset(options.dataset)
    records = training_records(dataset, category, options.split, options.max_images)
    device, spoken = choose_device(options.device), []
    backbone = backbones.create(on_device(options.backbone, backbones.BACKBONES, device), options.dataset)
    stored = any((options.dataset / "Depth" / category).glob("*.npz"))
    depth_spec = ("precomputed" if stored else "none") if options.depth == "auto" else options.depth
    depth_source = depth.create(on_device(depth_spec, depth.DEPTHS, device), options.dataset)
    if depth_source is None:
        spoken.append(f"no depth maps: the shape comes from the views alone; {DEPTH_HELPS}")
    if options.masks == "auto":
        mask_source = masks_at_hand(options.dataset, category)
    else:
        mask_spec = on_device(options.masks, masks.MASKS, device)
        mask_source = masks.create(mask_spec, options.dataset, backbone=backbone, load_model=load_model)
    if mask_source is None:
        raise InputError("building needs a mask of every training image: give another source with --masks")
    providers = Providers(backbone, depth_source, mask_source)
    work = options.output / ".build" / category
    with logging_redirect_tqdm(), _progress_bar(category) as progress:
        model, report = build_category(category, dataset.keypoint_spec(category), records, providers, settings, work, progress)
    model.built_from["dataset"] = str(options.dataset)
    model.built_from["backbone_spec"] = "compact" if options.backbone == "auto" else options.backbone
    if options.masks == "auto":
        spoken.append("masks at hand: " + ", ".join(f"{name} ({count} looks)" for name, count in mask_source.used.most_common()))
    path = options.output / f"{category}.safetensors"
    report["model_hash"] = save_model(model, path)
    report["config"] = config.to_dict(settings)
    write_json(options.output / f"{category}.report.json", report)
    _remove(work)
    print("\n".join([summary(category, path, model, report), *(f"  {text}" for text in spoken)]))
    for line in images_to_look_at(model, report):
        print(line)


def summary(category: str, path: Path, model: CategoryModel, report: dict[str, Any]) -> str:
    """Two lines about a finished build, and its warnings."""
    errors = sorted(image["reprojection_error_relative"] for image in report["images"])
    lines = [
        f"{category}: {path}  ({len(report['images'])} images, {int(model.present.sum())} keypoints, {len(model.weights)} dense points)",
        f"  start {report['start']}, view diversity {report.get('diversity', float('nan')):.2f}, "
        f"median reprojection error {100 * errors[len(errors) // 2]:.2f} % of the object",
    ]
    if report["skipped_images"]:
        lines.append(f"  {len(report['skipped_images'])} images left out; reasons in {path.stem}.report.json")
    if report["dropped_keypoints"]:
        lines.append(f"  keypoints dropped in {len(report['dropped_keypoints'])} images; reasons in {path.stem}.report.json")
    return "\n".join(lines + [f"  warning: {text}" for text in report["warnings"][:5]])


def _remove(work: Path) -> None:
    import shutil

    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()


@contextmanager
def _progress_bar(category: str) -> Iterator[Progress]:
    """A bar on standard error, for one step after the other."""
    import sys

    from tqdm import tqdm

    with tqdm(total=1, desc=category, file=sys.stderr, leave=False) as bar:
        shown = ""

        def show(step: str, done: int, total: int) -> None:
            nonlocal shown
            if step != shown:  # its rate is that of this step alone
                bar.reset(total)
                shown = step
            bar.set_description(f"{category}: {step}", refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        yield show
