"""Prediction files: JSON lines, one per pair, ``{"pair": name, "points": [[x, y], ...]}`` in original pixels.

The points stand in the order of the pair's keypoints. A point that was not found is ``[null, null]`` (or NaN) and counts as wrong.
What else may be odd about a file never improves a score: a missing pair, a pair with the wrong number of points and a pair that
occurs twice are bad input (an error, or all points wrong with ``--on-bad-input skip``); pairs nobody asked for are ignored and counted.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from semalign3d_core.evaluation.keypoints.pairs import EvaluationPair
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import read_text, shown, write_text


def write_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Writes {pair: (Q, 2) points} in the order of the dictionary."""
    write_text(path, "".join(_line(name, points) for name, points in predictions.items()))


def _line(name, points):
    plain = [[float(v) if np.isfinite(v) else None for v in point] for point in points]
    return json.dumps({"pair": name, "points": plain}) + "\n"


def read_predictions(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a file as ({pair: (Q, 2) float64 points}, {pair: problem}); lines of another format raise :class:`FileFormatError`."""
    path, points, problems = Path(path), {}, {}
    text = read_text(path, "save it as UTF-8", "--predictions needs a file of JSON lines")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, found = _parse(path, number, line)
        if name in points:
            problems[name] = f"{path}:{number}: pair {name} was predicted before; remove one of the lines"
        points[name] = found
    return points, problems


def _parse(path, number, line):
    expected = 'expected {"pair": "<name>", "points": [[x, y], ...]}'
    try:
        content = json.loads(line)
        name, points = content["pair"], content["points"]
        found = np.array([[np.nan if v is None else v for v in point] for point in points], dtype=np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path}:{number}: {type(error).__name__} {shown(error)}; {expected}") from error
    if not isinstance(name, str) or len(found) != len(points):
        raise FileFormatError(f"{path}:{number}: {expected}")
    return name, found


def problem_of(pair: EvaluationPair, points: Mapping[str, np.ndarray], problems: Mapping[str, str]) -> str:
    """Why the prediction of an :class:`EvaluationPair` cannot be scored, or ""."""
    if pair.name in problems:
        return problems[pair.name]
    if pair.name not in points:
        return "no prediction for this pair"
    found, expected = len(points[pair.name]), len(pair.labels)
    return "" if found == expected else f"{found} points predicted, the pair has {expected} keypoints"
