"""The model of a category: one file, no code in it."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.category.surface.surface_map import SurfaceMap


@dataclass(frozen=True, repr=False)
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
    calibration:      {name: float}: confidence map, check weights, thresholds; see alignment/judgement.py
    built_from:       provenance (data set, image names, preset, versions, report), JSON-serialisable
    offsets, plane:   (P,), (2, K): Y = W X + o n(X) where the keypoints are coplanar, see :class:`SurfaceMap`; elsewhere 0 (None: 0)
    """

    category: str
    keypoint_names: tuple[str, ...]
    flip_permutation: tuple[int, ...]
    backbone: str
    present: Tensor
    shape: Tensor
    keypoint_features: Tensor
    keypoint_mu: Tensor
    keypoint_sd: Tensor
    dense_features: Tensor
    dense_mu: Tensor
    dense_sd: Tensor
    weights: Tensor
    betas: BetaTable
    modes: Tensor
    mode_variances: Tensor
    pose_rotations: Tensor
    focal: Tensor
    diameter_metres: Tensor
    calibration: dict[str, float] = field(default_factory=dict)
    built_from: dict[str, Any] = field(default_factory=dict)
    offsets: Tensor = None  # type: ignore[assignment]  # filled below
    plane: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Without offsets or plane there are none."""
        if self.offsets is None:
            object.__setattr__(self, "offsets", torch.zeros_like(self.weights[:, 0]))
        if self.plane is None:
            object.__setattr__(self, "plane", torch.zeros_like(self.shape.T[:2]))

    def __repr__(self) -> str:
        keypoints = f"{int(self.present.sum())} keypoints, {len(self.weights)} dense points"
        return f"CategoryModel({self.category}, {keypoints}, features {self.backbone})"

    def backbone_spec(self, asked: str = "auto") -> str:
        """How to spell the backbone that the model needs: as ``asked``, or for ``auto`` as the build was told; else the embedded one."""
        return str(self.built_from.get("backbone_spec", "compact")) if asked == "auto" else asked

    @property
    def surface(self) -> SurfaceMap:
        """The :class:`SurfaceMap` of the dense points: ``surface @ X`` are the points of keypoints X."""
        return SurfaceMap(self.weights, self.offsets, self.plane)

    @property
    def dense_points(self) -> Tensor:
        """(P, 3) ``Y(X0)`` in the object frame."""
        return self.surface @ self.shape

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "CategoryModel":
        """The same model with all floating tensors on ``device`` and of ``dtype``."""
        return type(self)(**{f.name: _moved(getattr(self, f.name), device, dtype) for f in fields(self)})


def _moved(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, BetaTable):
        return BetaTable(**{f.name: _moved(getattr(value, f.name), device, dtype) for f in fields(value)})
    return value
