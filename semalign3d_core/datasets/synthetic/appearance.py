"""Colours without meaning: random procedural textures, light, and what a camera does to a picture."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

_WAVES = 6


@dataclass(frozen=True)
class Materials:
    """M random solid textures of W waves.

    first, second: (M, 3) linear RGB;  waves: (M, W, 3) cycles per unit length times 2 pi;  phases, weights: (M, W)
    sharpness: (M,) 0 is plain, large gives hard edges;  threshold: (M,);  gloss: (M,) strength of the highlight;  power: (M,)
    """

    first: np.ndarray
    second: np.ndarray
    waves: np.ndarray
    phases: np.ndarray
    weights: np.ndarray
    sharpness: np.ndarray
    threshold: np.ndarray
    gloss: np.ndarray
    power: np.ndarray

    def colours(self, index: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of surface ``points`` (N, 3) made of the materials ``index`` (N,)."""
        return texture_colours(self, index, points)


def random_materials(rng: np.random.Generator, count: int, unit: float | np.ndarray = 1.0) -> Materials:
    """``count`` random textures for surfaces whose coordinates are measured in ``unit`` (a number or (count, 1, 1))."""
    kind = rng.choice(4, size=count, p=(0.35, 0.25, 0.25, 0.15))  # plain, soft noise, hard blotches, stripes
    direction = rng.normal(size=(count, _WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    frequency = np.exp(rng.uniform(np.log(1.0), np.log(7.0), (count, 1, 1))) * np.exp(rng.normal(0, 0.4, (count, _WAVES, 1)))
    weights = np.where((kind == 3)[:, None], np.eye(_WAVES)[0], 1 / np.sqrt(_WAVES))
    second = _random_colours(rng, count)
    first = _random_colours(rng, count)
    close = rng.random(count) < 0.4
    second[close] = np.clip(first[close] * rng.uniform(0.5, 1.6, (close.sum(), 1)), 0.01, 1)
    return Materials(
        first=first,
        second=second,
        waves=2 * np.pi * frequency * direction / unit,
        phases=rng.uniform(0, 2 * np.pi, (count, _WAVES)),
        weights=weights,
        sharpness=np.array([0.0, 1.5, 9.0, 7.0])[kind],
        threshold=np.where(kind >= 2, rng.uniform(-0.5, 0.5, count), 0.0),
        gloss=rng.choice([0.0, 0.15, 0.45], size=count),
        power=rng.choice([8.0, 25.0, 60.0], size=count),
    )


def _random_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    hue, saturation, value = rng.random(count), rng.beta(1.1, 1.4, count), rng.uniform(0.08, 0.95, count)
    channel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return (value[:, None] * (1 - saturation[:, None] * (1 - np.clip(channel, 0, 1)))) ** 2.2


def texture_colours(materials: Materials, index: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours (N, 3) of surface ``points`` (N, 3) made of the materials ``index`` (N,)."""
    colours = np.empty((len(index), 3), dtype=np.float32)
    order = np.argsort(index, kind="stable")
    bounds = np.flatnonzero(np.diff(index[order])) + 1
    for rows in np.split(order, bounds):
        if not len(rows):
            continue
        m = index[rows[0]]
        if materials.sharpness[m] == 0:
            colours[rows] = materials.first[m]
            continue
        angle = points[rows].astype(np.float32) @ materials.waves[m].T.astype(np.float32) + materials.phases[m].astype(np.float32)
        value = np.cos(angle) @ materials.weights[m].astype(np.float32)
        share = 1 / (1 + np.exp(-materials.sharpness[m] * (value - materials.threshold[m])))
        colours[rows] = share[:, None] * materials.first[m] + (1 - share[:, None]) * materials.second[m]
    return colours


@dataclass(frozen=True)
class Light:
    """A distant lamp, an ambient gradient along the picture's vertical and a lamp at the camera; directions in the camera frame."""

    direction: np.ndarray
    colour: np.ndarray
    ambient: np.ndarray
    camera_lamp: float


def random_light(rng: np.random.Generator) -> Light:
    """A lamp anywhere above, of any warmth and any share of the ambient light."""
    direction = np.array([rng.normal(0, 0.9), -rng.uniform(0.3, 1.5), -rng.uniform(-0.3, 1.2)])
    warm = np.array([1 + rng.normal(0, 0.12), 1.0, 1 + rng.normal(0, 0.15)])
    key = rng.uniform(0.5, 1.3)
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    ambient = rng.uniform(0.18, 0.55) * (2 - warm)
    return Light(direction, (key * warm).astype(np.float32), ambient.astype(np.float32), rng.uniform(0.0, 0.25))


def dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row-wise inner products (N, 1) of (N, 3); much quicker than a sum over the short axis."""
    return np.einsum("nk,nk->n", first, second)[:, None]


def shade(
    colours: np.ndarray, normals: np.ndarray, rays: np.ndarray, lit: np.ndarray, light: Light, gloss: np.ndarray, power: np.ndarray
) -> np.ndarray:
    """Radiance (N, 3): ambient, lamp (where ``lit``) and camera lamp with highlights; normals face the camera, rays are unit."""
    up = 0.75 - 0.25 * normals[:, 1:2]
    cosine = np.clip(normals @ light.direction, 0, None)[:, None] * lit[:, None]
    facing = np.clip(-dot(normals, rays), 0, None)
    half = light.direction - rays
    half /= np.sqrt(dot(half, half)) + np.float32(1e-9)
    highlight = gloss[:, None] * np.clip(dot(normals, half), 0, 1) ** power[:, None] * lit[:, None]
    return colours * (light.ambient * up + light.colour * cosine + light.camera_lamp * facing) + highlight * light.colour


@dataclass(frozen=True)
class CameraEffects:
    """How a camera makes a picture of the light.

    gain, contrast (gamma), colour cast (3,), blur in pixels, noise (of 1), the noise's seed, and the quality of the JPEG that it is stored
    as (0: none)
    """

    gain: float
    gamma: float
    cast: np.ndarray
    blur: float
    noise: float
    seed: int
    quality: int = 0

    def next_frame(self, number: int) -> "CameraEffects":
        """The same camera, other noise."""
        return replace(self, seed=self.seed + number)


def random_effects(rng: np.random.Generator) -> CameraEffects:
    """What an ordinary camera might do to the picture."""
    cast = np.exp(rng.normal(0, 0.06, 3))
    return CameraEffects(
        rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.15), cast, rng.uniform(0.25, 0.8), rng.uniform(0.0, 0.02), int(rng.integers(2**31))
    )


def develop(radiance: np.ndarray, effects: CameraEffects) -> np.ndarray:
    """Radiance (h, w, 3) to the picture (h, w, 3) uint8."""
    exposed = 0.9 * effects.gain * radiance / max(np.percentile(radiance, 98), 1e-3)
    picture = np.clip(exposed * effects.cast, 0, 1) ** (effects.gamma / 2.2)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), effects.blur)
    noise = np.random.default_rng(effects.seed).standard_normal(picture.shape, dtype=np.float32)
    shown = np.clip(255 * (picture + effects.noise * noise) + 0.5, 0, 255).astype(np.uint8)
    if not effects.quality:
        return shown
    stored = cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, effects.quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))[..., ::-1])
