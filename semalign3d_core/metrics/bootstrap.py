"""Bootstrap intervals over images: how far a score would move with other images of the same kind.

Pairs are not independent: an image takes part in many. So images are drawn with replacement, category by category, and a pair counts as
often as its source times as often as its target was drawn (the pigeonhole bootstrap; Owen, Annals of Applied Statistics 2007). Every score
is a ratio of sums over pairs, and every draw gives one value of it. With few images the intervals are a little narrow: of scores made of
effects of 10 and 40 images, 87 and 89 of 100 intervals held the truth (test/metrics/test_bootstrap.py).
"""

from collections.abc import Hashable, Sequence

import numpy as np

DRAWS = 1000
LEVEL = 95.0  # percent of the draws that an interval holds


class ImageBootstrap:
    """Draws of images for P pairs.

    categories, sources, targets: of the pairs; images are the same if they are equal and in one category
    weights: {category: (B, P of the category) how often each pair counts};  rows: {category: its pairs}
    draws: B;  seed: the same pairs give the same draws, so that scores of two methods can be subtracted draw by draw
    """

    def __init__(
        self, categories: Sequence[str], sources: Sequence[Hashable], targets: Sequence[Hashable], draws: int = DRAWS, seed: int = 0
    ) -> None:
        self.draws = draws
        self.rows = {name: np.flatnonzero(np.array(categories) == name) for name in sorted(set(categories))}
        self.weights = {name: self._drawn(rows, sources, targets, seed) for name, rows in self.rows.items()}

    def _drawn(self, rows, sources, targets, seed):
        """(B, P of the category) how often each pair counts."""
        known = {image: number for number, image in enumerate(dict.fromkeys(side[row] for row in rows for side in (sources, targets)))}
        first, second = ([known[side[row]] for row in rows] for side in (sources, targets))
        chosen = np.random.default_rng(seed).integers(len(known), size=(self.draws, len(known)))
        counts = np.stack([np.bincount(draw, minlength=len(known)) for draw in chosen])
        return (counts[:, first] * counts[:, second]).astype(np.float64)

    def sums(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """{category: (B, A)} sums of ``values`` (P, A) over the drawn pairs."""
        return {name: self.weights[name] @ values[rows] for name, rows in self.rows.items()}


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Percent; NaN where there is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * part / whole


def interval(draws: np.ndarray) -> list[float] | None:
    """[low, high] that LEVEL percent of ``draws`` (B,) lie between; None if too few of them have a value."""
    known = draws[np.isfinite(draws)]
    if len(known) < len(draws) / 2:
        return None
    low, high = np.percentile(known, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return [round(float(low), 4), round(float(high), 4)]
