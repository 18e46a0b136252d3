"""What lies around and behind everything in the varied world: a backdrop, what shiny surfaces mirror, and contact shadows."""

from dataclasses import dataclass

import cv2
import numpy as np

from semalign3d_core.datasets.synthetic.instances import Instance
from semalign3d_core.datasets.synthetic.looks import dark, tint, white
from semalign3d_core.datasets.synthetic.pictures import Bank, fractal, linear
from semalign3d_core.datasets.synthetic.viewpoints import View


@dataclass(frozen=True)
class Environment:
    """Light from everywhere but the scene's own surfaces. Directions in the camera frame, colours linear.

    backdrop: (h, w, 3) what rays that leave the scene show, by pixel;  focal: pixels
    up: (3,);  ground, sky: (3,) colours that are mirrored from below and above
    lamps: (L, 3, 3) rows: direction to a bright window, its upright, its side;  extents: (L, 2) half sizes as tangents;  power: (L,)
    foot: (2, 3) lower corner and upper corner of the object's box in its own frame;  shadow: darkness of the contact, 0 to 1
    """

    backdrop: np.ndarray
    focal: float
    up: np.ndarray
    ground: np.ndarray
    sky: np.ndarray
    lamps: np.ndarray
    extents: np.ndarray
    power: np.ndarray
    foot: np.ndarray
    shadow: float

    def behind(self, rays: np.ndarray) -> np.ndarray:
        """Backdrop colours (N, 3) along ``rays`` (N, 3) with z = 1."""
        height, width = self.backdrop.shape[:2]
        column = np.clip(rays[:, 0] * self.focal + width / 2, 0, width - 1).astype(np.int64)
        row = np.clip(rays[:, 1] * self.focal + height / 2, 0, height - 1).astype(np.int64)
        return self.backdrop[row, column]

    def mirrored(self, directions: np.ndarray) -> np.ndarray:
        """Colours (N, 3) that come from unit ``directions`` (N, 3)."""
        share = (1 / (1 + np.exp(-7 * (directions @ self.up))))[:, None]
        colours = self.ground + share * (self.sky - self.ground)
        for lamp, (high, wide), power in zip(self.lamps, self.extents, self.power, strict=True):
            towards, y, x = (directions @ lamp.T).T
            ahead = np.maximum(towards, 1e-3)
            inside = np.clip(8 * (1 - np.abs(y) / (ahead * high)), 0, 1) * np.clip(8 * (1 - np.abs(x) / (ahead * wide)), 0, 1)
            colours = colours + (power * inside * (towards > 0))[:, None]
        return colours.astype(np.float32)

    def contact(self, points: np.ndarray) -> np.ndarray:
        """Share of light (N,) that reaches ``points`` (N, 3) of the ground, given in the object's frame, beside the object."""
        low, high = self.foot
        outside = np.maximum(np.maximum(low - points, points - high), 0)[:, [0, 2]]
        reach = 0.12 * (high - low)[[0, 2]].max() + 1e-6
        return 1 - self.shadow * np.exp(-np.linalg.norm(outside, axis=1) / reach)


def random_environment(instance: Instance, view: View, backdrop: np.ndarray, rng: np.random.Generator) -> Environment:
    """An :class:`Environment` with ``backdrop`` (any size, linear) for an object in a view."""
    picture = cv2.resize(np.asarray(backdrop, dtype=np.float32), (view.width, view.height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), np.exp(rng.uniform(-0.7, 2.2)) * view.width / 288)
    up = view.rotation @ (0.0, 1.0, 0.0)
    count = int(rng.integers(1, 4))
    lamps = np.stack([_lamp(up, rng) for _ in range(count)])
    mean = picture.reshape(-1, 3).mean(0)
    rims = instance.vertices[instance.vertices[:, 1] < instance.vertices[:, 1].min() + 0.05]
    return Environment(
        backdrop=picture,
        focal=view.focal * max(view.height, view.width),
        up=up.astype(np.float32),
        ground=mean * rng.uniform(0.1, 0.8),
        sky=0.5 * mean + rng.uniform(0.1, 0.9),
        lamps=lamps,
        extents=np.exp(rng.uniform(np.log([0.15, 0.05]), np.log([1.5, 0.5]), (count, 2))),
        power=rng.uniform(1.0, 6.0, count),
        foot=np.stack([rims.min(0), rims.max(0)]),
        shadow=rng.uniform(0.2, 0.85),
    )


def _lamp(up: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3, 3) direction, upright and side of a window above the horizon and rather before the object than behind it."""
    level = np.cross(up, rng.normal(size=3))
    level /= np.linalg.norm(level)
    level = level * (1.0 if level[2] < 0.5 else -1.0)
    towards = level + rng.uniform(-0.1, 1.2) * up
    towards /= np.linalg.norm(towards)
    side = np.cross(towards, up) + 1e-9
    side /= np.linalg.norm(side)
    return np.stack([towards, np.cross(side, towards), side])


def studio(rng: np.random.Generator) -> np.ndarray:
    """A seamless background: white, black, grey or coloured, with a soft fall-off of light."""
    kind = rng.random()
    colour = np.full(3, rng.uniform(0.8, 1.3)) if kind < 0.5 else white(rng) if kind < 0.6 else dark(rng) if kind < 0.7 else tint(rng)
    fall = 1 + (rng.uniform(-0.4, 0.3) * np.linspace(-1, 1, 32)[:, None, None] if rng.random() < 0.5 else np.zeros((32, 1, 1)))
    return np.broadcast_to(colour * fall, (32, 32, 3))


def sky(view: View, rng: np.random.Generator) -> np.ndarray:
    """Blue, grey or evening sky, with or without clouds, brighter towards the horizon."""
    colours = [np.array([0.05, 0.16, 0.5]), np.array([0.15, 0.32, 0.7]), np.full(3, rng.uniform(0.3, 0.8)), np.array([0.3, 0.3, 0.35])]
    zenith = colours[rng.choice(4, p=(0.3, 0.3, 0.25, 0.15))] * rng.uniform(0.6, 1.4) * (1 + rng.normal(0, 0.08, 3))
    horizon = 0.35 * zenith + 0.65 * np.array([0.75, 0.85, 0.95]) * rng.uniform(0.6, 1.1)
    down = np.linspace(0, 1, 96)[:, None, None] if view.rotation[1, 1] < 0 else np.linspace(1, 0, 96)[:, None, None]
    picture = zenith + rng.uniform(0, 0.9) * down * (horizon - zenith) + np.zeros((1, 96, 1))
    if rng.random() < 0.5:
        cloud = np.clip((fractal(rng, 96, (2, 4, 8, 16, 32), 0.55) - rng.uniform(0.3, 0.7)) * rng.uniform(1.5, 5), 0, 1)[..., None]
        picture = picture * (1 - cloud) + cloud * rng.uniform(0.5, 1.0)
    return np.clip(picture, 0.01, None)


def anything(view: View, bank: Bank, rng: np.random.Generator) -> np.ndarray:
    """A photograph if there is one, else blurred shapes or sky."""
    photograph = bank.photograph(rng)
    if photograph is not None:
        return linear(photograph) * rng.uniform(0.5, 1.4)
    if rng.random() < 0.3:
        return sky(view, rng)
    layers = [np.clip((fractal(rng, 96, (2, 5, 11, 23), rng.uniform(0.5, 0.9)) - 0.5) * 12, 0, 1)[..., None] for _ in range(3)]
    picture = np.broadcast_to(tint(rng), (96, 96, 3))
    for layer in layers:
        picture = picture * (1 - layer) + layer * tint(rng)
    return picture
