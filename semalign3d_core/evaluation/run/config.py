"""What an evaluation is asked to do; the options of ``eval_spair`` are exactly these fields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from semalign3d_core.perception.providers import ProviderOptions
from semalign3d_core.runtime.errors import InputError


@dataclass(frozen=True)
class EvaluationConfig(ProviderOptions):
    """Everything that decides the numbers of an evaluation, and where it runs."""

    dataset: Path
    """Data set folder."""
    output: Path = Path("out/evaluation")
    """Folder for results.json, predictions.jsonl, results.csv, pairs.csv, config.json and report.html."""
    kind: str | None = None
    """What the folder holds (folder, spair, spair_u, ap10k, pf_pascal, pf_willow, caltech101, awa_pose). Default: what it looks like."""
    split: str = "test"
    """trn, val or test, or whatever the data set calls its lists of pairs."""
    categories: tuple[str, ...] = ()
    """Categories. Default: all."""
    layout: str = "large"
    """Which list of pairs of SPair-71k: large or small."""
    limit: int | None = None
    """Number of pairs per category, the first ones. Default: all."""
    method: str = "nearest_neighbour"
    """semalign3d, semalign3d_keypoints (knows that the queries of a pair are different keypoints), nearest_neighbour,
    nearest_neighbour_keypoints (knows the same), window_soft_argmax, soft_argmax, kernel_soft_argmax, adaptive_pose, template_pose,
    spherical_maps, sfnet."""
    masks: str = field(default="none", kw_only=True)
    """Mask source, as in the other commands. The default is none, because published protocols compare whole images."""
    models: Path | None = None
    """Folder of category models, for methods that need them. Default: the shipped ones."""
    build: bool = False
    """First build the models that are missing in --models (default: <output>/models) from the split trn, as semalign3d build does."""
    templates: Path | None = None
    """Template pictures for the method template_pose: TEMPLATES/<category>/<set>/back.jpg, front.jpg, left.jpg, right.jpg. Default:
    the shipped ones."""
    network: str = ""
    """Trained network of the method sfnet: a file that semalign3d train wrote (or the authors' checkpoint: FILE.pth,resnet101:FILE)."""
    preset: str = ""
    """Preset of the method, or a YAML file. Default: the method's default."""
    window: float | None = None
    """Half width in cells of the window (sigma of the kernel) by which positions are read. Default: the method's own (7, or 5)."""
    rotations: bool = False
    """adaptive_pose: also try the source turned by one, two and three quarters."""
    transfer: str = ""
    """Preset of semalign3d's transfer of points, or a YAML file. Default: the one that belongs to its preset."""
    alpha: tuple[float, ...] = (0.01, 0.05, 0.1)
    """PCK thresholds, as shares of the reference length."""
    threshold: Literal["dataset", "bbox", "image"] = "dataset"
    """Reference length: the longer side of the target's object box or image, or what the data set is published with."""
    kap: Literal["none", "visible_only", "as_released", "spherical", "all"] = "none"
    """Variant of the keypoint average precision, or all. It judges the method's own likelihood maps, or the features where it has none."""
    name: str = ""
    """What tables and pages call the result. Default: the method, or the file of --predictions."""
    predictions: Path | None = None
    """Score this file (JSON lines, {"pair", "points"}) instead of running a method."""
    on_bad_input: Literal["error", "skip"] = "error"
    """error: stop at the first unusable image, pair or prediction; skip: count it as wrong, list it and go on."""
    engine: Literal["local", "ray"] = "local"
    """Where the work runs: processes of this machine, or a Ray cluster (extra "ray")."""
    workers: int = 1
    """Number of processes. Each uses one CPU thread, so results do not depend on the number."""
    retries: int = 2
    """How often the work on an image is tried again after a crash."""
    cache: Path | None = None
    """Folder of the cache. Default: <output>/cache. Runs may share one."""
    gallery: int = 6
    """Number of pairs in each gallery of the report; 0 for none."""
    ablation: bool = False
    """Also evaluate semalign3d without each term of its energy (paper, Table 4); table and plot go into the report."""
    other_backbone: str = ""
    """Also build models with this backbone, from the split trn, and evaluate them."""
    training_images: tuple[int, ...] = ()
    """Also build models from these numbers of images of the split trn, for example 10 15 25 50, and evaluate them."""
    training_ablation: bool = False
    """Also train the GeoAware post-processor on the split trn, part by part (GeoAware-SC, Table 5), and evaluate each."""
    training: Path | None = None
    """YAML file with settings for --training-ablation, as semalign3d train geoaware has them. Default: the published ones."""
    pretraining: Path | None = None
    """Folder of AP-10K, on which --training-ablation pre-trains its last row."""
    seed: int = 0
    """Seed of everything random in a method."""

    def __post_init__(self):
        if not self.alpha or not all(0 < a <= 10 for a in self.alpha):
            raise InputError(f"alpha must be positive numbers like 0.1, found {list(self.alpha)}")
        if self.workers < 1 or self.retries < 0 or self.gallery < 0:
            raise InputError("workers must be at least 1, retries and gallery at least 0")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit must be at least 1, found {self.limit}")
        if self.studies and (not self.method.startswith("semalign3d") or self.predictions is not None):
            raise InputError(
                "--ablation, --other-backbone and --training-images study semalign3d: they need --method semalign3d or semalign3d_keypoints"
            )
        if self.training_ablation and self.predictions is not None:
            raise InputError(f"--training-ablation needs features, and {self.predictions} holds only points; leave out --predictions")
        if self.kap != "none" and self.predictions is not None:
            raise InputError(f"--kap {self.kap} needs features, and {self.predictions} holds only points; leave out --kap or --predictions")

    @property
    def studies(self) -> bool:
        """Whether anything beyond the one evaluation is asked for."""
        return self.ablation or bool(self.other_backbone) or bool(self.training_images)

    @property
    def cache_folder(self) -> Path:
        """Where features, alignments and matches are kept."""
        return self.output / "cache" if self.cache is None else self.cache
