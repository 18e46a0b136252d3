"""Options of the category build, grouped by the step that consumes them; what nobody needs to change is a constant beside its use."""

from dataclasses import dataclass, field

from semalign3d_core.runtime.errors import InputError


@dataclass(frozen=True)
class DataPolicy:
    """What happens to bad data.

    on_bad_image: ``skip`` (warn, count in the report) or ``error``, for unreadable files, broken depth, empty masks,
    missing features, keypoints outside the image and two keypoints at one place;
    minimum_keypoints: an image with fewer usable ones is left out;
    images_per_keypoint: a keypoint (with its mirror partner) annotated in fewer images is marked absent
    """

    on_bad_image: str = "skip"
    minimum_keypoints: int = 4
    images_per_keypoint: int = 3

    def __post_init__(self) -> None:
        """Refuses an unknown policy."""
        if self.on_bad_image not in ("skip", "error"):
            raise InputError(f"on_bad_image must be skip or error, found {self.on_bad_image!r}")


@dataclass(frozen=True)
class ViewOptions:
    """What is kept of an image.

    pixels: sampled per image for the dense cloud; margin: pixels inside the mask at which keypoint depths are read (0: the published
    correction); edge: range of the inverse depth over 3 x 3 pixels, in units of the object's own range, above which a pixel lies on a
    depth edge and is not sampled
    """

    pixels: int = 600
    margin: int = 3
    edge: float = 0.25


@dataclass(frozen=True)
class EmOptions:
    """The factor model: rounds of E and M steps, and further ones that use the masks (hidden_rounds)."""

    rounds: int = 30
    hidden_rounds: int = 15


@dataclass(frozen=True)
class DenseOptions:
    """The dense cloud: points kept, and the smallest standard deviation of a cosine (sd_floor)."""

    points: int = 300
    sd_floor: float = 0.05


@dataclass(frozen=True)
class ReferenceOptions:
    """Numbers of the published steps.

    focal_steps: AdamW steps on inverse focal lengths; kept_points: pixels per image in the merged cloud; clusters: of k-means;
    neighbours: nearest pixels that give a point its feature; density: smallest share of the merged cloud in a cluster
    """

    focal_steps: int = 1000
    kept_points: int = 1000
    clusters: int = 1000
    neighbours: int = 1000
    density: float = 0.0005


@dataclass(frozen=True)
class BuildConfig:
    """Everything that decides what a build gives.

    method: ``em`` (start, then EM of the factor model) or ``reference`` (the published steps);
    start: ``auto`` (by the diversity of the views), ``multiview`` or ``disparity``;
    modes: deformation modes kept; seed: of everything random; calibrate: fit the confidence to the training images
    """

    method: str = "em"
    start: str = "auto"
    modes: int = 20
    seed: int = 0
    calibrate: bool = True
    policy: DataPolicy = field(default_factory=DataPolicy)
    views: ViewOptions = field(default_factory=ViewOptions)
    em: EmOptions = field(default_factory=EmOptions)
    dense: DenseOptions = field(default_factory=DenseOptions)
    reference: ReferenceOptions = field(default_factory=ReferenceOptions)

    def __post_init__(self) -> None:
        """Refuses an unknown method or start."""
        for name, legal in (("method", ("em", "reference")), ("start", ("auto", "multiview", "disparity"))):
            if getattr(self, name) not in legal:
                raise InputError(f"{name} must be one of {', '.join(legal)}, found {getattr(self, name)!r}")
