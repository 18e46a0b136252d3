"""From correct keypoints to the numbers of a table: per image and per point, per category and over all, always both and named."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from semalign3d_core.runtime.errors import InputError


def alpha_key(alpha: float) -> str:
    """The name of an alpha in result files: 0.1 -> "0.1"."""
    return f"{alpha:g}"


class PckAccumulator:
    """Collects pairs of several categories and summarises them.

    ``alphas`` (A). A pair without common keypoints has no score: it is skipped and counted, and appears in no mean.
    Callers give every other pair, with predictions that are missing marked as wrong (NaN positions do that).

    Names of the numbers (percent):

    * ``per_image``: mean over pairs of the share of correct keypoints of a pair
    * ``per_point``: share of correct keypoints, all pairs of the category pooled
    * ``mean_of_categories``: plain mean over categories of ``per_image`` (the "All" of SemAlign3D's Table)
    * ``pair_weighted``: mean of ``per_image`` weighted by pairs (the "All" of GeoAware-SC)
    * ``mean_of_categories_per_point``: plain mean over categories of ``per_point`` (the "All" of SphericalMaps)
    * over all, ``per_point``: pooled over all categories
    """

    def __init__(self, alphas: np.ndarray | Sequence[float]) -> None:
        self.alphas = tuple(float(a) for a in alphas)
        self._shares: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._correct: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(self.alphas), np.int64))
        self._points: defaultdict[str, int] = defaultdict(int)
        self._skipped: defaultdict[str, int] = defaultdict(int)

    def add(self, category: str, correct: np.ndarray) -> np.ndarray | None:
        """Adds one pair: ``correct`` (n, A) bool of its n common keypoints. Returns its share of correct keypoints (A) or None."""
        correct = np.asarray(correct, bool)
        if correct.ndim != 2 or correct.shape[1] != len(self.alphas):
            raise InputError(f"correct keypoints of shape {correct.shape}: expected (keypoints, {len(self.alphas)} alphas)")
        if not len(correct):
            self._skipped[category] += 1
            return None
        share = correct.mean(axis=0)
        self._shares[category].append(share)
        self._correct[category] += correct.sum(axis=0)
        self._points[category] += len(correct)
        return share

    def categories(self) -> list[str]:
        """Categories seen so far, sorted; also those with skipped pairs only."""
        return sorted({*self._shares, *self._skipped})

    def category_summary(self, category: str) -> dict[str, Any]:
        """``{"pck": {"0.1": {"per_image", "per_point"}, ...}, "pairs", "points", "skipped"}``; scores are None without pairs."""
        pairs, points = len(self._shares[category]), self._points[category]
        image = _percent(np.sum(self._shares[category], axis=0), pairs, len(self.alphas))
        point = _percent(self._correct[category], points, len(self.alphas))
        scores = {alpha_key(a): {"per_image": image[i], "per_point": point[i]} for i, a in enumerate(self.alphas)}
        return {"pck": scores, "pairs": pairs, "points": points, "skipped": self._skipped[category]}

    def summary(self) -> dict[str, dict[str, Any]]:
        """``{"per_category": {name: category_summary}, "all": {"pck": {"0.1": {...}}, "pairs", "points", "skipped"}}``."""
        per_category = {c: self.category_summary(c) for c in self.categories()}
        scored = [s for s in per_category.values() if s["pairs"]]
        over_all = {"pck": {alpha_key(a): _over_all(scored, alpha_key(a)) for a in self.alphas}}
        for count in ("pairs", "points", "skipped"):
            over_all[count] = sum(s[count] for s in per_category.values())
        return {"per_category": per_category, "all": over_all}


def weighted_mean(scores: list[list[float]], weights: list[int]) -> np.ndarray:
    """(A) mean of category ``scores`` (C, A) with ``weights`` (C): numbers of pairs for per-image, of keypoints for per-point scores."""
    return np.average(np.asarray(scores, np.float64), axis=0, weights=np.asarray(weights, np.float64))


def _over_all(scored, key):
    names = ("mean_of_categories", "pair_weighted", "mean_of_categories_per_point", "per_point")
    if not scored:
        return dict.fromkeys(names)
    image = [[s["pck"][key]["per_image"]] for s in scored]
    point = [[s["pck"][key]["per_point"]] for s in scored]
    values = (
        np.mean(image),
        weighted_mean(image, [s["pairs"] for s in scored])[0],
        np.mean(point),
        weighted_mean(point, [s["points"] for s in scored])[0],
    )
    return dict(zip(names, (float(v) for v in values), strict=True))


def _percent(total, count, size):
    return [None] * size if not count else [100.0 * float(v) / count for v in np.broadcast_to(total, size)]
