"""Which object of an image is which one of the images before: identities that last over occlusion and crossing.

Every track moves on with constant velocity while nobody sees it; the objects of an image are given to the tracks at the least total cost
(Kuhn 1955). The cost is how far centre and size of an object are from what its track expects, in object sizes.
"""

from dataclasses import dataclass

import numpy as np

LOST = 3.0  # seconds for which an object that is not seen keeps its identity
REACH, GROWTH = 1.0, 1.0  # object sizes by which an object may be from where it is expected, and more for every second unseen
SIZE_WEIGHT = 0.5  # of the difference of the logarithms of the sizes
GAIN, SPEED_GAIN = 0.7, 0.4  # shares of a surprise by which place and velocity are corrected (alpha-beta filter)
FORBIDDEN = 1e6


@dataclass
class _Track:
    identity: int
    kind: str
    centre: np.ndarray  # (2,) pixels
    size: float
    velocity: np.ndarray  # (2,) pixels per second
    seen: float

    def expected(self, time: float) -> np.ndarray:
        return self.centre + self.velocity * (time - self.seen)


class Tracks:
    """Gives objects their lasting numbers, from 1 on."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._last, self._time = 0, -np.inf

    def update(self, time: float, kinds: list[str], boxes: np.ndarray) -> list[int]:
        """The numbers of the objects of an image.

        time: of the image, in seconds;  kinds: what the N objects are, a track keeps its kind;  boxes: (N, 4) x0, y0, x1, y1 in pixels
        """
        if time < self._time:  # a recording began again
            self._tracks = []
        self._time = time
        self._tracks = [track for track in self._tracks if time - track.seen <= LOST]
        boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1), 1.0)
        cost = np.array([[self._cost(track, time, kind, c, s) for track in self._tracks] for kind, c, s in zip(kinds, centres, sizes, strict=True)])  # fmt: skip  # noqa: E501
        numbers = [0] * len(kinds)
        for row, column in zip(*_assignment(cost), strict=True) if cost.size else ():
            if cost[row, column] < FORBIDDEN:
                numbers[row] = self._follow(self._tracks[column], time, centres[row], sizes[row])
        for row, number in enumerate(numbers):
            if number == 0:
                self._last += 1
                numbers[row] = self._last
                self._tracks.append(_Track(self._last, kinds[row], centres[row], sizes[row], np.zeros(2), time))
        return numbers

    def _cost(self, track, time, kind, centre, size):
        distance = np.linalg.norm(centre - track.expected(time)) / max(size, track.size)
        if kind != track.kind or distance > REACH + GROWTH * (time - track.seen):
            return FORBIDDEN
        return distance + SIZE_WEIGHT * abs(np.log(size / track.size))

    def _follow(self, track, time, centre, size):
        elapsed = time - track.seen
        if elapsed > 0:
            surprise = centre - track.expected(time)
            first = not track.velocity.any()
            track.centre = track.expected(time) + (1.0 if first else GAIN) * surprise
            track.velocity = track.velocity + (1.0 if first else SPEED_GAIN) * surprise / elapsed
            track.size = (1 - GAIN) * track.size + GAIN * size
            track.seen = time
        return track.identity


def _assignment(cost):
    """Rows and columns of the assignment with the least total cost (N, M)."""
    if min(cost.shape) == 1:
        return np.unravel_index([cost.argmin()], cost.shape)
    from scipy.optimize import linear_sum_assignment  # 12 MiB that a node which follows one object does without

    return linear_sum_assignment(cost)
