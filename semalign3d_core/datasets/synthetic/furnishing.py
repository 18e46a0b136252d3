"""Furniture and fittings that fill the rooms of the varied world: what a network must learn to leave alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.looks import Look, dark, patterned, tint, white, wooden
from semalign3d_core.datasets.synthetic.primitives import revolve


def furnish(stage: Any, floor: float, wall: float) -> None:
    """Fills a room: along its wall, at the sides, and low things before the object.

    stage: the scene's ``_Stage``; floor: height of the floor; wall: distance of the wall behind the object. Lengths in diameters.
    """
    rng, along = stage.rng, np.array([-stage.away[1], stage.away[0]])
    reach = min(0.5 * stage.distance, 4.0)
    for _ in range(rng.integers(4, 12)):
        make = (_bookcase, _cabinet, _window, _frame, _frame, _door, _sofa, _lamp, _boxes, _plant)[rng.integers(10)]
        shift = rng.choice([-1.0, 1.0]) * rng.uniform(stage.radius + 0.1, stage.radius + reach)
        depth = wall - 0.02 if make in (_window, _frame, _door) or rng.random() < 0.6 else wall - rng.uniform(0.0, wall + 0.4 * reach)
        turned = along if rng.random() < 0.7 else stage.away
        make(stage, stage.away * depth + along * shift, turned, floor)
    for _ in range(rng.integers(0, 3)):
        place = -stage.away * rng.uniform(0.8, 0.75 * stage.distance + 0.81) + along * rng.uniform(-0.5, 0.5) * reach
        make = (_sofa, _low_table, _boxes)[rng.integers(3)]
        make(stage, place, along * rng.choice([-1.0, 1.0]), min(floor, stage.level - 0.9) if make is _sofa else floor)


def surface(stage: Any) -> Look:
    """What furniture is made of: wood, white or dark lacquer, grey, cloth, rarely a colour."""
    rng, kind = stage.rng, stage.rng.random()
    if kind < 0.45:
        return wooden(rng, stage.bank, gloss=rng.uniform(0, 0.2))
    return Look([white(rng), dark(rng), np.full(3, rng.uniform(0.05, 0.5)), tint(rng, 0.1, 0.8, 0.5)][rng.integers(4)], rng.uniform(0, 0.2))


def plain_wall(rng: np.random.Generator) -> Look:
    """Painted: white, cream, grey or a pale or strong colour."""
    kind = rng.random()
    if kind < 0.55:
        return Look(white(rng) * rng.uniform(0.7, 1.1))
    return Look(tint(rng, 0.5, 0.9, 0.5) if kind < 0.9 else tint(rng, 0.2, 0.8))


def hutch(stage: Any, floor: float) -> None:
    """A desk's superstructure around the object: sides, boards above it with things on them, a tower beside it."""
    rng, along, look = stage.rng, np.array([-stage.away[1], stage.away[0]]), surface(stage)
    half, top = stage.radius + rng.uniform(0.1, 0.7), stage.high[1] + rng.uniform(0.05, 0.4)
    back = stage.away * (stage.radius + 0.1)
    depth = rng.uniform(0.2, 0.5)
    for row in range(rng.integers(1, 3)):
        height = top + 0.45 * row
        stage.slab(back, along, (2 * half, depth), (height, height + 0.03), look)
        _row(stage, back, along, (2 * half, 0.8 * depth), (height + 0.03, 0.4))
    for side in (-1, 1):
        if rng.random() < 0.7:
            stage.slab(back + side * along * half, along, (0.04, depth), (min(floor, stage.level), top), look)
    if rng.random() < 0.5:
        place = rng.choice([-1.0, 1.0]) * along * (stage.radius + rng.uniform(0.2, 0.5))
        stage.slab(place, stage.away, (0.5, 0.25), (stage.level, stage.level + rng.uniform(0.4, 0.7)), Look(dark(rng), 0.2))
    if rng.random() < 0.5:
        stage.slab(-stage.away * (stage.radius + 0.2), along, (0.6, 0.2), (stage.level, stage.level + 0.03), Look(dark(rng)))


def _row(
    stage: Any, middle: np.ndarray, along: np.ndarray, size: Sequence[float], heights: tuple[float, float], empty: float = 0.1
) -> None:
    """Things in a row, like books: ``size`` (along, across), heights (foot, room)."""
    rng, (low, room) = stage.rng, heights
    at, alike = -0.5 * size[0], rng.random() < 0.3
    thick, tall = size[0] * rng.uniform(0.02, 0.06), room * rng.uniform(0.5, 0.95)
    while at < 0.46 * size[0]:
        if not alike:
            thick, tall = size[0] * rng.uniform(0.015, 0.1), room * rng.uniform(0.3, 0.95)
        if rng.random() > empty:
            look = Look(tint(rng), picture=None) if rng.random() < 0.8 else surface(stage)
            stage.slab(middle + along * (at + 0.5 * thick), along, (0.94 * thick, 0.8 * size[1]), (low, low + tall), look)
        at += thick


def _bookcase(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, look = stage.rng, surface(stage)
    wide, high, deep = rng.uniform(0.4, 1.6), rng.uniform(0.7, 2.3), rng.uniform(0.15, 0.4)
    out = np.array([along[1], -along[0]])
    out = out if out @ stage.away > 0 else -out
    base = floor if rng.random() < 0.7 else floor + rng.uniform(0.5, 1.2)
    stage.slab(middle + out * 0.5 * deep, along, (wide, 0.02), (base, base + high), look)
    rows = int(rng.integers(2, 7))
    for row in range(rows + 1):
        stage.slab(middle, along, (wide, deep), (base + high * row / rows, base + high * row / rows + 0.025), look)
        if row < rows and rng.random() < 0.85:
            _row(stage, middle, along, (0.95 * wide, deep), (base + high * row / rows + 0.025, high / rows - 0.03), rng.uniform(0, 0.5))
    for side in (-0.5, 0.5):
        stage.slab(middle + side * wide * along, along, (0.03, deep), (base, base + high), look)


def _cabinet(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, look = stage.rng, surface(stage)
    wide, high, deep = rng.uniform(0.5, 1.8), rng.uniform(0.4, 2.0), rng.uniform(0.3, 0.6)
    stage.slab(middle, along, (wide, deep), (floor, floor + high), look)
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    front = Look(look.colour * rng.uniform(0.7, 1.3), look.gloss, picture=look.picture, project=look.project)
    for n in range(columns * rows):
        column, row = n % columns, n // columns
        place = middle + along * wide * ((column + 0.5) / columns - 0.5)
        low, up = floor + high * (row + 0.06) / rows, floor + high * (row + 0.94) / rows
        stage.slab(place, along, (0.9 * wide / columns, deep + 0.03), (low, up), front)
        stage.slab(place, along, (0.05, deep + 0.07), (0.5 * (low + up), 0.5 * (low + up) + 0.03), Look(dark(rng)))
    if rng.random() < 0.6:
        _row(stage, middle, along, (wide, 0.6 * deep), (floor + high, rng.uniform(0.15, 0.5)), rng.uniform(0.3, 0.8))


def _opening(
    stage: Any,
    middle: np.ndarray,
    along: np.ndarray,
    size: float,
    heights: tuple[float, float],
    panes: Sequence[int] | np.ndarray,
    filled: Look,
) -> None:
    """A frame with bars, (across, up) ``panes``, before what fills it."""
    rng, frame = stage.rng, surface(stage)
    (low, high), bar = heights, rng.uniform(0.02, 0.07)
    stage.slab(middle, along, (size, 0.03), heights, filled)
    for n in range(panes[0] + 1):
        stage.slab(middle + along * size * (n / panes[0] - 0.5), along, (bar, 0.08), (low - 0.5 * bar, high + 0.5 * bar), frame)
    for n in range(panes[1] + 1):
        level = low + (high - low) * n / panes[1]
        stage.slab(middle, along, (size, 0.08), (level - 0.5 * bar, level + 0.5 * bar), frame)


def _window(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng = stage.rng
    wide, low = rng.uniform(0.5, 1.8), floor + rng.uniform(0.1, 1.0)
    high = low + rng.uniform(0.7, 1.6)
    seen = stage.hung((along[0], 0, along[1]), middle, wide, (low, high), glow=rng.uniform(0.7, 2.5))
    _opening(stage, middle, along, wide, (low, high), rng.integers(1, 4, 2), seen)
    if rng.random() < 0.6:
        cloth = patterned(rng, stage.bank, tint(rng), tint(rng), rng.uniform(0.1, 0.5)) if rng.random() < 0.4 else Look(tint(rng, 0.2, 0.9))
        for side in (-1, 1):
            for fold in range(5):
                place = middle + side * along * (0.5 * wide + 0.06 * fold - 0.1) - stage.away * (0.08 + 0.03 * (fold % 2))
                stage.slab(place, along, (0.07, 0.04), (floor + 0.05, high + 0.15), cloth)


def _frame(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    """A framed picture or mirror on the wall."""
    rng = stage.rng
    wide, low = rng.uniform(0.2, 1.2), floor + rng.uniform(0.7, 1.8)
    high = low + wide * rng.uniform(0.5, 1.7)
    if rng.random() < 0.4:
        stage.slab(middle, along, (wide, 0.02), (low, high), Look(white(rng)))
        inner = rng.uniform(0.12, 0.25) * wide
        picture = stage.hung((along[0], 0, along[1]), middle, wide - 2 * inner, (low + inner, high - inner))
        stage.slab(middle - stage.away * 0.02, along, (wide - 2 * inner, 0.02), (low + inner, high - inner), picture)
        _opening(stage, middle + stage.away * 0.01, along, wide, (low, high), (1, 1), Look(white(rng)))
    else:
        picture = stage.hung((along[0], 0, along[1]), middle, wide, (low, high))
        _opening(stage, middle, along, wide, (low, high), (1, 1), picture)


def _door(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, look = stage.rng, surface(stage)
    wide, high = rng.uniform(0.7, 1.0), rng.uniform(1.9, 2.2)
    _opening(stage, middle, along, wide, (floor, floor + high), (1, 1), look)
    rows = int(rng.integers(1, 4))
    for row in range(rows):
        low, up = floor + high * (row + 0.12) / rows, floor + high * (row + 0.88) / rows
        stage.slab(middle, along, (0.7 * wide, 0.05), (low, up), Look(look.colour * rng.uniform(0.6, 1.2)))


def _sofa(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng = stage.rng
    cloth = (
        patterned(rng, stage.bank, tint(rng), tint(rng), rng.uniform(0.1, 0.8)) if rng.random() < 0.35 else Look(tint(rng, 0.08, 0.8, 0.7))
    )
    wide, out = rng.uniform(0.9, 2.2), np.array([along[1], -along[0]])
    stage.slab(middle, along, (wide, 0.8), (floor, floor + 0.4), cloth)
    stage.slab(middle + out * 0.35, along, (wide, 0.22), (floor, floor + 0.8), cloth)
    for side in (-0.5, 0.5):
        stage.slab(middle + side * wide * along, along, (0.2, 0.85), (floor, floor + 0.58), cloth)
    for _ in range(rng.integers(0, 4)):
        place = middle + out * 0.18 + along * rng.uniform(-0.4, 0.4) * wide
        stage.slab(place, along, (0.4, 0.14), (floor + 0.4, floor + 0.75), Look(tint(rng)) if rng.random() < 0.6 else cloth)


def _low_table(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, look = stage.rng, surface(stage)
    wide, deep, high = rng.uniform(0.6, 1.3), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.75)
    stage.slab(middle, along, (wide, deep), (floor + high - 0.04, floor + high), look)
    out = np.array([-along[1], along[0]])
    for side, end in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        stage.slab(middle + 0.45 * side * wide * along + 0.42 * end * deep * out, along, (0.06, 0.06), (floor, floor + high), look)
    if rng.random() < 0.6:
        _row(stage, middle, along, (wide, 0.3), (floor + high, 0.2), 0.7)


def _lamp(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, high = stage.rng, floor + stage.rng.uniform(1.0, 1.7)
    stage.slab(middle, along, (0.03, 0.03), (floor, high), Look(dark(rng)))
    shade = revolve("shade", "", [(rng.uniform(0.15, 0.3), high), (rng.uniform(0.06, 0.2), high + 0.3)], around=16)
    glow = rng.uniform(0.8, 1.5) if rng.random() < 0.5 else 0.0
    stage.add([type(shade)("shade", shade.vertices + (middle[0], 0, middle[1]), shade.faces, "", True)], Look(white(rng), glow=glow))


def _boxes(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    """Loudspeakers, parcels, computers: a heap of a few boxes."""
    rng, level = stage.rng, floor
    for _ in range(rng.integers(1, 4)):
        size = rng.uniform(0.15, 0.6, 3)
        turn = np.arctan2(along[1], along[0]) + rng.normal(0, 0.2)
        stage.slab(middle, (np.cos(turn), np.sin(turn)), size[:2], (level, level + size[2]), surface(stage))
        level += size[2]


def _plant(stage: Any, middle: np.ndarray, along: np.ndarray, floor: float) -> None:
    rng, green = stage.rng, np.array([0.05, 0.16, 0.03]) * stage.rng.uniform(0.4, 2.0)
    stage.slab(middle, along, (0.3, 0.3), (floor, floor + 0.35), surface(stage))
    for _ in range(rng.integers(6, 16)):
        place, low = middle + rng.normal(0, 0.16, 2), floor + rng.uniform(0.35, 1.0)
        turn = rng.uniform(0, np.pi)
        stage.slab(place, (np.cos(turn), np.sin(turn)), rng.uniform(0.03, 0.25, 2), (low, low + rng.uniform(0.05, 0.4)), Look(green))
