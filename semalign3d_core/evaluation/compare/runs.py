"""The folders of finished evaluations, read again: the same pairs, the predictions of each, scored by the same code."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semalign3d_core.datasets import open_dataset
from semalign3d_core.evaluation.keypoints.pairs import EvaluationPair, keypoint_pair, read_pairs
from semalign3d_core.evaluation.keypoints.predictions import problem_of, read_predictions
from semalign3d_core.evaluation.keypoints.scoring import PairScore, score_pair, skipped_pair
from semalign3d_core.evaluation.run.config import EvaluationConfig
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import read_json

CHOICES = ("split", "layout", "limit", "threshold")  # of a configuration, besides data set and categories: which pairs, how judged


@dataclass(frozen=True)
class Run:
    """A finished evaluation. name: unique;  results: its results.json;  scores: of its pairs, in the data set's order."""

    name: str
    folder: Path
    results: dict[str, Any]
    scores: list[PairScore]


def read_runs(named: Sequence[str], dataset: Path | None = None) -> list[Run]:
    """The runs in folders, ``FOLDER`` or ``NAME=FOLDER``; dataset: where the data set is now, if it was moved.

    Raises :class:`InputError` unless all are of the same pairs, judged in the same way.
    """
    found = [(*_split(text), read_json(_split(text)[1] / "results.json")) for text in named]
    names = [name or results.get("method", "") for name, _, results in found]
    for name, (_, folder, results) in zip(names, found, strict=True):
        if not {"all", "config", "hashes"} <= set(results) or "pck" not in results["all"]:
            raise FileFormatError(
                f"{folder / 'results.json'} is no result of an evaluation by keypoints; give the output folder of eval_spair"
            )
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} runs are called {name!r}: name them on the command line, NAME=FOLDER")
        _check_same(found[0], (name, folder, results))
    pairs, alphas = _pairs(found[0][2], dataset)
    return [
        Run(name, folder, results, _scores(pairs, alphas, folder, results)) for name, (_, folder, results) in zip(names, found, strict=True)
    ]


def _split(text):
    name, equals, folder = text.partition("=")
    return (name, Path(folder)) if equals and not Path(text).is_dir() else ("", Path(text))


def _check_same(first, other):
    (_, folder, results), (name, place, found) = first, other
    if results["hashes"]["annotation"] == found["hashes"]["annotation"]:
        return
    differing = [key for key in ("categories", *CHOICES) if results["config"].get(key) != found["config"].get(key)]
    why = "; ".join(f"{key}: {results['config'].get(key)} and {found['config'].get(key)}" for key in differing) or "other annotations"
    raise InputError(f"{folder} and {name} ({place}) are of other pairs or judged otherwise ({why}); evaluate both on the same")


def _pairs(results, dataset):
    """(the pairs that a run was asked for, its alphas)."""
    known = results["config"]
    options = {key: known[key] for key in CHOICES}
    config = EvaluationConfig(
        dataset or Path(known["dataset"]), kind=known["kind"], categories=tuple(known["categories"]), on_bad_input="skip", **options
    )
    pairs = read_pairs(open_dataset(config.dataset, config.kind), config, keypoint_pair)
    return pairs, tuple(float(alpha) for alpha in results["all"]["pck"])


def _scores(pairs: list[EvaluationPair], alphas: Sequence[float], folder: Path, results: dict[str, Any]) -> list[PairScore]:
    points, problems = read_predictions(folder / "predictions.jsonl")
    reasons = {entry["pair"]: entry["reason"] for entry in results["skipped"]}
    found = []
    for pair in pairs:
        problem = pair.problem or (problem_of(pair, points, problems) if pair.labels else "")
        if problem:
            found.append(skipped_pair(pair, reasons.get(pair.name, problem), alphas))
        else:
            found.append(score_pair(pair, points.get(pair.name, np.zeros((0, 2))), alphas))
    return found
