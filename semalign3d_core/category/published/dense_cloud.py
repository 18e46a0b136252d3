"""The published dense cloud (method, section 1.5): pixels carried by barycentric coordinates, merged, clustered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.annotations.constellations import Constellations
from semalign3d_core.category.annotations.views import View, published_depth
from semalign3d_core.category.config import BuildConfig, ReferenceOptions
from semalign3d_core.category.published import barycentric
from semalign3d_core.category.published.shape import camera_points
from semalign3d_core.category.shape.factor_model import FactorModel
from semalign3d_core.category.shape.mirror import MIRROR
from semalign3d_core.category.statistics.geometric_features import tetrahedra
from semalign3d_core.category.surface.dense_cloud import MINIMUM_PIXELS, k_means
from semalign3d_core.category.surface.point_features import PointFeatures
from semalign3d_core.category.surface.surface_map import SurfaceMap, half_width, normal, plane_of_some
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.runtime.errors import InputError

LEAST_VOLUME = 1e-5  # relative volume below which a tetrahedron is too flat to be used


def reference_cloud(
    views: Sequence[View], model: FactorModel, data: Constellations, config: BuildConfig, iterations: int
) -> tuple[SurfaceMap, PointFeatures]:
    """The dense points and their features: merged cloud, k-means, neighbours. iterations: of k-means.

    Raises :class:`InputError` if too few pixels fall into the keypoints' hull.
    """
    options = config.reference
    points, features = _merged_cloud(views, model, data, options, np.random.default_rng(config.seed))
    if len(points) < MINIMUM_PIXELS:
        raise InputError(f"only {len(points)} pixels fall into the keypoints' hull; check masks, depth maps and keypoints")
    centres, labels = k_means(points, options.clusters, iterations, config.seed)
    skeleton = _with_virtual_corners(model.shape, model.plane, half_width(model.plane, model.shape))
    clusters = cluster_statistics(skeleton, points, features.double(), labels, centres, options.neighbours)
    # The appended keypoints are rows of the model already; thin clusters are dropped.
    dense = (clusters.kept < len(centres)) & (clusters.support > options.density)
    tets = clusters.tets[barycentric.relative_volumes(skeleton, clusters.tets) > LEAST_VOLUME]
    weights, inside = barycentric.keypoint_weights(clusters.centres[dense], skeleton, tets)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
    chosen = dense.nonzero()[:, 0][inside]
    sd = clusters.variance[chosen].sqrt().clamp(min=config.dense.sd_floor)
    return _surface(weights[inside], model), (clusters.features[chosen].float(), clusters.mean[chosen].float(), sd.float())


def _with_virtual_corners(keypoints: Tensor, plane: Tensor, height: float) -> Tensor:
    """Keypoints (K, 3), for coplanar ones with two virtual ones off their plane appended, on both sides of their mean."""
    if not plane.any():
        return keypoints
    away = height * normal(plane, keypoints)
    return torch.cat([keypoints, keypoints.mean(0) + torch.stack([away, -away])])


def _surface(weights: Tensor, model: FactorModel) -> SurfaceMap:
    """The :class:`SurfaceMap` of weights (P, K) or, with virtual corners, (P, K + 2)."""
    count = len(model.shape)
    own, virtual = weights[:, :count], weights[:, count:]
    if virtual.shape[1] == 0:
        return SurfaceMap(own, torch.zeros_like(own[:, 0]), model.plane)
    offsets = half_width(model.plane, model.shape) * (virtual[:, 0] - virtual[:, 1])
    return SurfaceMap(own + virtual.sum(1, keepdim=True) / count, offsets, model.plane)


def _merged_cloud(
    views: Sequence[View], model: FactorModel, data: Constellations, options: ReferenceOptions, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Canonical positions (P, 3) and features (P, C) of all images and mirror images."""
    points, features = [], []
    for n, view in enumerate(views):
        known = data.visible[n] & data.measured[n]
        if int(known.sum()) < 4:
            continue
        moved = _canonical_pixels(view, model, data, n, known)
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


def _canonical_pixels(view: View, model: FactorModel, data: Constellations, n: int, known: Tensor) -> "CanonicalPoints":
    """:class:`CanonicalPoints` of the pixels of image ``n`` by its keypoints ``known`` (K,) bool."""
    z = published_depth(view, view.pixel_inverse).double()
    flat = view.pixels.double() / view.longer_side
    pixels = back_project(flat, z, view.focal.double() * data.focal[n] / view.focal[0], view.principal.double())
    plane, height = plane_of_some(model.plane, model.shape, known), half_width(model.plane, model.shape)
    anchors = _with_virtual_corners(camera_points(data)[n][known], plane, height)
    seen = _with_virtual_corners(model.shape[known], plane, height)
    extra = seen[int(known.sum()) :]
    labels = torch.cat([known.nonzero()[:, 0], len(model.shape) + torch.arange(len(extra))])
    return to_canonical(pixels, anchors, torch.cat([model.shape, extra]), labels)


@dataclass(frozen=True)
class CanonicalPoints:
    """Pixels of one image in the canonical frame.

    points: (P, 3); in_image_hull: (P,) bool, inside the hull of the image's own keypoints;
    kept: (P,) bool, inside both hulls. Points outside the image hull are at the origin and never kept.
    """

    points: Tensor
    in_image_hull: Tensor
    kept: Tensor


def to_canonical(points: Tensor, anchors: Tensor, canonical: Tensor, labels: Tensor) -> CanonicalPoints:
    """Moves camera-frame ``points`` (P, 3) into the canonical frame by the image's visible keypoints.

    anchors: (V, 3) visible keypoints in the camera frame; labels: (V,) their labels; canonical: (K, 3) all keypoints.
    """
    weights, in_image_hull = barycentric.keypoint_weights(points, anchors, tetrahedra(len(anchors)))
    moved = weights @ canonical[labels]
    in_canonical = barycentric.in_hull(moved, canonical, tetrahedra(len(canonical)))
    return CanonicalPoints(moved, in_image_hull, in_image_hull & in_canonical)


@dataclass(frozen=True)
class Clusters:
    """Clusters of the merged cloud, the sparse keypoints appended.

    kept: (J,) index among the k-means centres followed by the keypoints; centres: (J, 3);
    support: (J,) share of the merged points in the cluster, 1 for keypoints; features: (J, C) unit;
    mean, variance: (J,) of the cosines (population variance); tets: (Q, 4) tetrahedra of the keypoints
    """

    kept: Tensor
    centres: Tensor
    support: Tensor
    features: Tensor
    mean: Tensor
    variance: Tensor
    tets: Tensor


def cluster_statistics(keypoints: Tensor, points: Tensor, features: Tensor, labels: Tensor, centres: Tensor, neighbours: int) -> Clusters:
    """:class:`Clusters` of merged points (P, 3) with features (P, C) and cluster ``labels`` (P,) around k-means ``centres``.

    keypoints: (K, 3) placed keypoints; features come from the nearest merged points, not from the cluster's members.
    Candidates outside the keypoints' hull are dropped.
    """
    tets = tetrahedra(len(keypoints))
    candidates = torch.cat([centres, keypoints])
    share = torch.bincount(labels, minlength=len(centres)).to(points.dtype) / len(points)
    support = torch.cat([share, torch.ones(len(keypoints), dtype=points.dtype)])
    kept = barycentric.in_hull(candidates, keypoints, tets).nonzero()[:, 0]
    mean_feature, mean, variance = neighbour_statistics(candidates[kept], points, features, neighbours)
    return Clusters(kept, candidates[kept], support[kept], mean_feature, mean, variance, tets)


def neighbour_statistics(centres: Tensor, points: Tensor, features: Tensor, neighbours: int) -> PointFeatures:
    """Mean feature, mean and population variance of the cosines over the ``neighbours`` points nearest to each centre.

    centres: (J, 3); points: (P, 3); features: (P, C) unit. Returns (J, C) unit, (J,), (J,). One centre at a time, so
    centres x points x channels never exists.
    """
    neighbours = min(neighbours, len(points))
    hats, means, variances = [], [], []
    for centre in centres:
        nearest = ((points - centre) ** 2).sum(1).topk(neighbours, largest=False).indices
        chosen = features[nearest]
        hat = torch.nn.functional.normalize(chosen.mean(0), dim=0)
        cosine = chosen @ hat
        hats.append(hat)
        means.append(cosine.mean())
        variances.append(cosine.var(correction=0))
    return torch.stack(hats), torch.stack(means), torch.stack(variances)
