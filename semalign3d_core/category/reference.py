"""The published construction (method, section 1): the preset ``reference``.

The published steps with the quirks of the release left out: a feature whose fit fails is skipped alone, keypoints that
cannot be placed are absent, pixels outside the image hull are dropped, flat tetrahedra are not used, everything is seeded.
The likeliest constellation comes from descent instead of grid search (a loss as low, in a fraction of the time).
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from semalign3d_core.camera import back_project
from semalign3d_core.category import barycentric
from semalign3d_core.category.constellations import MIRROR, to_mirror_plane
from semalign3d_core.category.dense_cloud import k_means
from semalign3d_core.category.factor_model import FactorModel, relative_error
from semalign3d_core.category.focal import focal_loss
from semalign3d_core.category.image_cloud import cluster_statistics, to_canonical
from semalign3d_core.category.sparse import SparseOptions, placeable, reconstruct
from semalign3d_core.category.statistics import ValidityRules, beta_table, noise_augmentation
from semalign3d_core.category.views import published_depth
from semalign3d_core.errors import InputError
from semalign3d_core.geometry import similarity_alignment


@dataclass(frozen=True)
class ReferenceOptions:
    """Published hyper-parameters.

    focal_steps, focal_rate, focal_decay: AdamW on inverse focal lengths from ``focal_start``; copies, noise: augmentation
    of the statistics; kept_points: pixels per image that enter the merged cloud; clusters, neighbours, density: of the
    dense cloud; least_volume: relative volume below which a tetrahedron is too flat to be used; sparse: the descent
    """

    focal_start: float = 0.2
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
    """Focal lengths, Betas, sparse cloud and poses: (:class:`FactorModel`, data with the found focal lengths, :class:`BetaTable`).

    The covariance is that of the Betas in Fisher form; displacements are zero: the published build knows no instances.
    """
    from semalign3d_core.alignment.fisher import fisher_modes  # the alignment package imports the category package

    options = config.reference
    progress("focal lengths", 0, 1)
    data = replace(data, focal=_focal_lengths(data, options))
    progress("statistics", 0, 1)
    points, visible = _with_mirror_images(_camera_points(data), data.visible & data.measured, data.flip)
    generator = torch.Generator().manual_seed(config.seed)
    noisy, mask = noise_augmentation(points.float(), visible, options.copies, options.noise, generator)
    table = beta_table(noisy, mask, rules=ValidityRules(minimum_samples=4 * options.copies))
    _check_placeable(table, data.count)
    progress("sparse cloud", 0, 1)
    shape = to_mirror_plane(reconstruct(table, data.count, options.sparse, generator)[0].double(), data.flip)
    shape = shape / torch.cdist(shape, shape).max()
    modes, variances = fisher_modes(shape, table, config.modes)
    flat = modes.flatten(1).double()
    model = _posed(shape, (flat.T * variances.double()) @ flat, data)
    return replace(model, error=relative_error(model, data)), data, table


def _check_placeable(table, count):
    missing = (~placeable(table, count)).nonzero()[:, 0].tolist()
    if missing:
        raise InputError(
            f"{len(missing)} of {count} keypoints are seen too rarely together with others for the published statistics "
            "(each needs four images that show it with three others); build with --preset em or annotate more images"
        )


def _with_mirror_images(points, visible, flip):
    if flip is None:
        return points, visible
    return torch.cat([points, points[:, flip] * MIRROR]), torch.cat([visible, visible[:, flip]])


def _focal_lengths(data, options):
    """(N,) by Eq. 1-3, one per image shared with its mirror image (the mean of two, as published); known ones stay."""
    visible = data.visible & data.measured
    points = torch.cat([data.points, torch.zeros_like(data.points[..., :1])], dim=-1)
    points, visible = _with_mirror_images(points, visible, data.flip)
    depth = data.depth if data.flip is None else torch.cat([data.depth, data.depth[:, data.flip]])
    copies = len(points) // len(data.points)
    inverse = torch.full_like(data.focal, options.focal_start).requires_grad_()
    optimiser = torch.optim.AdamW([inverse], lr=options.focal_rate, weight_decay=options.focal_decay)
    centre = torch.zeros(len(points), 2, dtype=points.dtype)
    for _ in range(0 if data.focal_known.all() else options.focal_steps):
        used = torch.where(data.focal_known, 1 / data.focal, inverse).repeat(copies)
        loss = focal_loss(used.float(), points[..., :2].float(), depth.float(), visible, centre.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.where(data.focal_known, data.focal, 1 / inverse.detach().abs().clamp(min=1e-3))


def _camera_points(data):
    return back_project(data.points, data.depth, data.focal[:, None, None], torch.zeros(2).double())


def _posed(shape, covariance, data):
    """Poses of all images by similarity alignment of the mean shape to the back-projected keypoints."""
    points, visible = _camera_points(data), (data.visible & data.measured).double()
    scale, rotation, translation = similarity_alignment(shape.expand_as(points), points, visible + 1e-9)
    scale = scale.clamp(min=1e-6)
    nothing = torch.zeros(len(points), dtype=shape.dtype)
    return FactorModel(shape, covariance, rotation, translation / scale[:, None], torch.zeros_like(points), nothing, nothing + 1)


def reference_cloud(views, model, data, config):
    """W (J, K) of the dense points over the keypoints, and their features, mu and s: merged cloud, k-means, neighbours."""
    options = config.reference
    points, features = _merged_cloud(views, model, data, options, np.random.default_rng(config.seed))
    if len(points) < 50:
        raise InputError(f"only {len(points)} pixels fall into the keypoints' hull; check masks, depth maps and keypoints")
    centres, labels = k_means(points, options.clusters, config.dense.iterations, config.seed)
    clusters = cluster_statistics(model.shape, points, features.double(), labels, centres, options.neighbours)
    # The appended keypoints are rows of the model already; thin clusters are dropped.
    dense = (clusters.kept < len(centres)) & (clusters.support > options.density)
    tets = clusters.tets[barycentric.relative_volumes(model.shape, clusters.tets) > options.least_volume]
    weights, inside = barycentric.keypoint_weights(clusters.centres[dense], model.shape, tets)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
    chosen = dense.nonzero()[:, 0][inside]
    sd = clusters.variance[chosen].sqrt().clamp(min=1e-3)
    return weights[inside], (clusters.features[chosen].float(), clusters.mean[chosen].float(), sd.float())


def _merged_cloud(views, model, data, options, rng):
    """Canonical positions (P, 3) and features (P, C) of all images and mirror images."""
    points, features = [], []
    for n, view in enumerate(views):
        known = data.visible[n] & data.measured[n]
        if int(known.sum()) < 4:
            continue
        z = published_depth(view, view.pixel_inverse).double()
        flat = view.pixels.double() / max(view.height, view.width)
        pixels = back_project(flat, z, view.focal.double() * data.focal[n] / view.focal[0], view.principal.double())
        moved = to_canonical(pixels, _camera_points(data)[n][known], model.shape, known.nonzero()[:, 0])
        kept = moved.kept.nonzero()[:, 0]
        kept = kept[torch.from_numpy(np.sort(rng.permutation(len(kept))[: options.kept_points]))]
        points.append(moved.points[kept])
        features.append(view.pixel_features[kept].float())
        if len(view.mirrored_pixel_features):
            points.append(moved.points[kept] * MIRROR)
            features.append(view.mirrored_pixel_features[kept].float())
    if not points:
        raise InputError("no image has four keypoints with known depth; check the depth maps")
    return torch.cat(points), torch.nn.functional.normalize(torch.cat(features), dim=1)
