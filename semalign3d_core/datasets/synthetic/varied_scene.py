"""Scenes of the varied world: studios, tables, rooms, roads and skies around an object, instead of floating clutter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.appearance import CameraEffects, Light, random_light
from semalign3d_core.datasets.synthetic.environment import anything, random_environment, sky, studio
from semalign3d_core.datasets.synthetic.furnishing import furnish, hutch, plain_wall
from semalign3d_core.datasets.synthetic.instances import Instance
from semalign3d_core.datasets.synthetic.looks import Look, object_looks, patterned, stack, tint, white
from semalign3d_core.datasets.synthetic.pictures import Bank, linear
from semalign3d_core.datasets.synthetic.primitives import Part, box, revolve
from semalign3d_core.datasets.synthetic.scene import (
    BACKGROUND,
    OCCLUDER,
    SceneConfig,
    Surroundings,
    gathered,
    occluder,
    random_surroundings,
)
from semalign3d_core.datasets.synthetic.varieties import SCENES, pick
from semalign3d_core.datasets.synthetic.viewpoints import View

_GLASS = np.array([(0.32, 0), (0.3, 0.02), (0.04, 0.05), (0.04, 0.48), (0.22, 0.58), (0.31, 0.75), (0.25, 1.0), (0.24, 1.0)])


def varied_surroundings(instance: Instance, view: View, rng: np.random.Generator, config: SceneConfig, bank: Bank) -> Surroundings:
    """Draws the surroundings and materials of an object seen in ``view``; ``bank``: pictures."""
    kind = pick(rng, SCENES[instance.category])[1]
    looks = object_looks(instance, bank, rng)
    object_materials = stack(looks, rng, config.unit_texture)
    if kind == "simple":
        plain = random_surroundings(instance, view, rng, config)
        return plain.with_environment(random_environment(instance, view, anything(view, bank, rng), rng), object_materials)
    stage = _Stage(instance, view, rng, bank, looks)
    backdrop = {"studio": studio, "sky": lambda rng: sky(view, rng)}.get(kind, lambda rng: anything(view, bank, rng))(rng)
    open_air = kind == "outdoors" and rng.random() < 0.4
    if open_air:
        backdrop = sky(view, rng)
    if kind == "studio" and rng.random() < 0.5 and stage.from_above:
        stage.ground(Look(np.clip(backdrop[-1, 0], 0.01, 0.95)))
    if kind == "outdoors" and stage.from_above and (open_air or rng.random() < 0.6):
        stage.ground(stage.flat_look(rng.uniform(0.1, 0.8)))
        stage.clutter(int(rng.integers(0, 4)), (0.15, 0.8))
    if kind == "table":
        stage.table(rng.uniform(1.5, 6.0))
        if rng.random() < 0.5:
            stage.walls(rng.uniform(0.5, 6.0))
        stage.clutter(int(rng.integers(0, 5)), (0.15, 1.1))
    if kind == "room":
        stage.room()
    pieces = stage.pieces
    if rng.random() < 0.6 * config.occluder_rate:
        pieces = [*pieces, (occluder(instance, view, config.occluder_size, rng), stage.look(0.5), OCCLUDER)]
    triangles, normals, owner, material = gathered([parts for parts, _, _ in pieces], [who for *_, who in pieces])
    counts = [len(parts) for parts, _, _ in pieces]
    materials = stack(
        [look for (_, look, _), count in zip(pieces, counts, strict=True) for _ in range(count)], rng, 0.5 * instance.diameter
    )
    light = _light(view, rng) if rng.random() < 0.8 else random_light(rng)
    surroundings = Surroundings(triangles, normals, owner, material, materials, object_materials, light)
    return surroundings.with_environment(random_environment(instance, view, backdrop, rng), object_materials, grounds=stage.grounds(counts))


def varied_effects(rng: np.random.Generator) -> CameraEffects:
    """What cameras, good and bad, do to the picture."""
    cast = np.exp(rng.normal(0, 0.08, 3))
    gain, gamma, blur = np.exp(rng.uniform(-0.35, 0.45)), rng.uniform(0.75, 1.25), np.exp(rng.uniform(np.log(0.3), np.log(1.3)))
    quality = int(rng.integers(30, 96)) if rng.random() < 0.7 else 0
    return CameraEffects(gain, gamma, cast, blur, rng.uniform(0, 0.03) * rng.random(), int(rng.integers(2**31)), quality)


def _light(view: View, rng: np.random.Generator) -> Light:
    """A lamp above the object, rather on the camera's side, and plenty of light from all around."""
    towards = view.camera_position(1.0)
    direction = np.array([rng.normal(0, 0.8), rng.uniform(0.4, 1.8), rng.normal(0, 0.8)]) + 0.6 * towards / np.linalg.norm(towards)
    warm = np.array([1 + rng.normal(0, 0.10), 1.0, 1 + rng.normal(0, 0.12)])
    direction = view.rotation @ (direction / np.linalg.norm(direction))
    ambient = rng.uniform(0.25, 0.8) * (2 - warm)
    return Light(
        direction.astype(np.float32), (rng.uniform(0.2, 1.1) * warm).astype(np.float32), ambient.astype(np.float32), rng.uniform(0, 0.3)
    )


class _Stage:
    """Builds what stands around an object, in the object's frame; ``pieces``: [(parts in the camera frame, look, owner)]."""

    def __init__(self, instance: Instance, view: View, rng: np.random.Generator, bank: Bank, looks: list[Look | None]) -> None:
        self.instance, self.view, self.rng, self.bank, self.looks = instance, view, rng, bank, looks
        self.pieces: list[tuple[list[Part], Look | None, int]] = []
        self._grounds: list[int] = []
        self.low, self.high = instance.vertices.min(0), instance.vertices.max(0)
        self.level = self.low[1] - 0.002
        camera = view.camera_position(instance.diameter)
        self.distance = np.hypot(camera[0], camera[2])
        self.away = -camera[[0, 2]] / max(self.distance, 1e-6)  # on the ground, from the camera to the object
        self.from_above = camera[1] - self.level > 0.03 * np.linalg.norm(camera)
        self.radius = 0.5 * np.linalg.norm((self.high - self.low)[[0, 2]])

    def grounds(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Numbers of the materials on which the object's contact shadow lies."""
        starts = np.cumsum([0, *counts])
        return tuple(int(starts[n]) for n in self._grounds)

    def add(self, parts: Sequence[Part], look: Look | None, ground: bool = False) -> None:
        """Adds ``parts`` of the object's frame."""
        moved = [type(p)(p.name, self.view.to_camera(p.vertices, self.instance.diameter), p.faces, p.group, p.smooth) for p in parts]
        if ground:
            self._grounds.append(len(self.pieces))
        self.pieces.append((moved, look, BACKGROUND))

    def look(self, repeat: float, along: Any = None, rise: Any = (0.0, 1.0, 0.0)) -> Look:
        """A random surface: plain, with a pattern that repeats every ``repeat`` diameters, or with a photograph."""
        rng, kind = self.rng, self.rng.random()
        first = white(rng) if rng.random() < 0.3 else tint(rng, saturation=0.7)
        gloss: dict[str, Any] = {"gloss": float(rng.choice([0.0, 0.1, 0.3])), "mirror": float(rng.choice([0.0, 0.0, 0.04]))}
        if kind < 0.4:
            return Look(first, **gloss)
        second = np.clip(first * rng.uniform(0.4, 1.5), 0.003, 0.95) if rng.random() < 0.75 else tint(rng)
        photograph = self.bank.photograph(rng) if kind > 0.75 else None
        found = patterned(rng, self.bank, first, second, 1.0, **gloss)
        if photograph is not None:
            repeat *= 4
            found = Look(first, picture=linear(photograph), **gloss)
        angle = rng.uniform(0, 2 * np.pi)
        along = np.array([np.cos(angle), 0, np.sin(angle)]) if along is None else np.asarray(along)
        across = np.array([-along[2], 0, along[0]]) if rise is None else np.asarray(rise)
        rows = np.stack([self.view.rotation @ along, -(self.view.rotation @ across)]) / (repeat * self.instance.diameter)
        found.project = np.column_stack([rows, rng.random(2)])
        return found

    def slab(self, centre: np.ndarray, along: Any, size: Any, height: tuple[float, float], look: Look | None, ground: bool = False) -> None:
        """A box of ``size`` (along, across) turned to ``along`` (2,), between two heights, around ``centre`` (2,)."""
        part = box("slab", "", (-0.5 * size[0], height[0], -0.5 * size[1]), (0.5 * size[0], height[1], 0.5 * size[1]))
        x, z = np.asarray(along), np.array([-along[1], along[0]])
        flat = centre + part.vertices[:, :1] * x + part.vertices[:, 2:] * z
        vertices = np.column_stack([flat[:, 0], part.vertices[:, 1], flat[:, 1]])
        self.add([type(part)("slab", vertices, part.faces, "")], look, ground)

    def ground(self, look: Look, level: float | None = None) -> None:
        """A plane up to the horizon."""
        level = self.level if level is None else level
        self.slab(np.zeros(2), (1.0, 0.0), (80, 80), (level - 0.02, level), look, ground=True)

    def flat_look(self, repeat: float) -> Look:
        """A surface whose pattern lies flat."""
        return self.look(repeat, rise=None)

    def table(self, height: float) -> None:
        """A table top or board that ends somewhere, seen from above or from its side."""
        rng = self.rng
        size = 2 * self.radius + rng.uniform(0.4, 4.0, 2)
        turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else np.arctan2(self.away[1], self.away[0]) + np.pi / 2
        along = np.array([np.cos(turn), np.sin(turn)])
        size = np.maximum(size, 2 * self.radius + 0.3)
        thick = rng.uniform(0.03, 0.15) if rng.random() < 0.5 else height
        near = self.distance - 0.6 * size.max()
        if not self.from_above and near < 0.2:
            return
        self.slab(
            0.3 * rng.uniform(-1, 1, 2) * (size - 2 * self.radius - 0.2),
            along,
            size,
            (self.level - thick, self.level),
            self.flat_look(rng.uniform(0.3, 2.5)),
            True,
        )
        camera_height = self.view.camera_position(self.instance.diameter)[1]
        if rng.random() < 0.6 and camera_height > self.level - height + 0.2:
            self.ground(self.flat_look(rng.uniform(0.5, 3.0)), self.level - height)

    def walls(self, distance: float) -> None:
        """A wall behind the object, perhaps a corner, perhaps with things on it."""
        rng = self.rng
        turn = np.deg2rad(rng.normal(0, 22)) if rng.random() < 0.8 else 0.0
        turn = np.clip(turn, -0.7, 0.7)
        cosine, sine = np.cos(turn), np.sin(turn)
        out = np.array([[cosine, -sine], [sine, cosine]]) @ self.away
        along = np.array([-out[1], out[0]])
        bottom, top = self.level - 8, self.high[1] + rng.uniform(0.8, 8)
        repeat, reach = rng.uniform(0.5, 3), self.radius + distance
        wall = plain_wall(rng) if rng.random() < 0.6 else self.look(repeat, (along[0], 0, along[1]))
        self.slab(out * (reach + 0.05), along, (60, 0.1), (bottom, top), wall)
        side = rng.choice([-1.0, 1.0])
        aside = side * (-self.distance * self.away) @ along  # of the camera
        corner = self.radius + rng.uniform(0.6, 6.0)
        if rng.random() < 0.4 and corner > aside + 0.3:
            self.slab(
                side * along * (corner + 0.05),
                out,
                (60, 0.1),
                (bottom, top),
                wall if rng.random() < 0.6 else self.look(repeat, (out[0], 0, out[1])),
            )
        if rng.random() < 0.3:
            self._shelf(out * (reach - 0.1) + along * rng.uniform(-2, 2), along, self.level + rng.uniform(-0.3, 1.2))
        for _ in range(rng.integers(0, 5)):
            place = out * (reach - 0.01) + along * rng.uniform(-3, 3)
            wide, low = rng.uniform(0.2, 1.4), self.level + rng.uniform(-0.3, 2.0)
            high = low + wide * rng.uniform(0.5, 1.6)
            self.slab(place, along, (wide, 0.05), (low, high), self.hung((along[0], 0, along[1]), place, wide, (low, high)))

    def _shelf(self, middle: np.ndarray, along: np.ndarray, level: float) -> None:
        """Boards with things in a row on them, like books."""
        rng = self.rng
        wide = rng.uniform(0.6, 2.0)
        size, board = wide * rng.uniform(0.15, 0.3), self.look(1.0)
        for row in range(rng.integers(1, 4)):
            low = level + 1.2 * size * row
            self.slab(middle, along, (wide, 0.18), (low - 0.03, low), board)
            at = -0.48 * wide
            while at < 0.4 * wide and rng.random() < 0.97:
                thick = size * rng.uniform(0.08, 0.3)
                look = Look(tint(rng)) if rng.random() < 0.7 else None
                self.slab(middle + along * (at + 0.5 * thick), along, (thick, 0.14), (low, low + size * rng.uniform(0.5, 1.0)), look)
                at += thick + (rng.random() < 0.15) * size * rng.uniform(0.2, 1.0)

    def hung(self, along: Any, place: np.ndarray, wide: float, heights: tuple[float, float], glow: float = 0.0) -> Look:
        """What a thing on a wall looks like: a print or photograph that fills it, a bright window, or any surface."""
        rng, kind = self.rng, 0.7 if glow else self.rng.random()
        if kind < 0.15:
            return Look(np.ones(3), glow=rng.uniform(0.8, 2.0))
        if kind < 0.4:
            return self.look(1.0, along)
        picture = self.bank.photograph(rng)
        picture = linear(self.bank.prints[rng.integers(len(self.bank.prints))] if picture is None else picture)
        scale = self.instance.diameter
        rows = np.stack([self.view.rotation @ along / wide, -(self.view.rotation @ (0, 1.0, 0)) / (heights[1] - heights[0])]) / scale
        corner = self.view.to_camera(np.array([place[0] - 0.5 * wide * along[0], heights[1], place[1] - 0.5 * wide * along[2]]), scale)
        return Look(np.ones(3) * 0.5, glow=glow, picture=picture, project=np.column_stack([rows, -rows @ corner]))

    def room(self) -> None:
        """A floor or a piece of furniture under the object, walls, furniture, and things about."""
        rng = self.rng
        screen = self.instance.category == "tvmonitor"
        floor = self.level - (rng.uniform(0.35, 1.2) if screen else 0.0)
        hung = screen and rng.random() < 0.35
        if screen and not hung:
            self.table(self.level - floor)
        if self.view.camera_position(self.instance.diameter)[1] > floor + 0.1:
            self.ground(self.flat_look(rng.uniform(0.4, 2.5)), floor)
        wall = rng.uniform(0.0, 0.05) if hung else rng.uniform(0.02, 1.5) if screen else rng.uniform(0.1, 4.0)
        self.walls(wall)
        if rng.random() < 0.85:
            furnish(self, floor, float(self.radius) + wall)
        if screen and not hung and rng.random() < 0.25:
            hutch(self, floor)
        if rng.random() < 0.6:
            self.clutter(int(rng.integers(1, 7)), (0.1, 0.9))

    def clutter(self, count: int, sizes: tuple[float, float]) -> None:
        """Boxes, vases and glasses that stand beside and behind the object."""
        rng = self.rng
        for _ in range(count):
            size = rng.uniform(*sizes)
            angle = np.arctan2(self.away[1], self.away[0]) + rng.uniform(-1.8, 1.8)
            place = (self.radius + 0.5 * size + rng.uniform(0.03, 2.0)) * np.array([np.cos(angle), np.sin(angle)])
            kind, label = rng.random(), None if rng.random() < 0.1 else self.look(size)
            if 0.5 <= kind < 0.62 and rng.random() < 0.7:
                label = Look(np.full(3, rng.uniform(0.7, 0.95)), 0.3, 60, 0.06, glass=0.9)
            if kind < 0.5:
                turn = rng.uniform(0, np.pi)
                wide = size * rng.uniform(0.2, 0.9, 2)
                self.slab(place, (np.cos(turn), np.sin(turn)), wide, (self.level, self.level + size), label)
                continue
            profile = (
                _GLASS
                if kind < 0.62
                else np.column_stack([np.clip(0.3 + 0.1 * np.cumsum(rng.normal(size=8)), 0.06, 0.5), np.linspace(0, 1, 8)])
            )
            part = revolve("vase", "", profile * size + (0, self.level), around=20)
            self.add([type(part)("vase", part.vertices + (place[0], 0, place[1]), part.faces, "", True)], label)
        if self.instance.category == "mug" and rng.random() < 0.35:
            foot = max(self.instance.vertices[self.instance.vertices[:, 1] < self.low[1] + 0.05][:, 0].max(), 0.1)
            saucer = [(0.3 * foot, 0), (1.1 * foot, 0.002), (rng.uniform(1.7, 2.4) * foot, rng.uniform(0.1, 0.3) * foot)]
            part = revolve("saucer", "", np.array(saucer) + (0, self.low[1] - 0.001), around=32)
            own = self.looks[self.instance.groups.index("body")]
            self.add([part], own if own is not None and rng.random() < 0.7 else self.look(1.0))
