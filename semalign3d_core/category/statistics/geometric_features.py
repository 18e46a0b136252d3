"""Scale-free features of keypoint constellations, and how likely they are by a category's Betas (paper section 3.1, Eq. 10)."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor

DENSITY_CLAMP = 1e-6
EPSILON = 1e-6  # as published: added to lengths before a division


def edge_pairs(count: int) -> tuple[Tensor, Tensor]:
    """All unordered pairs of distinct edges of ``count`` keypoints, sharing a keypoint or not: (E, 2), (E, 2) int64, lexicographic."""
    edge = torch.triu_indices(count, count, offset=1).T.contiguous()  # (a, b), a < b
    first, second = torch.triu_indices(len(edge), len(edge), offset=1)
    return edge[first], edge[second]


def tetrahedra(count: int) -> Tensor:
    """All 4-subsets a < b < c < d of ``count`` keypoints in lexicographic order, (Q, 4) int64."""
    return torch.tensor(list(combinations(range(count), 4)), dtype=torch.int64).reshape(-1, 4)


def triangles_with_vertex(count: int) -> tuple[Tensor, Tensor]:
    """Every tetrahedron read as triangle and fourth vertex, in its four cyclic shifts: triangle (T, 3), vertex (T,) int64."""
    tets = tetrahedra(count)
    shifts = torch.stack([tets, tets.roll(-1, 1), tets.roll(-2, 1), tets.roll(-3, 1)], dim=1).reshape(-1, 4)
    return shifts[:, :3].contiguous(), shifts[:, 3].contiguous()


def triple_features(points: Tensor) -> tuple[Tensor, Tensor]:
    """Features of every ordered triple (i; j, k) (Eq. 1, 2).

    points: (..., K, 3). Returns ``cos angle(x_j - x_i, x_k - x_i)`` and
    ``|x_j - x_i| / (|x_j - x_i| + |x_k - x_i|)``, each (..., K, K, K) in the order i, j, k.
    """
    edge = points[..., None, :, :] - points[..., :, None, :]
    size = length(edge)
    dot = edge @ edge.transpose(-1, -2)
    first, second = size[..., :, None], size[..., None, :]
    return dot / (first * second + EPSILON), first / (first + second + EPSILON)  # Eq. 1, Eq. 2


def triple_mask(visible: Tensor) -> Tensor:
    """(..., K) bool to (..., K, K, K): all three keypoints are visible."""
    return visible[..., :, None, None] & visible[..., None, :, None] & visible[..., None, None, :]


def masked_mean_variance(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance over the first axis where ``mask``; 0 where nothing (for the variance: one) is seen."""
    mask = mask.to(values.dtype)
    count = mask.sum(0)
    mean = (values * mask).sum(0) / count.clamp(min=1)
    variance = (((values - mean) * mask) ** 2).sum(0) / (count - 1).clamp(min=1)
    return mean, variance


def edge_pair_features(points: Tensor, edge1: Tensor, edge2: Tensor) -> tuple[Tensor, Tensor]:
    """Length ratio in (0, 1) and cosine in (-1, 1) of edge pairs.

    points: (..., K, 3); edge1, edge2: (E, 2). Returns ratio (..., E), cosine (..., E).
    """
    first = points[..., edge1[:, 0], :] - points[..., edge1[:, 1], :]
    second = points[..., edge2[:, 0], :] - points[..., edge2[:, 1], :]
    length1, length2 = length(first), length(second)
    cosine = (unit(first) * unit(second)).sum(-1)
    return length_ratio(length1, length2), cosine


def length_ratio(length1: Tensor, length2: Tensor) -> Tensor:
    """Share of the first in the sum of two lengths."""
    return length1 / (length1 + length2 + EPSILON)


def triangle_vertex_features(points: Tensor, triangle: Tensor, vertex: Tensor) -> Tensor:
    """Signed cosines of the direction to a fourth vertex in the frame of a triangle; the only features that know chirality.

    points: (..., K, 3); triangle: (T, 3); vertex: (T,). Returns (..., T, 3): along the first edge, in the plane, along the normal.
    """
    origin = points[..., triangle[:, 0], :]
    edge = points[..., triangle[:, 1], :] - origin
    other = points[..., triangle[:, 2], :] - origin
    direction = unit(points[..., vertex, :] - origin)
    return (torch.stack(triangle_axes(edge, other), dim=-2) @ direction[..., None])[..., 0]


def triangle_axes(edge: Tensor, other: Tensor, dim: int = -1) -> tuple[Tensor, ...]:
    """The frame of a triangle of which two edges leave one corner: along the first, in the plane, along the normal.

    edge, other and each of the three axes: (...) with the coordinates along ``dim``.
    """
    z = unit(torch.linalg.cross(edge, other, dim=dim), dim)
    x = unit(edge, dim)
    y = torch.linalg.cross(z, x, dim=dim)
    return tuple(unit(axis, dim) for axis in (x, y, z))


@dataclass(frozen=True)
class BetaTable:
    """Beta distributions of the geometric features of a category (paper section 3.1, Eq. 10).

    edge1, edge2:  (E, 2) int64, keypoints (a, b) and (c, d) of every kept edge pair
    edge_beta:     (E, 4) alpha, beta of the length ratio on (0, 1), then alpha, beta of the cosine on (-1, 1)
    triangle:      (T, 3) int64, vertex: (T,) int64, keypoints of every kept triangle + fourth vertex
    tet_beta:      (T, 6) alpha, beta of the three signed cosines in the triangle's frame, on (-1, 1)
    """

    edge1: Tensor
    edge2: Tensor
    edge_beta: Tensor
    triangle: Tensor
    vertex: Tensor
    tet_beta: Tensor

    @classmethod
    def empty(cls) -> "BetaTable":
        """A table without features."""
        pair, number = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        return cls(pair, pair, torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int64), number, torch.zeros(0, 6))

    @cached_property
    def log_normalisers(self) -> tuple[Tensor, Tensor]:
        """(E, 2) and (T, 3): :func:`log_normaliser` of the Betas."""
        edge, tet = (log_normaliser(*table.unflatten(1, (-1, 2)).unbind(-1)) for table in (self.edge_beta, self.tet_beta))
        return edge, tet


def log_density(x: Tensor, alpha: Tensor, beta: Tensor, low: float = 0.0, constant: Tensor | None = None) -> Tensor:
    """Log-density of Beta(alpha, beta) for ``x`` in [low, 1], without the Jacobian of the map to [0, 1].

    Arguments are clamped to [1e-6, 1 - 1e-6] after the map, so nothing is infinite (and clamped values have no gradient).
    constant: :func:`log_normaliser` of the parameters, if it is at hand.
    """
    u = (x if low == 0 else (x - low) / (1 - low)).clamp(DENSITY_CLAMP, 1 - DENSITY_CLAMP)
    constant = log_normaliser(alpha, beta) if constant is None else constant
    return torch.addcmul(torch.addcmul(constant, alpha - 1, u.log()), beta - 1, (1 - u).log())


def log_normaliser(alpha: Tensor, beta: Tensor) -> Tensor:
    """What the log-density of Beta(alpha, beta) has besides the powers: minus the log of the Beta function."""
    return torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)


def geometric_loss(points: Tensor, table: BetaTable) -> Tensor:
    """Mean negative log-likelihood of a constellation under the category's Betas (Eq. 10), (...).

    points: (..., K, 3). Five kinds of features count the same whatever their number; without tetrahedra the edge-pair part is
    still divided by five.
    """
    edge_part, tet_part = geometric_loss_terms(points, table)
    return (edge_part + tet_part) / 5  # Eq. 10


def geometric_loss_terms(points: Tensor, table: BetaTable) -> tuple[Tensor, Tensor]:
    """The edge-pair and the tetrahedron part of :func:`geometric_loss`, before the division by five; an empty part is 0."""
    edge_part = tet_part = points.new_zeros(points.shape[:-2])
    if len(table.edge1):
        ratio, cosine = edge_pair_features(points, table.edge1, table.edge2)
        alpha, beta = table.edge_beta.unflatten(1, (2, 2)).unbind(-1)
        shares = torch.stack([ratio, (cosine + 1) / 2], -1)
        edge_part = -log_density(shares, alpha, beta, 0.0, table.log_normalisers[0]).mean(-2).sum(-1)
    if len(table.triangle):
        cosines = triangle_vertex_features(points, table.triangle, table.vertex)
        parameters = table.tet_beta.reshape(-1, 3, 2)
        density = log_density(cosines, parameters[..., 0], parameters[..., 1], -1.0, table.log_normalisers[1])
        tet_part = -density.mean(-2).sum(-1)
    return edge_part, tet_part


def length(vector: Tensor, dim: int = -1) -> Tensor:
    """Lengths (...) of vectors whose coordinates lie along ``dim``."""
    # Not vector_norm, which takes forty times as long along another dimension than the last. The tiny floor keeps the gradient of
    # coincident points finite (0) without changing any value that float32 can see.
    return (vector * vector).sum(dim).clamp(min=1e-30).sqrt()


def unit(vector: Tensor, dim: int = -1) -> Tensor:
    """Vectors whose coordinates lie along ``dim``, of length 1 where they are long beside ``EPSILON``."""
    return vector / (length(vector, dim).unsqueeze(dim) + EPSILON)
