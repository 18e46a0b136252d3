"""Similarity of points by their features and their places on the sphere (SphericalMaps, CVPR 2024, section 3.3)."""

import torch
from torch.nn.functional import normalize

from semalign3d_core.errors import choice

FEATURE_SHARE = 0.8  # the sphere has the rest
GAP = 1e-6  # what torch's pairwise distance adds to every coordinate difference


def cosine(source, target):
    """(Q, N) cosines of rows (Q, C) and (N, C)."""
    return normalize(source, dim=1, eps=1e-8) @ normalize(target, dim=1, eps=1e-8).T


def negative_distance(source, target, order=2.0):
    """(Q, N) negative distances of rows (Q, C) and (N, C), a hundred rows at a time."""
    parts = [-(part[:, None] - target[None] + GAP).norm(p=order, dim=2) for part in source.split(100)]
    return torch.cat(parts) if parts else source.new_zeros(0, len(target))


# measure -> function(rows (Q, C), rows (N, C)) -> (Q, N), larger is more alike
MEASURES = {
    "cosine": cosine,
    "l2": negative_distance,
    "l1": lambda source, target: negative_distance(source, target, 1.0),
    "l2norm": lambda source, target: negative_distance(normalize(source, dim=1), normalize(target, dim=1)),
}


def fused_similarity(features, sphere, measure="cosine", share=FEATURE_SHARE):
    """(Q, N) similarity: ``share`` of the features' and the rest of the sphere's, by one measure.

    features, sphere: (source (Q, C), target (N, C)) each
    """
    compare = choice("measure", measure, MEASURES)
    return share * compare(*features) + (1 - share) * compare(*sphere)
