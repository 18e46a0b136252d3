"""The published dense cloud (method, section 1.5): pixels carried by barycentric coordinates, merged, clustered."""

import numpy as np
import torch

from semalign3d_core.category.annotations.constellations import MIRROR
from semalign3d_core.category.annotations.views import published_depth
from semalign3d_core.category.published import barycentric
from semalign3d_core.category.published.image_cloud import cluster_statistics, to_canonical
from semalign3d_core.category.published.shape import camera_points
from semalign3d_core.category.surface.dense_cloud import k_means
from semalign3d_core.category.surface.surface_map import SurfaceMap, half_width, normal, plane_of_some
from semalign3d_core.geometry.camera import back_project
from semalign3d_core.runtime.errors import InputError


def reference_cloud(views, model, data, config):
    """:class:`SurfaceMap` of the dense points, and their features, mu and s: merged cloud, k-means, neighbours."""
    options = config.reference
    points, features = _merged_cloud(views, model, data, options, np.random.default_rng(config.seed))
    if len(points) < 50:
        raise InputError(f"only {len(points)} pixels fall into the keypoints' hull; check masks, depth maps and keypoints")
    centres, labels = k_means(points, options.clusters, config.dense.iterations, config.seed)
    skeleton = _with_virtual_corners(model.shape, model.plane, half_width(model.plane, model.shape))
    clusters = cluster_statistics(skeleton, points, features.double(), labels, centres, options.neighbours)
    # The appended keypoints are rows of the model already; thin clusters are dropped.
    dense = (clusters.kept < len(centres)) & (clusters.support > options.density)
    tets = clusters.tets[barycentric.relative_volumes(skeleton, clusters.tets) > options.least_volume]
    weights, inside = barycentric.keypoint_weights(clusters.centres[dense], skeleton, tets)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
    chosen = dense.nonzero()[:, 0][inside]
    sd = clusters.variance[chosen].sqrt().clamp(min=config.dense.sd_floor)
    return _surface(weights[inside], model), (clusters.features[chosen].float(), clusters.mean[chosen].float(), sd.float())


def _with_virtual_corners(keypoints, plane, height):
    """Keypoints (K, 3), for coplanar ones with two virtual ones off their plane appended, on both sides of their mean."""
    if not plane.any():
        return keypoints
    away = height * normal(plane, keypoints)
    return torch.cat([keypoints, keypoints.mean(0) + torch.stack([away, -away])])


def _surface(weights, model):
    """The :class:`SurfaceMap` of weights (P, K) or, with virtual corners, (P, K + 2)."""
    count = len(model.shape)
    own, virtual = weights[:, :count], weights[:, count:]
    if virtual.shape[1] == 0:
        return SurfaceMap(own, torch.zeros_like(own[:, 0]), model.plane)
    offsets = half_width(model.plane, model.shape) * (virtual[:, 0] - virtual[:, 1])
    return SurfaceMap(own + virtual.sum(1, keepdim=True) / count, offsets, model.plane)


def _merged_cloud(views, model, data, options, rng):
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


def _canonical_pixels(view, model, data, n, known):
    """:class:`CanonicalPoints` of the pixels of image ``n`` by its keypoints ``known`` (K,) bool."""
    z = published_depth(view, view.pixel_inverse).double()
    flat = view.pixels.double() / max(view.height, view.width)
    pixels = back_project(flat, z, view.focal.double() * data.focal[n] / view.focal[0], view.principal.double())
    plane, height = plane_of_some(model.plane, model.shape, known), half_width(model.plane, model.shape)
    anchors = _with_virtual_corners(camera_points(data)[n][known], plane, height)
    seen = _with_virtual_corners(model.shape[known], plane, height)
    extra = seen[int(known.sum()) :]
    labels = torch.cat([known.nonzero()[:, 0], len(model.shape) + torch.arange(len(extra))])
    return to_canonical(pixels, anchors, torch.cat([model.shape, extra]), labels)
