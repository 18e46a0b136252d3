"""Build the model of one or several categories from an annotated data set folder."""

from dataclasses import dataclass
from pathlib import Path

from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.runtime.errors import InputError, SemAlign3DError


@dataclass(frozen=True, kw_only=True)
class Options(ProviderOptions):
    """Options of ``semalign3d build``."""

    dataset: Path
    """Data set folder in SPair-71k's layout."""
    category: tuple[str, ...]
    """Categories to build."""
    output: Path
    """Folder of the models: <output>/<category>.safetensors and <category>.report.json."""
    depth: str = "precomputed"
    """Depth source, for example precomputed."""
    masks: str = "precomputed"
    """Mask source: precomputed, sam2:tiny (prompted by the annotated box and keypoints), or similarity:FILE with a model of this
    category that was built earlier with the same backbone."""
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


def configuration(options):
    """The :class:`BuildConfig` that the options stand for."""
    from dataclasses import replace

    from semalign3d_core.category.config import BuildConfig
    from semalign3d_core.runtime.config import load_preset

    config = load_preset(BuildConfig, "build", options.preset)
    if options.on_bad_image:
        config = replace(config, policy=replace(config.policy, on_bad_image=options.on_bad_image))
    return config if options.seed < 0 else replace(config, seed=options.seed)


def training_records(dataset, category, split, limit):
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


def _build(options, category):
    from tqdm.contrib.logging import logging_redirect_tqdm

    from semalign3d_core.calibration.build import build_category
    from semalign3d_core.category.annotations.views import Providers
    from semalign3d_core.category.storage import load_model, save_model
    from semalign3d_core.datasets import open_dataset
    from semalign3d_core.perception import backbones, depth, masks
    from semalign3d_core.perception.backbones.precision import choose_device
    from semalign3d_core.perception.providers import on_device
    from semalign3d_core.runtime import config
    from semalign3d_core.runtime.files import write_json

    settings = configuration(options)
    dataset = open_dataset(options.dataset)
    records = training_records(dataset, category, options.split, options.max_images)
    device = choose_device(options.device)
    backbone = backbones.create(on_device(options.backbone, backbones.BACKBONES, device), options.dataset)
    segmenter = masks.create(on_device(options.masks, masks.MASKS, device), options.dataset, backbone=backbone, load_model=load_model)
    providers = Providers(backbone, depth.create(on_device(options.depth, depth.DEPTHS, device), options.dataset), segmenter)
    for name, option in (("depth", "--depth"), ("segmenter", "--masks")):
        if getattr(providers, name) is None:
            raise InputError(f"building needs {name} of every training image: give another source with {option}")
    work = options.output / ".build" / category
    with logging_redirect_tqdm(), _Progress(category) as progress:
        model, report = build_category(category, dataset.keypoint_spec(category), records, providers, settings, work, progress)
    model.built_from["dataset"] = str(options.dataset)
    path = options.output / f"{category}.safetensors"
    report["model_hash"] = save_model(model, path)
    report["config"] = config.to_dict(settings)
    write_json(options.output / f"{category}.report.json", report)
    _remove(work)
    print(summary(category, path, model, report))


def summary(category, path, model, report):
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


def _remove(work):
    import shutil

    shutil.rmtree(work, ignore_errors=True)
    if work.parent.is_dir() and not any(work.parent.iterdir()):
        work.parent.rmdir()


class _Progress:
    """A progress bar on standard error, one step after the other."""

    def __init__(self, category):
        self.category = category

    def __enter__(self):
        import sys

        from tqdm import tqdm

        self.bar, self.step = tqdm(total=1, desc=self.category, file=sys.stderr, leave=False), None
        return self

    def __call__(self, step, done, total):
        if step != self.step:  # its rate is that of this step alone
            self.bar.reset(total)
            self.step = step
        self.bar.set_description(f"{self.category}: {step}", refresh=False)
        self.bar.total, self.bar.n = total, done
        self.bar.refresh()

    def __exit__(self, *_):
        self.bar.close()
