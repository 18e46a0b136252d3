"""Configuration of an alignment, grouped by the object that consumes it. Presets: ``config/presets/align_*.yaml``.

Image lengths are in units of the *object scale*: the object size (longer side of its box) divided by 0.6, so that for an object
filling 60 % of the image it is the longer image side L, in which the published constants are written.
"""

from dataclasses import dataclass, field

SIZE_OF_UNIT = 0.6
LEAST_SD = 0.02  # smallest standard deviation of a similarity (a cosine)

Polygon = tuple[tuple[float, ...], tuple[float, ...]]  # (steps), (values); linear in between, constant outside


@dataclass(frozen=True)
class ObservationConfig:
    """What is taken from an image."""

    pixels: int = 300  # sampled pixels of the dense term
    sd_scale: float = 0.5  # of the standard deviations in Eq. 4: measured, narrower ones place shapes better ...
    sd_floor: float = LEAST_SD  # ... but not below this


@dataclass(frozen=True)
class EnergyConfig:
    """Weights of the terms of Eq. 13; 0 leaves a term out of what is reported and of what a solver minimises."""

    dense: float = 1.0
    sparse: float = 0.1
    geometry: float = 0.02
    background: float = 0.3
    depth: float = 10.0


@dataclass(frozen=True)
class BankConfig:
    """Viewpoints that are scored without gradients."""

    poses: str = "training"  # or "uniform": an even cover of all rotations
    size: int = 500
    extended: bool = True  # also try boxes larger than the mask's own


@dataclass(frozen=True)
class GaussNewtonConfig:
    """The fast solver."""

    sigma: tuple[float, float] = (0.12, 0.035)  # first and last, in object scales
    modes: int = 20  # largest number of deformation modes


@dataclass(frozen=True)
class Schedules:
    """What the published optimiser changes from step to step (paper, Table 5)."""

    sigma_dense: Polygon = ((0, 300, 500), (1.0, 0.1, 0.03))
    sigma_sparse: Polygon = ((0, 300, 500, 700), (1.0, 0.1, 0.1, 0.05))
    weight_sparse: Polygon = ((0, 500, 700, 1000), (0.0, 0.0, 10.0, 1.0))
    weight_background: Polygon = ((0, 300, 500, 700), (1.0, 10.0, 100.0, 10.0))


@dataclass(frozen=True)
class ReferenceConfig:
    """The published optimiser: AdamW on free keypoints and focal length, several focal lengths x random rotations."""

    learning_rate: float = 5e-3
    steps: int = 1000
    focals: tuple[float, ...] = (0.9, 1.3, 1.8, 2.4)
    rotations: int = 4
    weight_geometry: float = 0.5
    weight_depth: float = 10.0
    schedules: Schedules = field(default_factory=Schedules)
    category_schedules: dict[str, Schedules] = field(default_factory=dict)  # {category: its own}


@dataclass(frozen=True)
class AlignConfig:
    """All settings of an :class:`~semalign3d_core.alignment.aligner.Aligner`."""

    solver: str = "gauss_newton"
    keypoint_bias: bool = True  # report keypoints where they are annotated rather than where features look like them (judgement.py)
    view_weight: float = 0.03  # of minus the logarithm of how usual a view is among the training images; 0: any turn is as likely
    found_threshold: float = 0.5  # least confidence of an object that is called found
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    gauss_newton: GaussNewtonConfig = field(default_factory=GaussNewtonConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
