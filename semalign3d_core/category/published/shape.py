"""The published construction (method, sections 1.1 to 1.3): shape of the preset ``reference``.

The published steps with the quirks of the release left out: a feature whose fit fails is skipped alone, keypoints that
cannot be placed are absent, pixels outside the image hull are dropped, flat tetrahedra are not used, everything is seeded.
The likeliest constellation comes from descent instead of grid search (a loss as low, in a fraction of the time).
"""

from dataclasses import dataclass, field, replace

import torch

from semalign3d_core.category.annotations.constellations import MIRROR, to_mirror_plane
from semalign3d_core.category.published.focal import optimise_focal
from semalign3d_core.category.published.sparse import SparseOptions, placeable, reconstruct
from semalign3d_core.category.shape.factor_model import FactorModel, relative_error
from semalign3d_core.category.statistics.fisher_modes import fisher_modes
from semalign3d_core.category.statistics.tables import ValidityRules, beta_table, noise_augmentation
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.geometry.rotations import similarity_alignment


@dataclass(frozen=True)
class ReferenceOptions:
    """Published hyper-parameters.

    focal_steps, focal_rate, focal_decay: AdamW on inverse focal lengths; copies, noise: augmentation of the statistics;
    kept_points: pixels per image that enter the merged cloud; clusters, neighbours, density: of the dense cloud;
    least_volume: relative volume below which a tetrahedron is too flat to be used; sparse: the descent
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
    least_volume: float = 1e-5
    sparse: SparseOptions = field(default_factory=SparseOptions)


def reference_shape(data, config, progress):
    """Focal lengths, Betas, sparse cloud and poses: (:class:`FactorModel`, data, :class:`BetaTable`, placed).

    The data come back with the found focal lengths. placed: (K,) bool, keypoints that the statistics can place; the model, the data and
    the table know only those. The covariance is that of the Betas in Fisher form; displacements are zero: the published
    build knows no instances.
    """
    options = config.reference
    progress("focal lengths", 0, 1)
    data = replace(data, focal=_focal_lengths(data, options))
    progress("statistics", 0, 1)
    placed = placeable(_table(data, config), data.count)
    if data.flip is not None:
        placed = placed & placed[data.flip]
    data = data.only(placed)
    table = _table(data, config)
    progress("sparse cloud", 0, 1)
    generator = torch.Generator().manual_seed(config.seed)
    shape = to_mirror_plane(reconstruct(table, data.count, options.sparse, generator)[0].double(), data.flip)
    shape = shape / torch.cdist(shape, shape).max()
    modes, variances = fisher_modes(shape, table, config.modes)
    flat = modes.flatten(1).double()
    model = _posed(shape, (flat.T * variances.double()) @ flat, data)
    return replace(model, error=relative_error(model, data)), data, table, placed


def _table(data, config):
    """Betas of the back-projected keypoints of all images and mirror images, noise added."""
    points, visible = _with_mirror_images(camera_points(data), data.visible & data.measured, data.flip)
    generator = torch.Generator().manual_seed(config.seed)
    noisy, mask = noise_augmentation(points.float(), visible, config.reference.copies, config.reference.noise, generator)
    return beta_table(noisy, mask, rules=ValidityRules(minimum_samples=4 * config.reference.copies))


def _with_mirror_images(points, visible, flip):
    if flip is None:
        return points, visible
    return torch.cat([points, points[:, flip] * MIRROR]), torch.cat([visible, visible[:, flip]])


def _focal_lengths(data, options):
    """(N,) by Eq. 1-3: one per image and per mirror image, of which the mean inverse is used; known ones stay."""
    visible = data.visible & data.measured
    points = torch.cat([data.points, torch.zeros_like(data.points[..., :1])], dim=-1)
    points, visible = _with_mirror_images(points, visible, data.flip)
    depth = data.depth if data.flip is None else torch.cat([data.depth, data.depth[:, data.flip]])
    copies = len(points) // len(data.points)
    known = torch.where(data.focal_known, 1 / data.focal, torch.nan).repeat(copies).float()
    inverse, _ = optimise_focal(
        points[..., :2].float(), depth.float(), visible, torch.zeros(len(points), 2),
        options.focal_steps, options.focal_rate, options.focal_decay, known=known,
    )  # fmt: skip
    return 1 / inverse.double().reshape(copies, -1).mean(0).clamp(min=1e-3)


def camera_points(data):
    """(N, K, 3) back-projected keypoints in the camera frame; meaningless where not visible or not measured."""
    return back_project(data.points, data.depth, data.focal[:, None, None], torch.zeros(2).double())


def _posed(shape, covariance, data):
    """Poses of all images by similarity alignment of the mean shape to the back-projected keypoints."""
    points, visible = camera_points(data), (data.visible & data.measured).double()
    scale, rotation, translation = similarity_alignment(shape.expand_as(points), points, visible + 1e-9)
    scale = scale.clamp(min=1e-6)
    nothing = torch.zeros(len(points), dtype=shape.dtype)
    return FactorModel(shape, covariance, rotation, translation / scale[:, None], torch.zeros_like(points), nothing, nothing + 1)
