"""Options of the category build, grouped by the step that consumes them."""

from dataclasses import dataclass, field

from semalign3d_core.category.annotations.views import ViewOptions
from semalign3d_core.category.published.shape import ReferenceOptions
from semalign3d_core.category.shape.disparity_start import DisparityOptions
from semalign3d_core.category.shape.factor_model import EmOptions
from semalign3d_core.category.shape.multiview import MultiviewOptions
from semalign3d_core.category.surface.dense_cloud import DenseOptions
from semalign3d_core.runtime.errors import InputError


@dataclass(frozen=True)
class DataPolicy:
    """What happens to bad data.

    on_bad_image: ``skip`` (warn, count in the report) or ``error``, for unreadable files, broken depth, empty masks,
    missing features, keypoints outside the image and two keypoints at one place;
    minimum_keypoints: an image with fewer usable ones is left out; minimum_images: the build refuses below;
    images_per_keypoint: a keypoint (with its mirror partner) annotated in fewer images is marked absent;
    trust_ratio: 2 x annotated keypoints / (6 N + 3 K / 2) below which the report warns;
    handedness: standard errors by which the shape must explain the images better than its reversal in depth, else the report warns
    """

    on_bad_image: str = "skip"
    minimum_keypoints: int = 4
    minimum_images: int = 5
    images_per_keypoint: int = 3
    trust_ratio: float = 1.6
    handedness: float = 2.5

    def __post_init__(self):
        if self.on_bad_image not in ("skip", "error"):
            raise InputError(f"on_bad_image must be skip or error, found {self.on_bad_image!r}")


@dataclass(frozen=True)
class BetaOptions:
    """Statistics stored in the model: noise copies of each completed shape and their rate (see noise_augmentation)."""

    copies: int = 5
    noise: float = 0.2


@dataclass(frozen=True)
class BuildConfig:
    """Everything that decides what a build gives.

    method: ``em`` (start, then EM of the factor model) or ``reference`` (the published steps);
    start: ``auto`` (by view diversity), ``multiview`` or ``disparity``; diversity: threshold of ``auto``;
    modes: deformation modes kept; seed: of everything random; calibrate: fit the confidence on the training images;
    folds: parts of the training images that are left out in turn for that (0: each image is judged by a model that knows it)
    """

    method: str = "em"
    start: str = "auto"
    diversity: float = 0.2
    modes: int = 20
    seed: int = 0
    calibrate: bool = True
    folds: int = 4
    policy: DataPolicy = field(default_factory=DataPolicy)
    views: ViewOptions = field(default_factory=ViewOptions)
    multiview: MultiviewOptions = field(default_factory=MultiviewOptions)
    disparity: DisparityOptions = field(default_factory=DisparityOptions)
    em: EmOptions = field(default_factory=EmOptions)
    betas: BetaOptions = field(default_factory=BetaOptions)
    dense: DenseOptions = field(default_factory=DenseOptions)
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)

    def __post_init__(self):
        for name, legal in (("method", ("em", "reference")), ("start", ("auto", "multiview", "disparity"))):
            if getattr(self, name) not in legal:
                raise InputError(f"{name} must be one of {', '.join(legal)}, found {getattr(self, name)!r}")
