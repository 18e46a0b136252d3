"""The model of a category: one file, no code in it."""

from dataclasses import dataclass, field, fields
from functools import cached_property

import torch

from semalign3d_core.category.statistics.beta import log_normaliser
from semalign3d_core.category.surface.surface_map import SurfaceMap


@dataclass(frozen=True)
class BetaTable:
    """Beta distributions of the geometric features of a category (paper section 3.1, Eq. 10).

    edge1, edge2:  (E, 2) int64, keypoints (a, b) and (c, d) of every kept edge pair
    edge_beta:     (E, 4) alpha, beta of the length ratio on (0, 1), then alpha, beta of the cosine on (-1, 1)
    triangle:      (T, 3) int64, vertex: (T,) int64, keypoints of every kept triangle + fourth vertex
    tet_beta:      (T, 6) alpha, beta of the three signed cosines in the triangle's frame, on (-1, 1)
    """

    edge1: torch.Tensor
    edge2: torch.Tensor
    edge_beta: torch.Tensor
    triangle: torch.Tensor
    vertex: torch.Tensor
    tet_beta: torch.Tensor

    @classmethod
    def empty(cls):
        """A table without features."""
        pair, number = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        return cls(pair, pair, torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int64), number, torch.zeros(0, 6))

    @cached_property
    def log_normalisers(self):
        """(E, 2) and (T, 3): :func:`~semalign3d_core.category.statistics.beta.log_normaliser` of the Betas."""
        return tuple(log_normaliser(*table.unflatten(1, (-1, 2)).unbind(-1)) for table in (self.edge_beta, self.tet_beta))


@dataclass(frozen=True)
class CategoryModel:
    """What is known of a category (method, section 1). K keypoints, P dense points, C channels, M modes, N training poses.

    The object frame is right-handed, its origin the mean of the present keypoints of the mean shape; the mean shape
    has diameter 1 and, where a flip permutation exists, mirrors into itself across x = 0:
    ``shape[flip] = diag(-1, 1, 1) shape``.

    category:         name
    keypoint_names:   K names
    flip_permutation: K indices, label after mirroring (identity where a category has no left and right)
    backbone:         name of the backbone whose features are stored
    present:          (K,) bool, False for keypoints that were never annotated; their rows elsewhere are 0
    shape:            (K, 3) X0, the mean shape
    keypoint_features, keypoint_mu, keypoint_sd: (K, C) unit, (K,), (K,): mean feature and cosine statistics
    dense_features, dense_mu, dense_sd:          (P, C) unit, (P,), (P,)
    weights:          (P, K) W with Y = W X, rows sum to 1 over present keypoints
    betas:            :class:`BetaTable`
    modes:            (M, K, 3) deformation modes, unit norm over (K, 3); shape of an instance = shape + sum a_m modes_m
    mode_variances:   (M,) prior variance of a_m
    pose_rotations:   (N, 3, 3) object-to-camera rotations of the training images (mirrored copies included)
    focal:            (2,) typical focal length in units of L: exp of mean log, sd of log
    diameter_metres:  (2,) mean and sd of the instances' diameter in metres; NaN where no metric depth was given
    calibration:      {name: float}: confidence map, check weights, thresholds; see alignment/confidence.py
    built_from:       provenance (data set, image names, preset, versions, report), JSON-serialisable
    offsets, plane:   (P,), (2, K): Y = W X + o n(X) where the keypoints are coplanar, see :class:`SurfaceMap`; elsewhere 0 (None: 0)
    """

    category: str
    keypoint_names: tuple
    flip_permutation: tuple
    backbone: str
    present: torch.Tensor
    shape: torch.Tensor
    keypoint_features: torch.Tensor
    keypoint_mu: torch.Tensor
    keypoint_sd: torch.Tensor
    dense_features: torch.Tensor
    dense_mu: torch.Tensor
    dense_sd: torch.Tensor
    weights: torch.Tensor
    betas: BetaTable
    modes: torch.Tensor
    mode_variances: torch.Tensor
    pose_rotations: torch.Tensor
    focal: torch.Tensor
    diameter_metres: torch.Tensor
    calibration: dict = field(default_factory=dict)
    built_from: dict = field(default_factory=dict)
    offsets: torch.Tensor | None = None
    plane: torch.Tensor | None = None

    def __post_init__(self):
        if self.offsets is None:
            object.__setattr__(self, "offsets", torch.zeros_like(self.weights[:, 0]))
        if self.plane is None:
            object.__setattr__(self, "plane", torch.zeros_like(self.shape.T[:2]))

    @property
    def surface(self):
        """The :class:`SurfaceMap` of the dense points: ``surface @ X`` are the points of keypoints X."""
        return SurfaceMap(self.weights, self.offsets, self.plane)

    @property
    def dense_points(self):
        """(P, 3) ``Y(X0)`` in the object frame."""
        return self.surface @ self.shape

    def to(self, device=None, dtype=None):
        """The same model with all floating tensors on ``device`` and of ``dtype``."""
        return type(self)(**{f.name: _moved(getattr(self, f.name), device, dtype) for f in fields(self)})


def _moved(value, device, dtype):
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, BetaTable):
        return BetaTable(**{f.name: _moved(getattr(value, f.name), device, dtype) for f in fields(value)})
    return value
