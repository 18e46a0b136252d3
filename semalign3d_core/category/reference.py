"""The published construction of the shape (method, section 1.1 to 1.3), as a start and as a preset of its own."""

from dataclasses import dataclass, field

from semalign3d_core.category.sparse import SparseOptions


@dataclass(frozen=True)
class ReferenceOptions:
    """Published hyper-parameters (the quirks of the release are left out; see the functions).

    focal_steps, focal_rate, focal_decay: AdamW on inverse focal lengths; copies, noise: augmentation of the statistics;
    image_points, kept_points: pixels per image before and after the hull test; clusters, neighbours, density: of the dense
    cloud; sparse: how the likeliest constellation is found (the published grid search is not needed)
    """

    focal_steps: int = 1000
    focal_rate: float = 1e-3
    focal_decay: float = 0.01
    copies: int = 10
    noise: float = 0.2
    kept_points: int = 1000
    clusters: int = 1000
    neighbours: int = 1000
    density: float = 0.0005
    sparse: SparseOptions = field(default_factory=SparseOptions)


def reference_model(data, config, progress):
    raise NotImplementedError
