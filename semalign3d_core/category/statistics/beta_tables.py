"""Beta statistics of a category's geometric features over its training instances (method, section 1.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from semalign3d_core.category.statistics import beta
from semalign3d_core.category.statistics.geometric_features import (
    BetaTable,
    edge_pairs,
    length,
    length_ratio,
    triangle_axes,
    triangles_with_vertex,
    unit,
)

MINIMUM_SAMPLES = 40  # of a feature whose Beta is used
NOISE = 0.2  # as published
RATIO_MODES = 0.01, 0.99  # between which the mode of a length ratio must lie
STATISTICS_CLAMP = 1e-6  # float32 holds nothing closer to 1; exactly parallel edges stay finite
CHUNK_VALUES = 150_000  # that stay in a processor's cache
FACTORS = 6  # of the clamp, whose product float32 still holds


def shortest_edges(points: Tensor, visible: Tensor) -> Tensor:
    """Shortest distance between two visible keypoints of each instance, (I,); infinite where fewer than two are visible."""
    distance = torch.cdist(points, points)
    pair = visible[:, :, None] & visible[:, None, :] & ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    return torch.where(pair, distance, torch.inf).amin((1, 2))


def noise_augmentation(points: Tensor, visible: Tensor, copies: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``copies`` noisy instances of each, consecutive: points (I copies, K, 3), visible (I copies, K).

    Isotropic Gaussian noise with standard deviation ``NOISE`` x the instance's shortest visible edge (as published); the clean instance
    is not kept; coordinates of invisible keypoints stay as they are. An instance with coincident keypoints gets none.
    """
    sigma = NOISE * shortest_edges(points, visible)
    sigma = torch.where(torch.isfinite(sigma), sigma, 0.0).repeat_interleave(copies)
    points, visible = points.repeat_interleave(copies, 0), visible.repeat_interleave(copies, 0)
    noise = torch.randn(points.shape, generator=generator, dtype=points.dtype)
    return points + noise.to(points.device) * sigma[:, None, None] * visible[..., None], visible


def noisy_beta_table(points: Tensor, visible: Tensor, copies: int, generator: torch.Generator, limit: int | None = None) -> BetaTable:
    """The :func:`beta_table` of noisy copies of instances (I, K, 3), of features that at least four instances show.

    The noise gives features that are (nearly) the same in all instances a width: their Betas would else be so narrow that they drown
    all others.
    """
    noisy, mask = noise_augmentation(points.float(), visible, copies, generator)
    return beta_table(noisy, mask, 4 * copies, limit, generator)


def beta_table(
    points: Tensor,
    visible: Tensor,
    minimum_samples: int = MINIMUM_SAMPLES,
    limit: int | None = None,
    generator: torch.Generator | None = None,
) -> BetaTable:
    """The valid :class:`BetaTable` of instances (S, K, 3) with ``visible`` (S, K).

    limit: at most that many random edge pairs and as many triangle rows, for a table that only serves a start (default: all).
    """
    edge1, edge2 = edge_pairs(points.shape[1])
    triangle, vertex = triangles_with_vertex(points.shape[1])
    if limit is not None:
        pick = torch.randperm(len(edge1), generator=generator)[:limit].sort().values
        edge1, edge2 = edge1[pick], edge2[pick]
        pick = torch.randperm(len(triangle), generator=generator)[:limit].sort().values
        triangle, vertex = triangle[pick], vertex[pick]
    edge_beta, edge_counts = fit_edge_pairs(points, visible, edge1, edge2)
    tet_beta, tet_counts = fit_tets(points, visible, triangle, vertex)
    keep, keep_tet = valid_edge_pairs(edge_beta, edge_counts, minimum_samples), valid_tets(tet_beta, tet_counts, minimum_samples)
    return BetaTable(edge1[keep], edge2[keep], edge_beta[keep].float(), triangle[keep_tet], vertex[keep_tet], tet_beta[keep_tet].float())


def valid_edge_pairs(edge_beta: Tensor, counts: Tensor, minimum_samples: int = MINIMUM_SAMPLES) -> Tensor:
    """(E,) bool: enough samples, all four parameters above 1 (unimodal), mode of the ratio away from 0 and 1."""
    ratio_mode = beta.mode(edge_beta[:, 0], edge_beta[:, 1])
    inside = (ratio_mode >= RATIO_MODES[0]) & (ratio_mode <= RATIO_MODES[1])
    return (counts >= minimum_samples) & inside & (edge_beta > 1).all(1)


def valid_tets(tet_beta: Tensor, counts: Tensor, minimum_samples: int = MINIMUM_SAMPLES) -> Tensor:
    """(T,) bool: enough samples and all six parameters above 1 (unimodal)."""
    return (counts >= minimum_samples) & (tet_beta > 1).all(1)


def fit_edge_pairs(points: Tensor, visible: Tensor, edge1: Tensor, edge2: Tensor) -> tuple[Tensor, Tensor]:
    """Beta fits of the edge pairs: (E, 4) float64 alpha, beta of ratio and cosine, and the sample counts (E,).

    points: (S, K, 3); visible: (S, K). Pairs without samples get (1, 1).
    """
    edge = _edges(points)
    size, direction = length(edge, 1), unit(edge, dim=1)
    first, second = (_edge_index(e[:, 0], e[:, 1], points.shape[1]) for e in (edge1, edge2))

    def features(rows: slice) -> Tensor:
        one, other = first[rows], second[rows]
        ratio = length_ratio(size.index_select(0, one), size.index_select(0, other))
        return torch.stack([ratio, (_dot(direction.index_select(0, one), direction.index_select(0, other)) + 1) / 2], dim=1)

    members = torch.cat([edge1, edge2], dim=1)
    return _fit(features, visible, [members, members])


def fit_tets(points: Tensor, visible: Tensor, triangle: Tensor, vertex: Tensor) -> tuple[Tensor, Tensor]:
    """Beta fits of the triangle-vertex cosines: (T, 6) float64 alpha, beta of the three, and the sample counts (T,).

    points: (S, K, 3); visible: (S, K). The first cosine does not depend on the triangle's third keypoint, so it also uses instances
    that lack only that one; the counts are those of complete tetrahedra.
    """
    count = points.shape[1]
    # Rows of one triangle stand together, so that its frame is made once for all its vertices.
    order = _edge_index(_edge_index(triangle[:, 0], triangle[:, 1], count), triangle[:, 2], count).argsort(stable=True)
    triangle, vertex = triangle[order], vertex[order]
    edge = _edges(points)
    direction = unit(edge, dim=1)

    def features(rows: slice) -> Tensor:
        corners, place = torch.unique_consecutive(triangle[rows], dim=0, return_inverse=True)
        first, second = (edge.index_select(0, _edge_index(corners[:, k], corners[:, 0], count)) for k in (1, 2))
        axes = torch.stack(triangle_axes(first, second, dim=1), dim=2)  # (rows, coordinates, axes, S)
        toward = direction.index_select(0, _edge_index(vertex[rows], triangle[rows, 0], count))
        return (_dot(axes.index_select(0, place), toward[:, :, None]) + 1) / 2

    corners = torch.cat([triangle, vertex[:, None]], dim=1)
    fitted, counts = _fit(features, visible, [corners[:, [0, 1, 3]], corners, corners])
    back = order.argsort()
    return fitted[back], counts[back]


def _edges(points: Tensor) -> Tensor:
    """(K K, 3, S) edges between all keypoints of points (S, K, 3); samples come last, where they are many and computed together."""
    return (points[:, :, None] - points[:, None]).flatten(1, 2).permute(1, 2, 0).contiguous()


def _edge_index(to: Tensor, origin: Tensor, count: int) -> Tensor:
    """Row in :func:`_edges` of the edges from keypoints ``origin`` to keypoints ``to``."""
    return to * count + origin


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of vectors whose coordinates lie along dimension 1."""
    (a, b, c), (x, y, z) = first.unbind(1), second.unbind(1)
    return (a * x).addcmul_(b, y).addcmul_(c, z)


def _fit(features: Callable[[slice], Tensor], visible: Tensor, members: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Fits from the sufficient statistics, accumulated chunk by chunk; samples x features is never held at once.

    features: rows -> (R, kinds, S) in [0, 1]; members: for each kind of feature, the keypoints (F, n) that it needs; the last kind's
    counts are returned.
    """
    kinds, total = len(members), len(members[0])
    if total == 0:
        return torch.zeros(0, 2 * kinds, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    seen = None if visible.all() else visible.T.contiguous()
    chunk = max(1, CHUNK_VALUES // (len(visible) * kinds))
    logs, counts = [], []
    for start in range(0, total, chunk):
        rows = slice(start, start + chunk)
        u = features(rows).clamp_(STATISTICS_CLAMP, 1 - STATISTICS_CLAMP)
        both, count = [u, 1 - u], u.new_full(u.shape[:2], len(visible))
        if seen is not None:
            mask = torch.stack([seen[m[rows]].all(1) for m in members], dim=1)
            both, count = [torch.where(mask, values, 1.0) for values in both], mask.sum(2)
        logs.append(torch.stack([_log_sum(values) for values in both], dim=-1) / count[..., None])
        counts.append(count[:, -1].long())
    mean_logs = torch.cat(logs)
    fitted = beta.fit_from_logs(mean_logs[..., 0], mean_logs[..., 1])
    return torch.stack(fitted, dim=-1).flatten(1), torch.cat(counts)


def _log_sum(values: Tensor) -> Tensor:
    """Sum (...) in float64 of the logarithms of clamped values (..., S): of products of a few, since a logarithm costs as much as many."""
    whole = torch.nn.functional.pad(values, (0, -values.shape[-1] % FACTORS), value=1.0)
    return whole.unflatten(-1, (FACTORS, -1)).prod(-2).log().sum(-1, dtype=torch.float64)
