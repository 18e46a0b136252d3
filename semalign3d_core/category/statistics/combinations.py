"""Which keypoints form an edge pair, and which a triangle with a fourth vertex."""

from itertools import combinations

import torch


def edges(count):
    """All edges (a < b) of ``count`` keypoints in lexicographic order, (count (count - 1) / 2, 2) int64."""
    return torch.triu_indices(count, count, offset=1).T.contiguous()


def edge_pairs(count):
    """All unordered pairs of distinct edges, sharing a keypoint or not: edge1 (E, 2), edge2 (E, 2), lexicographic."""
    edge = edges(count)
    first, second = torch.triu_indices(len(edge), len(edge), offset=1)
    return edge[first], edge[second]


def tetrahedra(count):
    """All 4-subsets a < b < c < d in lexicographic order, (Q, 4) int64."""
    return torch.tensor(list(combinations(range(count), 4)), dtype=torch.int64).reshape(-1, 4)


def triangles_with_vertex(count):
    """Every tetrahedron read as triangle and fourth vertex, in its four cyclic shifts: triangle (T, 3), vertex (T,)."""
    tets = tetrahedra(count)
    shifts = torch.stack([tets, tets.roll(-1, 1), tets.roll(-2, 1), tets.roll(-3, 1)], dim=1).reshape(-1, 4)
    return shifts[:, :3].contiguous(), shifts[:, 3].contiguous()
