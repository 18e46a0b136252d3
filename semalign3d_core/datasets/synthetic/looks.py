"""Materials of the varied world: what paint, glass, wood, print and screens look like, and which of them a category is made of."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.appearance import Materials, random_materials, texture_colours
from semalign3d_core.datasets.synthetic.instances import Instance
from semalign3d_core.datasets.synthetic.pictures import Bank, linear


@dataclass(frozen=True)
class VariedMaterials(Materials):
    """M materials that may also carry pictures, mirror, glow and let light through.

    pictures: [(h, w, 3) linear RGB or None];  project: (M, 2, 4) surface point (x, y, z, 1) to (column, row), from 0 to 1, repeated
    mirror:   (M,) share that is reflected head on;  metal: (M,) 0 or 1, reflections take the colour
    glow:     (M,) light of its own;  glass: (M,) share of light from behind that passes
    """

    pictures: list
    project: np.ndarray
    mirror: np.ndarray
    metal: np.ndarray
    glow: np.ndarray
    glass: np.ndarray

    def colours(self, index: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of surface ``points`` (N, 3) made of the materials ``index`` (N,)."""
        colours = texture_colours(self, index, points)
        for m in np.unique(index):
            picture = self.pictures[m]
            if picture is None:
                continue
            rows = np.flatnonzero(index == m)
            place = points[rows] @ self.project[m, :, :3].T.astype(np.float32) + self.project[m, :, 3].astype(np.float32)
            height, width = picture.shape[:2]
            column, row = (place * (width, height)).astype(np.int64).T
            colours[rows] = picture[row % height, column % width]
        return colours


@dataclass
class Look:
    """One material before it is stacked with others: a colour, or a picture with the way it is laid on."""

    colour: np.ndarray
    gloss: float = 0.0
    power: float = 25.0
    mirror: float = 0.0
    metal: float = 0.0
    glow: float = 0.0
    glass: float = 0.0
    picture: np.ndarray | None = None
    project: np.ndarray | None = None


def stack(looks: list, rng: np.random.Generator, unit: float) -> VariedMaterials:
    """:class:`VariedMaterials` of ``looks``; None stands for a texture of the simple world, in lengths of ``unit``."""
    simple = random_materials(rng, len(looks), unit)
    arrays = {field.name: getattr(simple, field.name).copy() for field in fields(Materials)}
    extra = {name: np.zeros(len(looks)) for name in ("mirror", "metal", "glow", "glass")}
    project, pictures = np.zeros((len(looks), 2, 4)), []
    for m, look in enumerate(looks):
        pictures.append(None if look is None else look.picture)
        if look is None:
            continue
        arrays["first"][m], arrays["sharpness"][m], arrays["gloss"][m], arrays["power"][m] = look.colour, 0, look.gloss, look.power
        for name, values in extra.items():
            values[m] = getattr(look, name)
        if look.picture is not None:
            project[m] = look.project
    return VariedMaterials(**arrays, pictures=pictures, project=project, **extra)


def object_looks(instance: Instance, bank: Bank, rng: np.random.Generator) -> list:
    """One :class:`Look` (or None) for every material group of an instance."""
    if rng.random() < 0.2:
        return [None] * len(instance.groups)
    makers = {"bottle": _bottle, "mug": _mug, "chair": _chair, "car": _car, "aeroplane": _aeroplane, "tvmonitor": _screen}
    looks = makers[instance.category](instance, bank, rng)
    return [None if rng.random() < 0.04 else looks.get(group) for group in instance.groups]


def tint(rng: np.random.Generator, low: float = 0.05, high: float = 0.9, saturation: float = 1.0) -> np.ndarray:
    """A linear colour; ``saturation`` bounds its purity."""
    return _hue(rng, rng.uniform(low, high), saturation * rng.beta(1.0, 1.3))


def vivid(rng: np.random.Generator) -> np.ndarray:
    """A linear colour of paint that shall be seen."""
    return _hue(rng, rng.uniform(0.45, 0.95), rng.uniform(0.6, 1.0))


def _hue(rng: np.random.Generator, value: float, purity: float) -> np.ndarray:
    hue = rng.random()
    channel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - purity * (1 - channel))) ** 2.2


def white(rng: np.random.Generator) -> np.ndarray:
    """A white with a hint of warmth."""
    return rng.uniform(0.55, 0.9) * np.array([1, rng.uniform(0.93, 1), rng.uniform(0.82, 1)])


def dark(rng: np.random.Generator) -> np.ndarray:
    """A black or dark grey."""
    return rng.uniform(0.004, 0.03) * (1 + 0.3 * rng.random(3))


def patterned(rng: np.random.Generator, bank: Bank, first: np.ndarray, second: np.ndarray, repeat: float, **surface: float) -> Look:
    """A grey pattern between two colours; it repeats every ``repeat`` lengths along two random directions."""
    grey = (bank.patterns[rng.integers(len(bank.patterns))].astype(np.float32) / 255)[..., None]
    picture = grey * np.asarray(first, dtype=np.float32) + (1 - grey) * np.asarray(second, dtype=np.float32)
    return Look(first, picture=picture, project=_laid(rng, repeat), **surface)


def _laid(rng: np.random.Generator, repeat: float) -> np.ndarray:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.column_stack([axes[:2] / repeat, rng.random(2)])


def _box_of(instance: Instance, group: str) -> tuple[np.ndarray, np.ndarray]:
    faces = instance.faces[instance.group == instance.groups.index(group)]
    if not len(faces):
        return np.zeros(3), np.ones(3)
    corners = instance.vertices[np.unique(faces)]
    return corners.min(0), corners.max(0)


def spread(instance: Instance, group: str, across: tuple = (1.0, 0.0, 0.0), repeat: float = 1.0) -> np.ndarray:
    """A projection that spreads a picture over the box of a group, upright, its columns along the direction ``across``."""
    low, high = _box_of(instance, group)
    direction, middle = np.asarray(across, dtype=float), 0.5 * (low + high)
    width, height = max(np.abs(direction) @ (high - low), 1e-6), max(high[1] - low[1], 1e-6)
    rows = np.array([direction / width, [0, -1 / height, 0]]) * repeat
    return np.column_stack([rows, 0.5 - rows @ middle])


def _picture(rng: np.random.Generator, bank: Bank) -> np.ndarray:
    """A print, a few times a photograph."""
    photograph = bank.photograph(rng) if rng.random() < 0.2 else None
    return linear(bank.prints[rng.integers(len(bank.prints))] if photograph is None else photograph)


def _bottle(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    kind = rng.random()
    if kind < 0.42:  # glass
        colours = np.array(
            [(0.05, 0.22, 0.04), (0.12, 0.25, 0.06), (0.25, 0.09, 0.02), (0.75, 0.8, 0.78), (0.8, 0.85, 0.85), (0.6, 0.55, 0.25)]
        )
        colour = np.clip(colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.3), 0, 0.95)
        body = Look(colour, 0.3, 60, rng.uniform(0.04, 0.1), glass=rng.uniform(0.75, 1.0))
        if rng.random() < 0.4:  # filled up to some height
            liquid = np.array([(0.02, 0.002, 0.004), (0.5, 0.42, 0.12), (0.4, 0.18, 0.04), (0.6, 0.65, 0.65)])[rng.integers(4)]
            body.picture = np.tile(colour.astype(np.float32), (64, 1, 1))
            body.picture[rng.integers(8, 40) :] = np.minimum(colour, 1) * liquid
            body.project = spread(instance, "body")
    elif kind < 0.70:  # dark, full of something dark
        colour = np.array([(0.006, 0.005, 0.006), (0.012, 0.018, 0.006), (0.03, 0.01, 0.004)])[rng.integers(3)] * rng.uniform(0.5, 2)
        body = Look(colour, 0.25, 60, rng.uniform(0.04, 0.1))
    else:
        body = Look(white(rng) if rng.random() < 0.35 else tint(rng), rng.uniform(0, 0.4), 30, rng.choice([0, 0.03, 0.06]))
    closure = [dark(rng), white(rng), np.array([0.45, 0.3, 0.08]), tint(rng), np.array([0.25, 0.01, 0.015])][rng.integers(5)]
    cap = Look(closure, rng.uniform(0, 0.4), 30, rng.choice([0, 0.03, 0.2]), metal=float(rng.random() < 0.3))
    looks = {"body": body, "cap": cap}
    if "label" in instance.groups:
        looks["label"] = Look(white(rng), picture=_picture(rng, bank), project=spread(instance, "label", repeat=rng.choice([1.0, 1.3])))
    return looks


def _mug(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    colour = white(rng) if rng.random() < 0.5 else tint(rng)
    surface = {"gloss": rng.uniform(0.05, 0.4), "power": 50.0, "mirror": rng.choice([0.0, 0.03, 0.05])}
    body, kind = Look(colour, **surface), rng.random()
    if kind < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        picture = _picture(rng, bank)
        if rng.random() < 0.6:  # the print's paper takes the colour of the mug
            paper = np.abs(picture - np.median(picture.reshape(-1, 3), axis=0)).max(-1, keepdims=True) < 0.08
            picture = np.where(paper, colour.astype(np.float32), picture)
        lay = spread(instance, "body", (np.cos(angle), 0, np.sin(angle)), rng.choice([1.0, 1.4, 2.0]))
        body = Look(colour, picture=picture, project=lay, **surface)
    elif kind < 0.42:
        body = patterned(rng, bank, colour, tint(rng), rng.uniform(0.3, 1.5), **surface)
    elif kind < 0.5:
        body = Look(np.array([0.6, 0.6, 0.6]) * rng.uniform(0.6, 1.2), mirror=0.55, metal=1.0)
    handle = Look(body.colour, **surface) if rng.random() < 0.8 else Look(tint(rng), **surface)
    if body.metal:
        handle = body
    return {"body": body, "handle": handle, "liquid": Look(np.array([0.05, 0.02, 0.008]) * rng.uniform(0.3, 8), mirror=0.03)}


def wooden(rng: np.random.Generator, bank: Bank, **surface: float) -> Look:
    """Light to dark wood with its grain."""
    tones = np.array([(0.35, 0.17, 0.06), (0.5, 0.28, 0.11), (0.18, 0.07, 0.025), (0.06, 0.025, 0.012), (0.62, 0.45, 0.25)])
    tone = np.clip(tones[rng.integers(len(tones))] * rng.uniform(0.7, 1.3) * (1 + rng.normal(0, 0.08, 3)), 0.004, 0.9)
    wood = bank.patterns[rng.integers(6)].astype(np.float32)[..., None] / 255
    picture = tone.astype(np.float32) * (0.55 + 0.6 * wood)
    return Look(tone, picture=picture, project=_laid(rng, rng.uniform(0.3, 0.8)), **surface)


def _chair(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    kind = rng.random()
    gloss: dict[str, Any] = {"gloss": rng.uniform(0, 0.25), "power": 25.0}
    if kind < 0.55:
        frame = wooden(rng, bank, **gloss) if rng.random() < 0.85 else Look(dark(rng) if rng.random() < 0.5 else white(rng), **gloss)
    elif kind < 0.8:
        metal = float(rng.random() < 0.5)
        frame = Look(np.array([0.4, 0.4, 0.4]) if metal else dark(rng), **gloss, mirror=0.4 * metal, metal=metal)
    else:
        frame = Look(tint(rng), **gloss)
    looks = dict.fromkeys(("frame", "leg", "arm", "seat", "back"), frame)
    cover = patterned(rng, bank, tint(rng), tint(rng), rng.uniform(0.05, 0.6)) if rng.random() < 0.5 else Look(tint(rng))
    if rng.random() < (0.4 if kind < 0.55 else 0.85):
        looks["seat"] = cover
        if rng.random() < 0.75:
            looks["back"] = cover
        if rng.random() < 0.15:
            looks["arm"] = cover
    return looks


def _car(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    colour = [white(rng), dark(rng), np.full(3, rng.uniform(0.15, 0.5)), vivid(rng), vivid(rng), tint(rng)][rng.integers(6)]
    surface: dict[str, Any] = {"gloss": rng.uniform(0.1, 0.5), "power": 60.0, "mirror": rng.uniform(0.02, 0.12)}
    paint = Look(colour, **surface)
    if rng.random() < 0.12:
        lay = spread(instance, "paint", (0, 0, 1.0), rng.choice([1.0, 2.0]))
        paint = Look(colour, picture=_picture(rng, bank), project=lay, **surface)
    trim = [paint, Look(dark(rng)), Look(dark(rng)), Look(np.full(3, 0.4), mirror=0.4, metal=1.0)][rng.integers(4)]
    hub = Look(dark(rng)) if rng.random() < 0.2 else Look(np.full(3, rng.uniform(0.25, 0.6)), 0.3, mirror=0.2, metal=1.0)
    glass = Look(rng.uniform(0.003, 0.06) * np.ones(3), 0.4, 60, rng.uniform(0.06, 0.3))
    light = Look(np.array([0.8, 0.8, 0.75]) * rng.uniform(0.5, 1.1), 0.5, 60, 0.1)
    tail = Look(np.array([0.4, 0.02, 0.02]), 0.3, 40, 0.05)
    return {"paint": paint, "glass": glass, "tyre": Look(dark(rng)), "hub": hub, "light": light, "tail": tail, "trim": trim}


def _aeroplane(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    colour = [white(rng), white(rng), np.full(3, rng.uniform(0.1, 0.5)), vivid(rng), tint(rng, 0.05, 0.4, 0.5)][rng.integers(5)]
    surface = {"gloss": rng.uniform(0, 0.3), "power": 40.0, "mirror": rng.choice([0.0, 0.03, 0.08])}
    paint = Look(colour, **surface)
    if rng.random() < 0.7:
        paint = Look(colour, picture=_livery(colour, rng), project=spread(instance, "paint", (0, 0, -1.0)), **surface)
    wing = Look(colour, **surface) if rng.random() < 0.4 else Look(np.full(3, rng.uniform(0.08, 0.6)), **surface)
    engine = [Look(colour, **surface), Look(np.full(3, rng.uniform(0.05, 0.5)), mirror=0.1), Look(tint(rng), **surface)][rng.integers(3)]
    return {"paint": paint, "wing": wing, "engine": engine, "glass": Look(dark(rng), 0.4, 60, 0.15), "trim": Look(dark(rng))}


def _livery(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fuselage seen from its side, nose on the left: belly, stripe, windows, tail."""
    picture = np.tile(colour.astype(np.float32), (64, 256, 1))
    if rng.random() < 0.5:
        picture[int(rng.integers(34, 50)) :] = tint(rng) if rng.random() < 0.5 else np.full(3, rng.uniform(0.1, 0.5))
    if rng.random() < 0.5:
        low = int(rng.integers(24, 44))
        picture[low : low + int(rng.integers(2, 8))] = tint(rng)
    if rng.random() < 0.3:
        picture[:, int(rng.integers(170, 230)) :] = tint(rng)
    if rng.random() < 0.7:
        row = int(rng.integers(22, 30))
        for column in range(24, 215, int(rng.integers(4, 8))):
            picture[row : row + 3, column : column + 2] = 0.02
    return picture


def _screen(instance: Instance, bank: Bank, rng: np.random.Generator) -> dict[str, Look]:
    frame = Look(
        [dark(rng), dark(rng), dark(rng), np.full(3, rng.uniform(0.1, 0.5)), white(rng), tint(rng)][rng.integers(6)], 0.2, 40, 0.03
    )
    looks = dict.fromkeys(("frame", "housing", "stand", "button"), frame)
    if rng.random() < 0.25:
        looks["stand"] = Look(np.full(3, rng.uniform(0.05, 0.6)), 0.3, 40, rng.choice([0.0, 0.2]))
    if rng.random() < 0.4:
        looks["screen"] = Look(dark(rng) if rng.random() < 0.7 else np.full(3, rng.uniform(0.02, 0.12)), 0.2, 60, rng.uniform(0.03, 0.15))
        return looks
    photograph = bank.photograph(rng) if rng.random() < 0.4 else None
    picture = linear(bank.screens[rng.integers(len(bank.screens))] if photograph is None else photograph)
    looks["screen"] = Look(np.ones(3), mirror=0.03, glow=rng.uniform(0.4, 1.4), picture=picture, project=spread(instance, "screen"))
    return looks
