"""How runs differ: each against the first, pair by pair, with intervals by the same draws of images."""

from collections.abc import Sequence
from typing import Any

from semalign3d_core.evaluation.compare.runs import Run
from semalign3d_core.evaluation.keypoints.scoring import summarise
from semalign3d_core.evaluation.keypoints.uncertainty import COUNTED, image_bootstrap, intervals_of, score_draws
from semalign3d_core.metrics.bootstrap import interval

KNOWS = {"points anywhere": "nothing", "the method is told": "points are different keypoints", "predictions": "unknown"}


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The dictionary of ``compare.json``.

    ``runs``: per run its name, folder, what it was told of the points, scores and intervals over all and per category, and the difference
    to the first run, each with its interval;  ``winners``: per category and alpha the best run per image and all that are as good, the
    next one, and whether the interval of their difference leaves out 0.
    """
    alphas = tuple(float(alpha) for alpha in runs[0].results["all"]["pck"])
    bootstrap = image_bootstrap(runs[0].scores)
    summaries = [summarise(run.scores, alphas) for run in runs]
    draws = [score_draws(run.scores, alphas, COUNTED["pck"], bootstrap) for run in runs]
    entries = []
    for run, summary, drawn in zip(runs, summaries, draws, strict=True):
        places = {"all": (summary["all"]["pck"], drawn["all"], summaries[0]["all"]["pck"], draws[0]["all"])}
        for name, entry in summary["per_category"].items():
            places[name] = (
                entry["pck"],
                drawn["per_category"][name],
                summaries[0]["per_category"][name]["pck"],
                draws[0]["per_category"][name],
            )
        found = {name: _beside(*place) for name, place in places.items()}
        entry = {"name": run.name, "folder": str(run.folder), "told": told(run), "all": found.pop("all"), "per_category": found}
        entries.append(entry | {"pairs": summary["all"]["pairs"], "skipped": summary["all"]["skipped"]})
    names = [run.name for run in runs]
    winners = {
        category: {alpha: _winner(names, [s["per_category"][category]["pck"][alpha]["per_image"] for s in summaries],
                                  [d["per_category"][category][alpha]["per_image"] for d in draws]) for alpha in summaries[0]["all"]["pck"]}
        for category in summaries[0]["per_category"]
    }  # fmt: skip
    return {"runs": entries, "winners": winners}


def told(run: Run) -> str:
    """What a run's method knew of the points, shortly."""
    text = run.results.get("protocol", {}).get("queries", "predictions")
    return next(short for start, short in KNOWS.items() if text.startswith(start))


def _beside(scores, draws, first_scores, first_draws):
    """{alpha: {number: {"percent", "interval", "difference", "difference_interval"}}}."""
    found: dict[str, Any] = {}
    for alpha, values in scores.items():
        ends = intervals_of(draws[alpha])
        found[alpha] = {}
        for number, percent in values.items():
            difference = None if percent is None else percent - first_scores[alpha][number]
            spread = None if percent is None else interval(draws[alpha][number] - first_draws[alpha][number])
            found[alpha][number] = {
                "percent": percent, "interval": ends[number], "difference": difference, "difference_interval": spread
            }  # fmt: skip
    return found


def _winner(names, scores, draws):
    known = [index for index, score in enumerate(scores) if score is not None]
    if not known:
        return None
    best, *rest = sorted(known, key=lambda index: -scores[index])
    equal = [names[index] for index in known if scores[index] == scores[best]]
    found = {"winner": names[best], "winners": equal, "percent": scores[best], "next": None, "clear": None}
    if rest:
        ends = interval(draws[best] - draws[rest[0]])
        found |= {
            "next": names[rest[0]],
            "difference": scores[best] - scores[rest[0]],
            "interval": ends,
            "clear": ends is not None and ends[0] > 0,
        }
    return found


def differing_pairs(runs: Sequence[Run], alpha_index: int, count: int) -> list[int]:
    """The ``count`` pairs on which the shares of right points differ most between runs, at least ``1`` point, most points first."""
    spread = []
    for index, scores in enumerate(zip(*(run.scores for run in runs), strict=True)):
        if any(score.problem or not len(score.correct) for score in scores):
            continue
        right = [int(score.correct[:, alpha_index].sum()) for score in scores]
        if max(right) > min(right):
            spread.append(((max(right) - min(right)) / len(scores[0].correct), len(scores[0].correct), -index))
    return [-place for _, _, place in sorted(spread, reverse=True)[:count]]
