"""From predicted points to scores, pair by pair and summarised.

Every pair that was asked for counts. One that had to be skipped (bad input, no usable prediction) counts with all its points
wrong, so that a skip can never raise a score; what the scored pairs alone would give stands beside it, as ``scored_only``.
Pairs without common keypoints have no score for any method; they enter no mean and are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semalign3d_core.evaluation.keypoints.pairs import EvaluationPair
from semalign3d_core.metrics.aggregate import PckAccumulator
from semalign3d_core.metrics.breakdown import BreakdownAccumulator
from semalign3d_core.metrics.pck import pck_correct, pck_dagger_correct, pck_dagger_correct_inclusive


@dataclass(frozen=True)
class PairScore:
    """A pair and which of its Q points are right at each of A alphas.

    pair:    :class:`~semalign3d_core.evaluation.keypoints.pairs.EvaluationPair`
    points:  (Q, 2) predicted pixels, None if skipped
    correct: (Q, A) bool, PCK;  dagger, dagger_inclusive: (Q, A) bool, both published variants of PCK-dagger
    problem: why it was skipped, "" if it was scored
    """

    pair: EvaluationPair
    points: np.ndarray | None
    correct: np.ndarray
    dagger: np.ndarray
    dagger_inclusive: np.ndarray
    problem: str = ""

    @property
    def share(self) -> np.ndarray:
        """(A) share of right points; NaN without common keypoints."""
        return self.correct.mean(0) if len(self.correct) else np.full(self.correct.shape[1], np.nan)

    @property
    def unscorable(self) -> bool:
        """True for a pair without common keypoints: it has no score, whatever the method."""
        return not self.problem and not len(self.correct)


def score_pair(pair: EvaluationPair, points: Any, alphas: Sequence[float]) -> PairScore:
    """The :class:`PairScore` of ``points`` (Q, 2) predicted for an evaluation pair; points that are not finite are wrong."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    truth, common = pair.target_points.astype(np.float64), np.ones(len(pair.labels), bool)
    if not len(common):
        nothing = np.zeros((0, len(alphas)), bool)
        return PairScore(pair, points, nothing, nothing, nothing)
    return PairScore(
        pair,
        points,
        pck_correct(points, truth, pair.unit, alphas),
        pck_dagger_correct(points, truth, common, pair.unit, alphas),
        pck_dagger_correct_inclusive(points, truth, common, pair.unit, alphas),
    )


def skipped_pair(pair: EvaluationPair, problem: str, alphas: Sequence[float]) -> PairScore:
    """The :class:`PairScore` of a pair that could not be evaluated: all points wrong (at least one)."""
    wrong = np.zeros((max(pair.lost_points, 1), len(alphas)), bool)
    return PairScore(pair, None, wrong, wrong, wrong, problem)


def summarise(scores: Sequence[PairScore], alphas: Sequence[float]) -> dict[str, Any]:
    """``{"per_category": {...}, "all": {...}}`` of result files; see :class:`PckAccumulator` for the names of the means."""
    summary = _accumulated(scores, alphas, lambda score: score.correct)
    only = _accumulated([s for s in scores if not s.problem], alphas, lambda score: score.correct)
    variants = {
        "pck_dagger": _accumulated(scores, alphas, lambda score: score.dagger),
        "pck_dagger_inclusive": _accumulated(scores, alphas, lambda score: score.dagger_inclusive),
    }
    subset = _accumulated(scores, alphas, lambda score: score.correct if score.problem else score.correct[score.pair.confusable])
    for category, entry in [*summary["per_category"].items(), (None, summary["all"])]:
        chosen = [s for s in scores if category is None or s.pair.category == category]
        for name, variant in [*variants.items(), ("pck_scored_only", only)]:
            place = variant["all"] if category is None else variant["per_category"].get(category, {"pck": None})
            entry[name] = place["pck"]
        confusable = subset["all"] if category is None else subset["per_category"][category]
        entry["geometry_aware"] = {key: confusable[key] for key in ("pck", "pairs", "points")}
        entry["without_common_keypoints"] = sum(s.unscorable for s in chosen)
        entry["skipped"] = sum(bool(s.problem) or s.unscorable for s in chosen)
    return summary


def breakdowns(scores: Sequence[PairScore], alphas: Sequence[float]) -> dict[str, Any]:
    """PCK by viewpoint, scale, truncation and occlusion over all categories; see :class:`BreakdownAccumulator`.

    A pair whose annotation could not be read has no attributes and counts as unlabelled.
    """
    accumulator = BreakdownAccumulator(alphas)
    for score in scores:
        accumulator.add(score.pair.category, score.correct, {} if score.pair.record is None else score.pair.record.attributes)
    return accumulator.summary()


def curve(scores: Sequence[PairScore], alphas: Sequence[float]) -> list[tuple[float, float]]:
    """[(alpha, PCK per image weighted by pairs)] of scored points at any alphas."""
    fine = [s if s.problem else score_pair(s.pair, s.points, alphas) for s in scores]
    wrong = [skipped_pair(s.pair, s.problem, alphas) if s.problem else s for s in fine]
    over_all = _accumulated(wrong, alphas, lambda score: score.correct)["all"]["pck"]
    return [(alpha, values["pair_weighted"]) for alpha, values in zip(alphas, over_all.values(), strict=True)]


def _accumulated(scores, alphas, what):
    accumulator = PckAccumulator(alphas)
    for score in scores:
        accumulator.add(score.pair.category, what(score))
    return accumulator.summary()
