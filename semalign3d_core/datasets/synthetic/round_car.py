"""Car bodies with rounded corners, for the varied world: one smooth shell, a domed cabin, curved panes, or an open top."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.primitives import Part, both_sides, box, loft, revolve, sheet

_CORNER = 5.0  # exponent of the superellipse that the cabin's outline is; 2 would be an ellipse
_LEVELS = np.array([(0, 0), (0.3, 0.3), (0.6, 0.6), (0.82, 0.83), (0.93, 0.95), (0.98, 1.04), (1.0, 1.15)])  # height, way from belt to roof
_SECTION = np.array([(0.8, 0), (0.93, 0.06), (0.98, 0.2), (1, 0.45), (0.985, 0.65), (0.94, 0.82), (0.86, 0.93), (0.7, 0.985), (0.35, 1.0)])


def body(
    u: float, half_width: float, low: float, belt: float, nose_top: float, hood_end: float, trunk_end: float, nose_taper: float
) -> Part:
    """The shell below the windows of a car of length ``u``; heights and lengths in metres, the front at u / 2."""
    front, rear, w = 0.5 * u, -0.5 * u, half_width
    ends = np.array([rear, rear + 0.015 * u, rear + 0.06 * u, trunk_end, hood_end, front - 0.07 * u, front - 0.02 * u, front])
    middle = low + 0.5 * (belt - low)
    tops = [middle + 0.1 * (belt - low), belt - 0.02 * u, belt - 0.004 * u, belt, belt, nose_top, nose_top - 0.012 * u, middle]
    widths = np.array([0.82, 0.92, 0.97, 1, 1, 0.99 * nose_taper, 0.9 * nose_taper, 0.74 * nose_taper]) * w
    lows = [low + 0.04 * u, low + 0.01 * u, low, low, low, low, low + 0.005 * u, low + 0.03 * u]
    z = 0.5 * u * np.sin(np.linspace(-0.5, 0.5, 31) * np.pi)
    top, wide, bottom = (_smooth(z, ends, values, 0.02 * u) for values in (tops, widths, lows))
    ring = np.concatenate([_SECTION, _SECTION[::-1] * (-1, 1)])
    rings = [
        np.column_stack([ring[:, 0] * a, b + ring[:, 1] * (t - b), np.full(len(ring), at)])
        for a, b, t, at in zip(wide, bottom, top, z, strict=True)
    ]
    return loft("round_body", "paint", rings)


def _smooth(at: np.ndarray, places: Any, values: Any, width: float) -> np.ndarray:
    """Values at ``at``: linear between ``places``, averaged over ``width`` to both sides."""
    shifts = width * np.linspace(-1, 1, 9)
    return np.mean([np.interp(at + shift, places, values) for shift in shifts], axis=0)


class Cabin:
    """The dome above the belt line: from the outline at the belt, (half width, front, rear), to the one at the roof."""

    def __init__(self, belt: float, roof: float, low_outline: tuple[float, float, float], high_outline: tuple[float, float, float]) -> None:
        self.belt, self.roof, self.low, self.high = belt, roof, np.array(low_outline), np.array(high_outline)

    def points(self, height: np.ndarray, angle: np.ndarray, grow: float = 1.0) -> np.ndarray:
        """Points (n, m, 3) at ``height`` (n,) from 0 to 1 and ``angle`` (m,), 0 on the left, 90 degrees in front."""
        way = np.interp(height, *_LEVELS.T)
        wide, front, rear = (self.low + way[:, None] * (self.high - self.low)).T[:, :, None]
        cosine, sine = np.cos(angle), np.sin(angle)
        x = grow * wide * np.sign(cosine) * np.abs(cosine) ** (2 / _CORNER)
        z = 0.5 * (front + rear) + grow * 0.5 * (front - rear) * np.sign(sine) * np.abs(sine) ** (2 / _CORNER)
        y = self.belt + np.asarray(height)[:, None] * (self.roof - self.belt) + 0 * x
        return np.stack([x, y, z], -1)

    def corner(self, end: int) -> np.ndarray:
        """Where the roof's left corner is rounded off: in front (1) or behind (-1)."""
        return self.points(np.array([0.97]), np.array([end * np.pi / 4]))[0, 0]

    def shell(self) -> Part:
        """The paintwork."""
        angle = 2 * np.pi * (np.arange(48) + 0.5) / 48
        return loft("round_cabin", "paint", self.points(_LEVELS[:, 0], angle))

    def windscreen(self) -> Part:
        """The pane in front."""
        return self._pane("round_windscreen", 0.5 * np.pi + np.array([-1, 1]) * _angle(0.86, np.arccos), (0.06, 0.9))

    def panes(self) -> list[Part]:
        """The other panes."""
        rear = self._pane("round_rear_window", -0.5 * np.pi + np.array([-1, 1]) * _angle(0.84, np.arccos), (0.15, 0.88))
        sides = [self._pane(f"round_window_{n}_left", [_angle(a), _angle(b)], (0.12, 0.86)) for n, (a, b) in enumerate(_SPANS)]
        return [rear, *(part for pane in sides for part in both_sides(pane))]

    def _pane(self, name: str, angles: Sequence[float] | np.ndarray, heights: Sequence[float]) -> Part:
        height, angle = np.linspace(heights[0], heights[1], 6), np.linspace(angles[0], angles[1], 15)
        return sheet(name, "glass", self.points(height, angle, 1.012))


_SPANS = ((-0.82, -0.42), (-0.37, 0.10), (0.15, 0.82))  # of the side windows, from the cabin's rear (-1) to its front (1)


def _angle(share: float, inverse: Callable[[float], float] = np.arcsin) -> float:
    """Angle at which the outline has come ``share`` of the way along an axis."""
    value = inverse(abs(share) ** (_CORNER / 2))
    if inverse is np.arccos:
        return 0.5 * np.pi - value
    return np.sign(share) * value


def lamp(name: str, group: str, centre: np.ndarray, radii: np.ndarray) -> Part:
    """A rounded lamp let into the body."""
    turn = np.linspace(0.02, np.pi - 0.02, 9)
    ball = revolve(name, group, np.column_stack([np.sin(turn), -np.cos(turn)]), around=14)
    return type(ball)(name, ball.vertices * radii + centre, ball.faces, group, True)


def open_top(belt: float, half_width: float, hood_end: float, trunk_end: float) -> list[Part]:
    """What one sees in a car without a roof: the dark inside and two seats."""
    middle, w = 0.55 * hood_end + 0.45 * trunk_end, half_width
    inside = box("inside", "tyre", (-0.8 * w, belt - 0.03, trunk_end + 0.1), (0.8 * w, belt + 0.006, hood_end - 0.1))
    seat = box("front_seat_left", "trim", (0.15 * w, belt - 0.03, middle - 0.35), (0.65 * w, belt + 0.22, middle - 0.15))
    return [inside, *both_sides(seat)]
