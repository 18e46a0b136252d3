"""Which keypoints to place first: start edge, placement order, qualifying features (published incremental placement)."""

import torch


def extreme_edge(edge1, edge2, ratio, longest=False):
    """The edge never found longer (``longest``: never shorter) than another one, as (a, b).

    edge1, edge2: (E, 2) pairs of edges; ratio: (E,) length of the first in units of both; exactly 0.5 says nothing.
    First in row-major order; if the ratios contradict each other so that none is left, the first edge ever disqualified.
    """
    first_loses = ratio < 0.5 if longest else ratio > 0.5
    decided = ratio != 0.5
    loser = torch.where(first_loses[:, None], edge1, edge2)[decided].tolist()
    winner = torch.where(first_loses[:, None], edge2, edge1)[decided].tolist()
    losers = {tuple(e) for e in loser}
    candidates = sorted({tuple(e) for e in winner} - losers)
    return candidates[0] if candidates else min(losers)


def qualifying_edge_pairs(edge1, edge2, placed, candidate):
    """(E,) bool: pairs that touch ``candidate`` and hold at least three incidences of placed keypoints.

    placed: (K,) bool. A placed keypoint that belongs to both edges counts twice.
    """
    both = torch.cat([edge1, edge2], dim=1)
    return (both == candidate).any(1) & (placed[both].sum(1) >= 3)


def qualifying_tets(triangle, vertex, placed, candidate):
    """(T,) bool: tetrahedra of ``candidate`` and three placed keypoints."""
    corners = torch.cat([triangle, vertex[:, None]], dim=1)
    return (corners == candidate).any(1) & (placed[corners].sum(1) == 3)


def placement_order(edge1, edge2, ratio, start, count):
    """Keypoints in the order of placement after the ``start`` edge (a, b): a list of labels.

    Repeatedly the free keypoint with the smallest share "its edge / both edges" over all qualifying pairs; it ends
    early when no free keypoint qualifies. Ties go to the lower label.
    """
    placed = torch.zeros(count, dtype=torch.bool)
    placed[list(start)] = True
    order = []
    while not placed.all():
        shares = [_smallest_share(edge1, edge2, ratio, placed, k) for k in range(count)]
        best = min(range(count), key=shares.__getitem__)
        if shares[best] == float("inf"):
            break
        order.append(best)
        placed[best] = True
    return order


def _smallest_share(edge1, edge2, ratio, placed, candidate):
    if placed[candidate]:
        return float("inf")
    use = qualifying_edge_pairs(edge1, edge2, placed, candidate)
    in_first, in_second = (edge1[use] == candidate).any(1), (edge2[use] == candidate).any(1)
    shares = torch.cat([ratio[use][in_first], 1 - ratio[use][in_second]])
    return float(shares.min()) if len(shares) else float("inf")
