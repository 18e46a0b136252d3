"""Intervals of all scores of an evaluation, by drawing images; see :mod:`semalign3d_core.metrics.bootstrap`."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from semalign3d_core.evaluation.keypoints.scoring import PairScore
from semalign3d_core.metrics.aggregate import alpha_key
from semalign3d_core.metrics.average_precision import average_precision
from semalign3d_core.metrics.bootstrap import DRAWS, ImageBootstrap, interval, share
from semalign3d_core.metrics.breakdown import BREAKDOWNS

KAP_DRAWS = 200  # each sorts the samples of all pairs
PROTOCOL = {
    "intervals": f"95 % of {DRAWS} bootstrap draws of images, category by category; a pair counts as often as its source times its target",
}
Draws = dict[str, Any]

# name in results -> the (Q, A) right points of a score that count, None for a pair that does not
COUNTED: dict[str, Callable[[PairScore], np.ndarray | None]] = {
    "pck": lambda score: score.correct,
    "pck_dagger": lambda score: score.dagger,
    "pck_dagger_inclusive": lambda score: score.dagger_inclusive,
    "pck_scored_only": lambda score: None if score.problem else score.correct,
    "geometry_aware": lambda score: score.correct if score.problem else score.correct[score.pair.confusable],
}


def image_bootstrap(scores: Sequence[Any], draws: int = DRAWS) -> ImageBootstrap:
    """The draws for a list of scores with ``pair``; a pair that could not be read has images of its own."""
    ends = [_ends(score.pair) for score in scores]
    return ImageBootstrap([score.pair.category for score in scores], [a for a, _ in ends], [b for _, b in ends], draws)


def _ends(pair):
    if pair.record is None:
        return (pair.name, "source"), (pair.name, "target")
    return tuple((side.category, side.name) for side in (pair.record.source, pair.record.target))


def score_draws(scores: Sequence[PairScore], alphas: Sequence[float], counted: Callable, bootstrap: ImageBootstrap) -> Draws:
    """``{"per_category": {name: {alpha: {"per_image": (B,), "per_point": (B,)}}}, "all": {alpha: {mean: (B,)}}}`` in percent."""
    count = len(alphas)
    right = [counted(score) for score in scores]
    shares = np.array([np.zeros(count) if r is None or not len(r) else r.mean(0) for r in right]).reshape(-1, count)
    points = np.array([np.zeros(count) if r is None else r.sum(0) for r in right]).reshape(-1, count)
    pairs = np.array([[float(r is not None and len(r) > 0)] for r in right])
    lengths = np.array([[0.0 if r is None else len(r)] for r in right])
    sums = [bootstrap.sums(values) for values in (shares, pairs, points, lengths)]
    per_category: Draws = {}
    for name in bootstrap.rows:
        part, whole, right_points, all_points = (found[name] for found in sums)
        image, point = share(part, whole), share(right_points, all_points)
        per_category[name] = {alpha_key(a): {"per_image": image[:, i], "per_point": point[:, i]} for i, a in enumerate(alphas)}
    return {"per_category": per_category, "all": _over_all(per_category, sums, alphas)}


def _over_all(per_category, sums, alphas):
    totals = [sum(found.values()) for found in sums]
    weighted, pooled = share(totals[0], totals[1]), share(totals[2], totals[3])
    found = {}
    for i, key in enumerate(map(alpha_key, alphas)):
        means = {kind: _mean([entry[key][kind] for entry in per_category.values()]) for kind in ("per_image", "per_point")}
        found[key] = {
            "mean_of_categories": means["per_image"],
            "pair_weighted": weighted[:, i],
            "mean_of_categories_per_point": means["per_point"],
            "per_point": pooled[:, i],
        }
    return found


def _mean(draws):
    """Mean over the categories that have a value in a draw."""
    values = np.array(draws)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(0) / known.sum(0)


def intervals_of(draws: Draws) -> Draws:
    """The same nested dictionary with the interval of every array of draws."""
    return {key: intervals_of(value) if isinstance(value, dict) else interval(value) for key, value in draws.items()}


def add_intervals(summary: dict[str, Any], scores: Sequence[PairScore], alphas: Sequence[float]) -> None:
    """Adds ``intervals`` to every category of a summary and to ``all``: {metric: {alpha: {name of the number: [low, high]}}}."""
    bootstrap = image_bootstrap(scores)
    for metric, counted in COUNTED.items():
        found = intervals_of(score_draws(scores, alphas, counted, bootstrap))
        summary["all"].setdefault("intervals", {})[metric] = found["all"]
        for name, entry in summary["per_category"].items():
            entry.setdefault("intervals", {})[metric] = found["per_category"][name]


def add_breakdown_intervals(breakdowns: dict[str, Any], scores: Sequence[PairScore], alphas: Sequence[float]) -> None:
    """Adds ``intervals`` to every level of every attribute of the breakdowns."""
    bootstrap = image_bootstrap(scores)
    for name, levels in BREAKDOWNS.items():
        for value, level in levels.items():

            def counted(score, name=name, value=value):
                known = score.pair.record is not None and score.pair.record.attributes.get(name) == value
                return score.correct if known else None

            breakdowns[name][level]["intervals"] = intervals_of(score_draws(scores, alphas, counted, bootstrap)["all"])


def add_kap_intervals(summary: dict[str, Any], key: str, pairs: Sequence[Any], points: Sequence[int], samples: Sequence[Any]) -> None:
    """Adds ``<key>_intervals``, those of a KAP that stands at ``key`` of the summary.

    points: source keypoints of the pairs, all above 0;  samples: [(scores, labels) at each alpha] of each pair
    """
    bootstrap = image_bootstrap([SimpleNamespace(pair=pair) for pair in pairs], KAP_DRAWS)
    alphas = list(summary["all"]["pck"])
    each = np.array([[average_precision(*found) for found in of_pair] for of_pair in samples]).reshape(-1, len(alphas))
    image, ones = bootstrap.sums(each), bootstrap.sums(np.ones((len(pairs), 1)))
    weight = bootstrap.sums(np.array(points, np.float64)[:, None])
    chosen = {name: [samples[int(row)] for row in rows] for name, rows in bootstrap.rows.items()}
    pooled = {name: _pooled(bootstrap.weights[name], found, len(alphas)) for name, found in chosen.items()}
    for i, alpha in enumerate(alphas):
        by_category = {name: {"pooled": 100 * pooled[name][:, i], "per_image": share(image[name], ones[name])[:, i]} for name in pooled}
        for name, draws in by_category.items():
            summary["per_category"][name].setdefault(f"{key}_intervals", {})[alpha] = intervals_of(draws)
        total = {
            "pooled_mean_of_categories": _mean([draws["pooled"] for draws in by_category.values()]),
            "pooled_point_weighted": _weighted([draws["pooled"] for draws in by_category.values()], [w[:, 0] for w in weight.values()]),
            "per_image_mean_of_categories": _mean([draws["per_image"] for draws in by_category.values()]),
            "per_image_pair_weighted": share(np.sum(list(image.values()), 0), np.sum(list(ones.values()), 0))[:, i],
        }
        summary["all"].setdefault(f"{key}_intervals", {})[alpha] = intervals_of(total)


def _weighted(draws, weights):
    values, by = np.array(draws), np.array(weights)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values * by, 0).sum(0) / np.where(known, by, 0).sum(0)


def _pooled(weights, samples, count):
    """(B, A) average precision of all samples of a category together, every pair weighted as drawn (B, P)."""
    found = []
    for i in range(count):
        scores, labels = (np.concatenate([np.asarray(of_pair[i][part]) for of_pair in samples]) for part in (0, 1))
        pair = np.repeat(np.arange(len(samples)), [len(of_pair[i][0]) for of_pair in samples])
        order = np.argsort(-scores, kind="stable")
        scores, labels, pair = scores[order], labels[order].astype(bool), pair[order]
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, int)
        found.append([_one_draw(draw[pair], labels, last, np.isneginf(scores[last])) for draw in weights])
    return np.array(found).T


def _one_draw(weight, labels, last, never):
    right, seen = np.cumsum(weight * labels)[last], np.cumsum(weight)[last]
    if not len(last) or not right[-1]:
        return np.nan
    precision = np.where(never | (seen == 0), 0.0, right / np.maximum(seen, 1e-12))
    return float(np.sum(np.diff(right / right[-1], prepend=0.0) * precision))
