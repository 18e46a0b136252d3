"""Keypoint average precision (KAP; Mariotti et al., SphericalMaps, CVPR 2024): is a keypoint found, and is its absence noticed?

A source keypoint contributes the largest similarity near its target position as a positive sample and the largest one elsewhere
as a negative; a keypoint that the target does not show contributes a negative only. Three variants are in use:

* ``visible_only`` (default): as described; near = cells whose index is within the radius. Literature and later evaluation code.
* ``as_released``: what that later code returns: near and far samples of every source keypoint, an invisible target
  standing at the image corner. Published numbers may come from it.
* ``spherical``: the first release: near is decided at the upper left pixel of a cell, and the nearest cell is always near.

Say which one, and whether scores are pooled over pairs or averaged per image, with every number: they differ.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from semalign3d_core.metrics.aggregate import alpha_key
from semalign3d_core.metrics.average_precision import average_precision
from semalign3d_core.runtime.errors import InputError, choice


@dataclass(frozen=True)
class KapPair:
    """What KAP needs of one pair.

    similarity:     (K, n * n) of every source keypoint to the cells (row-major) of a square target grid; higher is more alike
    target:         (K, 2) true positions on the square canvas of ``side`` pixels that the n x n cells cover
    source_visible, target_visible: (K) bool
    threshold:      reference length on the canvas (longest side of the target's box)
    """

    similarity: np.ndarray
    target: np.ndarray
    source_visible: np.ndarray
    target_visible: np.ndarray
    threshold: float
    side: float

    def __post_init__(self) -> None:
        visible = np.asarray(self.source_visible, bool)
        if not np.isfinite(np.asarray(self.similarity)[visible]).all():
            raise InputError("KAP: similarities of annotated keypoints must be finite; check the features for NaN")
        if self.cells**2 != np.shape(self.similarity)[1]:
            raise InputError(f"KAP: {np.shape(self.similarity)[1]} similarities per keypoint are not a square grid")

    @property
    def cells(self) -> int:
        """Cells per side."""
        return int(round(np.sqrt(np.shape(self.similarity)[1])))

    @cached_property
    def normalised(self) -> np.ndarray:
        """Similarities min-max normalised to [0, 1] over all source-visible keypoints of the pair together; zero if constant."""
        similarity = np.asarray(self.similarity, np.float64)
        rows = similarity[np.asarray(self.source_visible, bool)]
        if not rows.size or rows.max() == rows.min():
            return np.zeros_like(similarity)
        return (similarity - rows.min()) / (rows.max() - rows.min())

    def squared_distances(self, positions: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(K, n * n) squared distances of ``target`` (K, 2) to cells whose columns and rows stand at ``positions`` (n)."""
        dx = positions[None, None, :] - target[:, 0, None, None]
        dy = positions[None, :, None] - target[:, 1, None, None]
        return (dx**2 + dy**2).reshape(len(target), -1)


def samples_as_released(pair: KapPair, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """(positives, negatives), each (K), NaN where the source keypoint is not visible."""
    visible = np.asarray(pair.source_visible, bool)
    positives, negatives = _region_maxima(pair, alpha)
    return np.where(visible, positives, np.nan), np.where(visible, negatives, np.nan)


def samples_visible_only(pair: KapPair, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The samples (positives, negatives), each (K).

    A positive only where both images show the keypoint (else NaN); where the target does not, the negative is the maximum of the whole
    map.
    """
    source, target = np.asarray(pair.source_visible, bool), np.asarray(pair.target_visible, bool)
    positives, negatives = _region_maxima(pair, alpha)
    negatives = np.where(target, negatives, pair.normalised.max(axis=1))
    return np.where(source & target, positives, np.nan), np.where(source, negatives, np.nan)


def samples_spherical(pair: KapPair, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`samples_visible_only` with the regions of the first release: in pixels, strict, the nearest cell always near."""
    source, target = np.asarray(pair.source_visible, bool), np.asarray(pair.target_visible, bool)
    similarity, points = pair.normalised, _targets_or_corner(pair)
    pixels = np.floor(np.arange(pair.cells) * pair.side / pair.cells)  # nearest-neighbour sub-sampling of the pixel grid
    distance = pair.squared_distances(pixels, points)
    near = distance < (alpha * pair.threshold) ** 2
    near[np.arange(len(near)), distance.argmin(axis=1)] = True
    near &= target[:, None]
    positives = np.where(near, similarity, -np.inf).max(axis=1)
    negatives = np.where(near, -np.inf, similarity).max(axis=1)
    negatives = np.where(np.isfinite(negatives), negatives, np.nan)  # the region covers the whole map: nothing elsewhere
    return np.where(source & target, positives, np.nan), np.where(source, negatives, np.nan)


KAP_VARIANTS = {"visible_only": samples_visible_only, "as_released": samples_as_released, "spherical": samples_spherical}


def kap_samples(pair: KapPair, alpha: float, variant: str = "visible_only") -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) of one pair in the order keypoint, then positive before negative."""
    positives, negatives = choice("KAP variant", variant, KAP_VARIANTS)(pair, alpha)
    scores = np.stack([positives, negatives], axis=1).ravel()
    labels = np.tile([1, 0], len(positives))
    return scores[~np.isnan(scores)], labels[~np.isnan(scores)]


class KapAccumulator:
    """Collects pairs of several categories; AP is pooled over a category's pairs, and averaged over its images.

    A pair without source keypoints has no sample: it is skipped and counted. A pair without positive samples counts 0 per image.
    """

    def __init__(self, alphas: Sequence[float], variant: str = "visible_only") -> None:
        choice("KAP variant", variant, KAP_VARIANTS)
        self.alphas, self.variant = tuple(float(a) for a in alphas), variant
        self._samples: defaultdict[str, list] = defaultdict(list)
        self._skipped: defaultdict[str, int] = defaultdict(int)

    def add(self, category: str, pair: KapPair) -> np.ndarray | None:
        """Adds a :class:`KapPair`. Returns its AP (A), or None if it has no keypoints."""
        return self.add_samples(category, int(np.sum(pair.source_visible)), [kap_samples(pair, a, self.variant) for a in self.alphas])

    def add_samples(self, category: str, points: int, samples: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
        """As :meth:`add`, of a pair's number of source keypoints and its :func:`kap_samples` at each alpha."""
        if not points:
            self._skipped[category] += 1
            return None
        self._samples[category].append((points, samples))
        return np.array([average_precision(*s) for s in samples])

    def category_summary(self, category: str) -> dict[str, Any]:
        """``{"kap": {"0.1": {"pooled", "per_image"}}, "pairs", "points", "skipped"}``, in percent; None without pairs."""
        entries = self._samples[category]
        scores = {alpha_key(a): self._scores(entries, i) for i, a in enumerate(self.alphas)}
        points = sum(n for n, _ in entries)
        return {"kap": scores, "pairs": len(entries), "points": points, "skipped": self._skipped[category]}

    def summary(self) -> dict[str, Any]:
        """``{"variant", "per_category", "all"}``; over all: ``pooled`` and ``per_image``, each as plain and as weighted mean of categories.

        Weights are pairs for ``per_image`` and source keypoints for ``pooled``.
        """
        names = sorted({*self._samples, *self._skipped})
        per_category = {c: self.category_summary(c) for c in names}
        scored = [s for s in per_category.values() if s["pairs"]]
        over_all = {"kap": {alpha_key(a): _over_all(scored, alpha_key(a)) for a in self.alphas}}
        for count in ("pairs", "points", "skipped"):
            over_all[count] = sum(s[count] for s in per_category.values())
        return {"variant": self.variant, "per_category": per_category, "all": over_all}

    def _scores(self, entries, alpha_index):
        if not entries:
            return {"pooled": None, "per_image": None}
        samples = [s[alpha_index] for _, s in entries]
        pooled = average_precision(np.concatenate([s for s, _ in samples]), np.concatenate([y for _, y in samples]))
        return {"pooled": 100 * pooled, "per_image": 100 * float(np.mean([average_precision(*s) for s in samples]))}


def _over_all(scored, key):
    names = ("pooled_mean_of_categories", "pooled_point_weighted", "per_image_mean_of_categories", "per_image_pair_weighted")
    if not scored:
        return dict.fromkeys(names)
    pooled, image = ([s["kap"][key][name] for s in scored] for name in ("pooled", "per_image"))
    points, pairs = [s["points"] for s in scored], [s["pairs"] for s in scored]
    values = np.mean(pooled), np.average(pooled, weights=points), np.mean(image), np.average(image, weights=pairs)
    return dict(zip(names, (float(v) for v in values), strict=True))


def _targets_or_corner(pair):
    return np.where(np.asarray(pair.target_visible, bool)[:, None], np.asarray(pair.target, np.float64), 0.0)


def _region_maxima(pair, alpha):
    """(near, far) maxima (K) of similarity times region indicator: an empty region scores 0, as published."""
    scale = pair.cells / pair.side  # no half-cell shift: the cell's index is its position
    distance = pair.squared_distances(np.arange(pair.cells, dtype=np.float64), _targets_or_corner(pair) * scale)
    near = distance <= (alpha * pair.threshold * scale) ** 2
    similarity = pair.normalised
    return (similarity * near).max(axis=1), (similarity * ~near).max(axis=1)
