"""Render a synthetic data set in SPair-71k's layout, with depth, masks and full ground truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from semalign3d_core.datasets.synthetic.simulated_features import FeatureFiles
from semalign3d_core.datasets.synthetic.writer import WriterConfig
from semalign3d_core.runtime.errors import InputError


@dataclass
class Options:
    """Options of ``semalign3d synth``."""

    output: Path
    """Folder of the data set. If it exists with the same options, only what is missing is rendered."""
    categories: tuple[str, ...] = ("bottle", "mug", "chair", "car", "aeroplane", "tvmonitor")
    """Categories to render."""
    train: int = 50
    """Training images per category."""
    val: int = 0
    """Validation images per category."""
    test: int = 20
    """Test images per category (of instances that training does not know)."""
    pairs: int = 60
    """Pairs per category and split."""
    seed: int = 0
    """Seed of the whole data set."""
    world: Literal["simple", "varied"] = "simple"
    """simple (what the benchmarks use) or varied (kinds of objects, views, materials and scenes as photographs show them)."""
    pictures: str = ""
    """Folder of photographs that the varied world shows behind and on things. Default: scikit-image's, if installed."""
    size: int = 256
    """Longer image side in pixels."""
    aspect: tuple[float, float] = (1.0, 1.0)
    """Range of height / width of the images."""
    workers: int = 2
    """Processes."""
    depth_kind: str = "disparity"
    """What Depth/ holds: disparity (monocular-like), depth (up to scale) or metric."""
    keypoint_noise: float = 0.0
    """Standard deviation of annotated positions, as a share of the longer side of the object's box."""
    disparity_noise: float = 0.03
    """Smooth error of the disparity, as a share of the object's own range."""
    disparity_bend: float = 0.0
    """Disparity is bent by a random power: standard deviation of its logarithm."""
    occluder_rate: float = 0.2
    """Share of images with an occluder."""
    truncation_rate: float = 0.12
    """Share of images with a truncated object."""
    small_rate: float = 0.08
    """Share of images with a small object (16 to 30 percent of the image)."""
    features: str = ""
    """Also write simulated backbone features to Features/<this name>/, for example sim. Default: none."""
    channels: int = 96
    """Channels of the simulated features."""
    folding: float = 0.85
    """How similar left and right are in the simulated features: 0 (different) to 1 (the same)."""
    feature_noise: float = 0.6
    """Noise of every feature cell, relative to the feature's norm."""


def run(options: Options) -> int:
    """Renders the data set, or what is missing of it."""
    import sys

    from tqdm import tqdm

    from semalign3d_core.datasets.synthetic.writer import write_data_set

    for name in ("train", "val", "test", "pairs"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name} must not be negative, found {getattr(options, name)}")
    counts = {"trn": options.train, "val": options.val, "test": options.test}
    sidecar = feature_files(options)
    total = sum(counts.values()) * len(options.categories)
    with tqdm(total=total, unit="image", desc="synth", file=sys.stderr, disable=None) as bar:

        def progress(done, _):
            bar.update(done - bar.n)

        rendered = write_data_set(
            options.output, options.categories, counts, options.pairs, writer_config(options), options.workers, progress, sidecar
        )
        bar.update(total - bar.n)
    kept = f", {total - rendered} were there already" if rendered < total else ""
    print(f"{options.output}: {total} images of {len(options.categories)} categories, {rendered} rendered now{kept}")
    return 0


def feature_files(options: Options) -> FeatureFiles | None:
    """Writer of the simulated features that the options ask for, or None."""
    from semalign3d_core.datasets.importing import safe_name
    from semalign3d_core.datasets.synthetic.simulated_features import FeatureFiles, SimulatedFeatureConfig

    if not options.features:
        return None
    if safe_name(options.features) != options.features:
        raise InputError(f"--features {options.features!r} is no name of a folder; use letters, digits and _")
    config = SimulatedFeatureConfig(channels=options.channels, folding=options.folding, noise=options.feature_noise)
    return FeatureFiles(options.features, config).claim(options.output)


def writer_config(options: Options) -> WriterConfig:
    """The :class:`WriterConfig` that the options stand for."""
    from semalign3d_core.datasets.synthetic.disparity import DisparityConfig
    from semalign3d_core.datasets.synthetic.rendering import RenderConfig
    from semalign3d_core.datasets.synthetic.scene import SceneConfig
    from semalign3d_core.datasets.synthetic.viewpoints import ViewConfig
    from semalign3d_core.datasets.synthetic.writer import WriterConfig

    if options.size < 16 or options.aspect[0] <= 0 or options.aspect[1] < options.aspect[0]:
        raise InputError(f"--size {options.size} --aspect {options.aspect}: images need 16 pixels and a positive range of aspects")
    render = RenderConfig(
        ViewConfig(small_rate=options.small_rate, truncation_rate=options.truncation_rate),
        SceneConfig(occluder_rate=options.occluder_rate),
        DisparityConfig(noise=options.disparity_noise, bend=options.disparity_bend),
        world=options.world,
        pictures=options.pictures,
    )
    return WriterConfig(options.size, tuple(options.aspect), options.seed, options.depth_kind, options.keypoint_noise, render)
