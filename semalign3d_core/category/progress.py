"""How a build says how far it is, and how long its steps took."""

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], object]  # called as (step, done, total)


def no_progress(step: str, done: int, total: int) -> None:
    """Shows nothing."""


class Clock:
    """Seconds of the steps of a build, {name: seconds} in ``times``."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends the step of that name."""
        now = time.perf_counter()
        self.times[name], self.last = round(now - self.last, 3), now
