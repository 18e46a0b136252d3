"""The published dense cloud: pixels carried into the canonical frame by barycentric coordinates, then clustered (section 1.5)."""

from dataclasses import dataclass

import torch

from semalign3d_core.category.published import barycentric
from semalign3d_core.category.statistics import combinations
from semalign3d_core.category.surface.semantics import neighbour_statistics


@dataclass(frozen=True)
class CanonicalPoints:
    """Pixels of one image in the canonical frame.

    points: (P, 3); in_image_hull: (P,) bool, inside the hull of the image's own keypoints;
    kept: (P,) bool, inside both hulls. Points outside the image hull are at the origin and never kept.
    """

    points: torch.Tensor
    in_image_hull: torch.Tensor
    kept: torch.Tensor


def to_canonical(points, anchors, canonical, labels, threshold=barycentric.INSIDE):
    """Moves camera-frame ``points`` (P, 3) into the canonical frame by the image's visible keypoints.

    anchors: (V, 3) visible keypoints in the camera frame; labels: (V,) their labels; canonical: (K, 3) all keypoints.
    """
    tets = combinations.tetrahedra(len(anchors))
    weights, in_image_hull = barycentric.keypoint_weights(points, anchors, tets, threshold)
    moved = weights @ canonical[labels]
    in_canonical = barycentric.in_hull(moved, canonical, combinations.tetrahedra(len(canonical)), threshold)
    return CanonicalPoints(moved, in_image_hull, in_image_hull & in_canonical)


@dataclass(frozen=True)
class Clusters:
    """Clusters of the merged cloud, the sparse keypoints appended.

    kept: (J,) index among the k-means centres followed by the keypoints; centres: (J, 3);
    support: (J,) share of the merged points in the cluster, 1 for keypoints; features: (J, C) unit;
    mean, variance: (J,) of the cosines (population variance); tets: (Q, 4) tetrahedra of the keypoints
    """

    kept: torch.Tensor
    centres: torch.Tensor
    support: torch.Tensor
    features: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    tets: torch.Tensor


def cluster_statistics(keypoints, points, features, labels, centres, neighbours):
    """:class:`Clusters` of merged points (P, 3) with features (P, C) and cluster ``labels`` (P,) around k-means ``centres``.

    keypoints: (K, 3) placed keypoints; features come from the nearest merged points, not from the cluster's members.
    Candidates outside the keypoints' hull are dropped.
    """
    tets = combinations.tetrahedra(len(keypoints))
    candidates = torch.cat([centres, keypoints])
    share = torch.bincount(labels, minlength=len(centres)).to(points.dtype) / len(points)
    support = torch.cat([share, torch.ones(len(keypoints), dtype=points.dtype)])
    kept = barycentric.in_hull(candidates, keypoints, tets).nonzero()[:, 0]
    mean_feature, mean, variance = neighbour_statistics(candidates[kept], points, features, neighbours)
    return Clusters(kept, candidates[kept], support[kept], mean_feature, mean, variance, tets)
