"""Schedules of annealed quantities."""

import bisect


def piecewise_linear(step, steps, values):
    """Value at ``step`` of the polygon through (steps, values); constant outside. ``steps`` rise."""
    if step <= steps[0]:
        return values[0]
    if step >= steps[-1]:
        return values[-1]
    right = bisect.bisect_right(steps, step)
    share = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


def geometric(step, steps, first, last, share=1.0):
    """Falls geometrically from ``first`` to ``last`` within the first ``share`` of ``steps`` steps, then stays."""
    progress = min(step / max(share * (steps - 1), 1), 1.0)
    return first * (last / first) ** progress
