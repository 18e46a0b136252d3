"""Configuration of an alignment, grouped by the object that consumes it. Presets: ``config/presets/align_*.yaml``.

Image lengths are in *units*: a unit is the object size (longer side of its box) divided by 0.6, so that for an object
filling 60 % of the image a unit is the longer image side L, in which the published constants are written.
"""

from dataclasses import dataclass, field

from semalign3d_core.runtime.errors import InputError

SIZE_OF_UNIT = 0.6


@dataclass(frozen=True)
class ObservationConfig:
    """What is taken from an image."""

    candidates: int = 320  # cells evenly spread over the mask, of which pixels are drawn by their best likelihood
    unmasked_candidates: int = 960  # the same without a mask: the picture is larger than the object
    pixels: int = 300  # sampled pixels of the dense term
    sd_scale: float = 0.5  # of the standard deviations of presence certainties: measured, narrower ones place shapes better ...
    sd_floor: float = 0.02  # ... but not below this, cosine
    margin_cells: int = 3  # cells around the mask's box in which likelihoods are computed
    field_nodes: int = 80  # along the longer side of the picture, at which the distance to the mask is computed
    cap: float = 0.3  # largest distance the background term charges, units


@dataclass(frozen=True)
class EnergyConfig:
    """The reported energy (Eq. 13): one function for every solver."""

    sigma: float = 0.05  # units
    dense: float = 1.0
    sparse: float = 0.1
    geometry: float = 0.02
    background: float = 0.3
    depth: float = 10.0
    geometry_rows: int = 256  # edge pairs and tetrahedra evaluated, evenly spread over the tables
    sparse_cells: int = 96  # best cells per keypoint that the sparse term looks at


@dataclass(frozen=True)
class BankConfig:
    """Viewpoints that are scored without gradients."""

    poses: str = "training"  # or "uniform": an even cover of all rotations
    size: int = 500
    jitter_degrees: float = 11.0  # about each axis, of the copies of training poses
    points: int = 128  # dense points used for scoring
    separation_degrees: float = 30.0  # between two starts
    extension: float = 0.45  # boxes tried besides the mask's own: extended by this share on each side
    extended: bool = True  # try the extended boxes


@dataclass(frozen=True)
class GaussNewtonConfig:
    """The fast solver. Every sigma in units."""

    starts: tuple = (16, 6, 3)  # after the bank, after the first and after the second halving
    halvings: tuple = (4, 8)  # steps before which starts are halved
    steps: int = 14
    sigma: tuple = (0.12, 0.035)  # geometric, first to last
    annealed: float = 0.87  # share of the steps in which sigma falls
    dense: float = 1.0
    keypoint_sigma: float = 0.1  # least sigma of the sparse term
    sparse: float = 0.1
    background: float = 0.05
    background_scale: float = 0.05
    keypoint_background: float = 0.8  # the same for keypoints, which lie at the ends of thin parts that hold few dense points ...
    keypoint_limit: float = 0.03  # ... as long as their mean cost is not larger: then the mask lacks a part of the object
    prior: float = 0.0005  # of sum a^2 / v
    focal_prior: float = 0.02  # of (log f - mean)^2 / (2 sd^2)
    modes: int = 20
    damping: float = 0.02
    largest_rotation: float = 0.5  # radians per step
    warm_steps: int = 6
    warm_sigma: float = 0.08
    warm_relaxation: float = 1.6  # by which warm steps are lengthened: reweighted least squares falls short, and there are few of them

    def __post_init__(self):
        if not 0 < self.warm_relaxation < 2:
            raise InputError(f"gauss_newton: warm_relaxation is {self.warm_relaxation}, expected more than 0 and less than 2")
        if self.keypoint_limit <= 0:
            raise InputError(f"gauss_newton: keypoint_limit is {self.keypoint_limit}, expected more than 0; keypoint_background may be 0")


@dataclass(frozen=True)
class ReferenceSchedules:
    """Schedules ((steps), (values)) of the published optimiser; linear in between."""

    sigma_dense: tuple = ((0, 300, 500), (1.0, 0.1, 0.03))
    sigma_sparse: tuple = ((0, 300, 500, 700), (1.0, 0.1, 0.1, 0.05))
    weight_sparse: tuple = ((0, 500, 700, 1000), (0.0, 0.0, 10.0, 1.0))
    weight_background: tuple = ((0, 300, 500, 700), (1.0, 10.0, 100.0, 10.0))


@dataclass(frozen=True)
class ReferenceConfig:
    """The published optimiser: AdamW on free keypoints and focal length, several focal lengths x random rotations."""

    learning_rate: float = 5e-3
    steps: int = 1000
    weight_decay: float = 0.0
    focals: tuple = (0.9, 1.3, 1.8, 2.4)
    rotations: int = 4
    weight_dense: float = 1.0
    weight_geometry: float = 0.5
    weight_depth: float = 10.0
    geometry_rows: int = 128  # edge pairs and tetrahedra drawn anew in every step
    object_units: bool = False  # lengths in units of the object's size instead of the longer image side, as published
    seed: int = 0
    schedules: ReferenceSchedules = field(default_factory=ReferenceSchedules)
    bottle: ReferenceSchedules = field(
        default_factory=lambda: ReferenceSchedules(
            sigma_sparse=((0, 300, 500, 700), (1.0, 0.3, 0.3, 0.05)),
            weight_sparse=((0, 500, 700, 1000), (0.0, 0.0, 1.0, 10.0)),
            weight_background=((0, 700, 900, 1000), (0.0, 0.0, 1.0, 20.0)),
        )
    )


@dataclass(frozen=True)
class SelectionConfig:
    """Which candidate wins, and when its result is believed."""

    depth_weight: float = 0.15  # of the depth-order correlation, where the category's calibration says nothing
    rival_degrees: float = 40.0  # a rival is a candidate further away than this
    normal_share: float = 0.97  # share of training poses that must agree before flat objects are forced to face the camera
    found_threshold: float = 0.5  # least confidence of an object that is called found
    retry_threshold: float = 0.5  # a warm start below this confidence is repeated from the bank
    mask_jump: float = 0.35  # largest change of the box's centre or size between frames, in object sizes


@dataclass(frozen=True)
class AlignConfig:
    """Everything an :class:`~semalign3d_core.alignment.aligner.Aligner` can be told."""

    solver: str = "gauss_newton"
    offsets: bool = True  # report keypoints where they are annotated rather than where features look like them (offsets.py)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    gauss_newton: GaussNewtonConfig = field(default_factory=GaussNewtonConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
