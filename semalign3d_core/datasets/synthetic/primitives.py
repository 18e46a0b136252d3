"""Mesh parts with fixed topology: the same call with other numbers gives the same triangles, vertex by vertex.

That is what makes dense correspondences between instances free: vertex v of a part of one instance and vertex v of the
same part of another one are the same semantic surface point. All lengths in metres, y up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Part:
    """One piece of an object.

    name:     unique within the object;  group: pieces of one group share one (random) material
    vertices: (V, 3) float;  faces: (F, 3) int
    smooth:   shade with interpolated normals instead of one normal per triangle
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    group: str
    smooth: bool = False

    def mirrored(self, name: str) -> "Part":
        """The mirror image across x = 0, under another name."""
        return replace(self, name=name, vertices=self.vertices * np.array([-1.0, 1.0, 1.0]), faces=self.faces[:, ::-1])


Built = tuple[list[Part], dict[str, Any], dict[str, bool], tuple[str, ...]]  # parts, keypoints, absent parts, missing keypoints


def shell(name: str, group: str, rings: ArrayLike) -> Part:
    """A smooth surface through ``rings`` (n, m, 3) of m points each, open at both ends."""
    rings = np.asarray(rings, dtype=float)
    count, around = rings.shape[:2]
    body, rows = rings.reshape(-1, 3), np.arange(count - 1)[:, None] * around
    here, there = np.arange(around), np.roll(np.arange(around), -1)
    a, b, c, d = rows + here, rows + there, rows + around + here, rows + around + there
    sides = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    return Part(name, body, sides, group, smooth=True)


def sheet(name: str, group: str, points: np.ndarray) -> Part:
    """An open smooth surface through a grid of ``points`` (n, m, 3)."""
    rows, columns = points.shape[:2]
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + (0, 1, columns), corner + (1, columns + 1, columns)])
    return Part(name, points.reshape(-1, 3), faces, group, smooth=True)


def loft(name: str, group: str, rings: ArrayLike, smooth: bool = True) -> Part:
    """A closed surface through ``rings`` (n, m, 3) with flat ends (creased: the end rings are doubled)."""
    rings = np.asarray(rings, dtype=float)
    open_surface = shell(name, group, rings)
    around = rings.shape[1]
    here, there = np.arange(around), np.roll(np.arange(around), -1)
    vertices, faces = [open_surface.vertices], [open_surface.faces]
    for ring in (rings[0], rings[-1]):
        start = sum(len(v) for v in vertices)
        vertices.append(np.concatenate([ring, ring.mean(0, keepdims=True)]))
        faces.append(start + np.stack([here, there, np.full(around, around)], -1))
    return Part(name, np.concatenate(vertices), np.concatenate(faces), group, smooth)


def revolve(
    name: str,
    group: str,
    profile: ArrayLike,
    around: int = 32,
    axis: str = "y",
    centre: ArrayLike = (0, 0, 0),
) -> Part:
    """A solid of revolution: ``profile`` (n, 2) of (radius, height along the axis); doubled points make a crease."""
    return loft(name, group, _turned(profile, around, axis, centre))


def hoop(name: str, group: str, profile: ArrayLike, around: int = 32) -> Part:
    """As :func:`revolve` around y, but open: a band or ring without discs at its ends."""
    return shell(name, group, _turned(profile, around, "y", (0, 0, 0)))


def _turned(profile: ArrayLike, around: int, axis: str, centre: ArrayLike) -> np.ndarray:
    profile = np.asarray(profile, dtype=float)
    angle = 2 * np.pi * np.arange(around) / around
    radius, height = profile[:, :1], np.broadcast_to(profile[:, 1:], (len(profile), around))
    first, second = radius * np.sin(angle), radius * np.cos(angle)
    columns = {"y": (first, height, second), "x": (height, first, second), "z": (first, second, height)}[axis]
    return np.stack(columns, -1) + np.asarray(centre, dtype=float)


def tube(
    name: str,
    group: str,
    path: ArrayLike,
    radius: ArrayLike,
    around: int = 10,
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
) -> Part:
    """A tube along ``path`` (n, 3); ``radius`` is a number, or (n, 2) for the half axes across ``up`` and along it."""
    path = np.asarray(path, dtype=float)
    radius = np.broadcast_to(np.asarray(radius, dtype=float), (len(path), 2))
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    side = np.cross(direction, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(side, direction)
    angle = 2 * np.pi * (np.arange(around) + 0.5) / around
    offsets = radius[:, None, :1] * np.cos(angle)[:, None] * side[:, None] + radius[:, None, 1:] * np.sin(angle)[:, None] * other[:, None]
    return loft(name, group, path[:, None] + offsets)


def hexahedron(
    name: str,
    group: str,
    lower: ArrayLike,
    upper: ArrayLike,
) -> Part:
    """A block between the quadrilaterals ``lower`` and ``upper``, (4, 3) each, corners in the same order; flat faces."""
    corners = np.concatenate([np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)])
    quads = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    cells = 3
    step = np.arange(cells + 1) / cells
    s, t = (grid.reshape(-1, 1) for grid in np.meshgrid(step, step, indexing="ij"))
    index = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = (index[i : i + cells, j : j + cells].ravel() for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)))
    pattern = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])
    vertices, faces = [], []
    for number, quad in enumerate(quads):
        p, q, r, w = corners[list(quad)]
        vertices.append((1 - s) * (1 - t) * p + s * (1 - t) * q + s * t * r + (1 - s) * t * w)
        faces.append(pattern + number * len(s))
    return Part(name, np.concatenate(vertices), np.concatenate(faces), group)


def box(name: str, group: str, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray) -> Part:
    """An axis-aligned block between two opposite corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return hexahedron(
        name, group, [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)]
    )


def both_sides(part: Part) -> list[Part]:
    """``[part, its mirror image]``; a name ending in ``_left`` becomes ``_right``."""
    return [part, part.mirrored(part.name.removesuffix("_left") + "_right")]
