"""How a matcher carries the points of a source to all its targets, by what it offers; see :mod:`semalign3d_core.matchers`."""

import numpy as np
import torch

from semalign3d_core.evaluation.keypoints.kap import feature_similarity
from semalign3d_core.evaluation.run.methods import rates_cells, uses_mirror


def carrier(matcher, source, queries, device):
    """A function (query, target) -> :class:`Matches` for the queries of one source.

    source, target: :class:`~semalign3d_core.evaluation.run.images.SeenImage`;  queries: :class:`~semalign3d_core.evaluation.run.work.Query`
    """
    if hasattr(matcher, "lift"):
        return _lifted_once(matcher, source, queries, device)
    return _with_mirror(matcher, source, device) if uses_mirror(matcher) else _plain(matcher, source, device)


def rating(matcher, source, points):
    """A function (target) -> (K, cells * cells) of how likely ``points`` (K, 2) of the source are at each cell of the target."""
    if not rates_cells(matcher):
        return lambda target: feature_similarity(source.features, target.features, points)
    lifted = matcher.lift(source.seen, points)
    return lambda target: matcher.score_maps(lifted, target.seen)


def _plain(matcher, source, device):
    return lambda query, target: matcher.match(source.seen, target.seen, torch.from_numpy(query.points).to(device))


def _lifted_once(matcher, source, queries, device):
    """The pairs of a source share most of their points: each is lifted once."""
    points, rows = np.unique(np.concatenate([query.points for query in queries]), axis=0, return_inverse=True)
    lifted = matcher.lift(source.seen, torch.from_numpy(points).to(device))
    parts = np.split(rows.ravel(), np.cumsum([len(query.points) for query in queries])[:-1])
    rows_of = {query.name: torch.from_numpy(part).to(device) for query, part in zip(queries, parts, strict=True)}
    return lambda query, target: matcher.place(lifted, rows_of[query.name], target.seen)


def _with_mirror(matcher, source, device):
    def carry(query, target):
        points, partners = (torch.from_numpy(values).to(device) for values in (query.points, query.partners))
        permutation = torch.where(partners < 0, torch.arange(len(partners), device=device), partners)
        return matcher.match(source.seen, target.seen, points, source.mirrored, permutation, partners >= 0)

    return carry
