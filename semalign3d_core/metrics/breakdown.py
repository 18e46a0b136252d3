"""SPair-71k's breakdowns: PCK of pairs by difficulty of viewpoint, scale, truncation and occlusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semalign3d_core.metrics.aggregate import PckAccumulator

_DIFFICULTY = {0: "easy", 1: "medium", 2: "hard"}
_WHERE = {0: "none", 1: "source", 2: "target", 3: "both"}
BREAKDOWNS = {"viewpoint_variation": _DIFFICULTY, "scale_variation": _DIFFICULTY, "truncation": _WHERE, "occlusion": _WHERE}


class BreakdownAccumulator:
    """PCK per level of every attribute in :data:`BREAKDOWNS`; pairs without the attribute are left out of it and counted."""

    def __init__(self, alphas: Sequence[float]) -> None:
        self.alphas = tuple(alphas)
        self._levels = {name: {level: PckAccumulator(alphas) for level in levels.values()} for name, levels in BREAKDOWNS.items()}
        self._unlabelled = dict.fromkeys(BREAKDOWNS, 0)

    def add(self, category: str, correct: np.ndarray, attributes: dict[str, int | None]) -> None:
        """Adds a pair: ``correct`` (n, A) bool of its common keypoints and its published ``attributes`` (a dictionary)."""
        for name, levels in BREAKDOWNS.items():
            value = attributes.get(name)
            level = None if value is None else levels.get(value)
            if level is None:
                self._unlabelled[name] += 1
            else:
                self._levels[name][level].add(category, correct)

    def summary(self) -> dict[str, dict[str, Any]]:
        """``{attribute: {level: {"pck", "pairs", "points", "skipped"}, ..., "unlabelled": n}}`` over all categories."""
        return {
            name: {**{level: a.summary()["all"] for level, a in levels.items()}, "unlabelled": self._unlabelled[name]}
            for name, levels in self._levels.items()
        }
