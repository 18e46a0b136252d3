"""The published construction (method, sections 1.1 to 1.3): shape of the preset ``reference``.

The published steps with the quirks of the release left out: a feature whose fit fails is skipped alone, keypoints that
cannot be placed are absent, pixels outside the image hull are dropped, flat tetrahedra are not used, everything is seeded.
The likeliest constellation comes from descent instead of grid search (a loss as low, in a fraction of the time).
"""

from dataclasses import replace

import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.config import BuildConfig
from semalign3d_core.category.progress import Progress
from semalign3d_core.category.published.focal import optimise_focal
from semalign3d_core.category.published.sparse import Descent, placeable, reconstruct
from semalign3d_core.category.shape.factor_model import FactorModel, rigid_model
from semalign3d_core.category.shape.mirror import to_mirror_plane, with_mirror_images
from semalign3d_core.category.statistics.beta_tables import noisy_beta_table
from semalign3d_core.category.statistics.fisher_modes import fisher_modes
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.geometry.rotations import similarity_alignment

COPIES = 10  # noisy ones of every instance in the statistics, as published
DESCENT = Descent(starts=8, coarse_steps=300, steps=700, features=1024)


def reference_shape(data: Constellations, config: BuildConfig, progress: Progress) -> tuple[FactorModel, Constellations, BetaTable, Tensor]:
    """Focal lengths, Betas, sparse cloud and poses by the published steps.

    Returns the model, the data with the found focal lengths, the Betas, and placed: (K,) bool, keypoints that the statistics can place;
    the first three know only those. The covariance is that of the Betas in Fisher form; displacements are zero: the published build
    knows no instances.
    """
    progress("focal lengths", 0, 1)
    data = replace(data, focal=_focal_lengths(data, config.reference.focal_steps))
    progress("statistics", 0, 1)
    placed = placeable(_table(data, config.seed), data.count)
    if data.flip is not None:
        placed = placed & placed[data.flip]
    data = data.only(placed)
    table = _table(data, config.seed)
    progress("sparse cloud", 0, 1)
    generator = torch.Generator().manual_seed(config.seed)
    shape = to_mirror_plane(reconstruct(table, data.count, DESCENT, generator)[0].double(), data.flip)
    shape = shape / torch.cdist(shape, shape).max()
    modes, variances = fisher_modes(shape, table, config.modes)
    flat = modes.flatten(1).double()
    return _posed(shape, (flat.T * variances.double()) @ flat, data), data, table, placed


def _table(data: Constellations, seed: int) -> BetaTable:
    """Betas of the back-projected keypoints of all images and mirror images, noise added."""
    instances, visible = with_mirror_images(camera_points(data), data.visible & data.measured, data.flip)
    return noisy_beta_table(instances, visible, COPIES, torch.Generator().manual_seed(seed))


def _focal_lengths(data: Constellations, steps: int) -> Tensor:
    """(N,) by Eq. 1-3: one per image and per mirror image, of which the mean inverse is used; known ones stay."""
    seen = torch.cat([data.corrected, data.depth[..., None]], dim=-1)  # x is reversed in the mirror image, z is not
    seen, visible = with_mirror_images(seen, data.visible & data.measured, data.flip)
    copies = len(seen) // len(data.points)
    known = torch.where(data.focal_known, 1 / data.focal, torch.nan).repeat(copies).float()
    inverse = optimise_focal(seen[..., :2].float(), seen[..., 2].float(), visible, torch.zeros(len(seen), 2), steps, known)
    return 1 / inverse.double().reshape(copies, -1).mean(0).clamp(min=1e-3)


def camera_points(data: Constellations) -> Tensor:
    """(N, K, 3) back-projected keypoints in the camera frame, corrected as published; meaningless where not visible or not measured."""
    return back_project(data.corrected, data.depth, data.focal[:, None, None], torch.zeros(2).double())


def _posed(shape: Tensor, covariance: Tensor, data: Constellations) -> FactorModel:
    """Poses of all images by similarity alignment of the mean shape to the back-projected keypoints."""
    points, visible = camera_points(data), (data.visible & data.measured).double()
    scale, rotation, translation = similarity_alignment(shape.expand_as(points), points, visible + 1e-9)
    scale = scale.clamp(min=1e-6)
    return rigid_model(shape, covariance, rotation, translation / scale[:, None], data)
