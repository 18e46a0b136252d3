"""The one-cycle schedule of the published training."""

import math

RISE = 0.3  # share of the steps in which the learning rate grows
START, END = 25.0, 1e4  # the rate starts at 1/25 of the largest, and ends at 1/10000 of that
MOMENTUM = 0.85, 0.95  # AdamW's beta1 at the largest and at the smallest rate


def one_cycle(step: int, steps: int, largest: float) -> tuple[float, float]:
    """(learning rate, beta1) of batch number ``step`` of ``steps``: cosine from the start up to ``largest``, then down to the end.

    Source: Smith and Topin (2019) in the form that GeoAware-SC's training uses (section 4.1, supplement).
    """
    top, last = RISE * steps - 1, steps - 1
    first = largest / START
    if step <= top:
        return _cosine(first, largest, step / top), _cosine(MOMENTUM[1], MOMENTUM[0], step / top)
    progress = (step - top) / max(last - top, 1e-9)
    return _cosine(largest, first / END, progress), _cosine(MOMENTUM[0], MOMENTUM[1], progress)


def _cosine(a: float, b: float, progress: float) -> float:
    return b + (a - b) / 2 * (1 + math.cos(math.pi * progress))
