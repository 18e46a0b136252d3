"""How one process asks a matcher for the points of one source image in all targets; part of the cache's keys of matches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from semalign3d_core.evaluation.keypoints.kap import feature_similarity
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.transfer.matches import Matches


def match_to_targets(matcher: Matcher, source: Any, queries: Any, device: Any) -> Callable[..., Matches]:
    """A function (:class:`Query`, :class:`SeenImage` of its target) -> :class:`Matches` for the queries of one source image."""
    if matcher.uses_mirror:
        return _with_mirror(matcher, source, device)
    # The pairs of a source share most of their points: each is lifted once.
    points, rows = np.unique(np.concatenate([query.points for query in queries]), axis=0, return_inverse=True)
    lifted = matcher.lift(source.seen, torch.from_numpy(points).to(device))
    parts = np.split(rows.ravel(), np.cumsum([len(query.points) for query in queries])[:-1])
    rows_of = {query.name: torch.from_numpy(part).to(device) for query, part in zip(queries, parts, strict=True)}
    return lambda query, target: matcher.place(lifted, rows_of[query.name], target.seen)


def _with_mirror(matcher, source, device):
    def match(query, target):
        points, partners = (torch.from_numpy(values).to(device) for values in (query.points, query.partners))
        permutation = torch.where(partners < 0, torch.arange(len(partners), device=device), partners)
        turned = {"turned": source.turned} if source.turned else {}
        return matcher.match(source.seen, target.seen, points, source.mirrored, permutation, partners >= 0, **turned)

    return match


def rate_cells(matcher: Matcher, source: Any, points: torch.Tensor) -> Callable[[Any], torch.Tensor]:
    """A function (target) -> (K, cells * cells): how likely ``points`` (K, 2) of the source are at each cell of the target."""
    if not matcher.rates_cells:
        return lambda target: feature_similarity(source.features, target.features, points)
    lifted = matcher.lift(source.seen, points)
    return lambda target: matcher.score_maps(lifted, target.seen)
