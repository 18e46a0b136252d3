"""Values of small cases, compared with those that were recorded before: nothing may change that nobody wanted to change.

After a change that is meant to change results: ``RECORD=1 python -m pytest TEST`` writes the files of ``test/data/recorded`` anew;
the difference in git then shows what has changed, and belongs to the review.
"""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "data" / "recorded"
FEW = 6  # numbers that are recorded one by one; of more, weighted means


def check(name, tolerance=1e-6, **values):
    """Compares values (tensors, numbers, texts, dataclasses, dictionaries, sequences) with the record of that name.

    tolerance: of the root mean square of an array; the default is for what is computed in float64.
    """
    found = dict(_leaves(values))
    path = FOLDER / f"{name}.json"
    if os.environ.get("RECORD"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()) + "\n}\n")
    known = json.loads(path.read_text())
    assert found.keys() == known.keys()
    wrong = {key: (known[key], value) for key, value in found.items() if not _same(known[key], json.loads(json.dumps(value)), tolerance)}
    assert not wrong, f"{len(wrong)} of {len(found)} values changed (recorded, now): {dict(list(wrong.items())[:6])}"


def _leaves(value, path=""):
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, tuple | list) and any(not isinstance(item, int | float) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}.{number}")
    elif isinstance(value, torch.Tensor | np.ndarray | tuple | list):
        yield path, _digest(np.asarray(value.detach() if isinstance(value, torch.Tensor) else value))
    elif isinstance(value, float):
        yield path, _digest(np.asarray(value))
    else:
        yield path, value


def _digest(array):
    """Shape, how many numbers are finite, their root mean square, and the numbers, or weighted means of them."""
    flat = array.astype(np.float64).reshape(-1)
    finite = np.isfinite(flat)
    kept = np.where(finite, flat, 0.0)
    norm = math.sqrt((kept**2).mean()) if len(flat) else 0.0
    place = np.arange(1, len(flat) + 1)
    numbers = kept if len(flat) <= FEW else [(kept * np.cos(place * step)).mean() for step in (0, 1, 2, 3)]
    return {"shape": list(array.shape), "finite": int(finite.sum()), "norm": norm, "numbers": [float(number) for number in numbers]}


def _same(known, found, tolerance):
    if not isinstance(known, dict):
        return known == found
    close = np.allclose(found["numbers"], known["numbers"], rtol=0, atol=tolerance * max(known["norm"], 1e-9))
    return known["shape"] == found["shape"] and known["finite"] == found["finite"] and close
