"""Where the camera stands: random views of an object, and orbits around it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semalign3d_core.datasets.synthetic.instances import CATEGORIES
from semalign3d_core.datasets.synthetic.varieties import VIEWS, pick

FRONTAL_SHARE = 0.75  # of the views of categories with a preferred side


@dataclass(frozen=True)
class ViewConfig:
    """How views are drawn. Angles in degrees, focal lengths in units of the longer image side L, rates as shares of images."""

    elevation: tuple = (-10.0, 50.0)
    focal: tuple = (0.8, 2.5)
    fill: tuple = (0.50, 0.85)  # longer side of the object's box, share of L
    small_rate: float = 0.08
    small_fill: tuple = (0.16, 0.30)
    truncation_rate: float = 0.12
    truncated_fill: tuple = (1.0, 1.4)
    upside_down_rate: float = 0.02
    roll: float | None = None  # standard deviation in degrees; None: the category's own


@dataclass(frozen=True)
class View:
    """A camera and the pose of an object in front of it.

    height, width: image size in pixels;  focal: units of L;  azimuth, elevation, roll: degrees (azimuth 0 looks at the front)
    rotation: (3, 3) object to camera;  translation: (3,) metres
    ``x_cam = diameter * rotation @ X + translation``; principal point (w / 2, h / 2).
    """

    height: int
    width: int
    focal: float
    azimuth: float
    elevation: float
    roll: float
    rotation: np.ndarray
    translation: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """3x3 intrinsic matrix in pixels."""
        f = self.focal * max(self.height, self.width)
        return np.array([[f, 0, self.width / 2], [0, f, self.height / 2], [0, 0, 1]])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points (..., 3) to pixels (..., 2)."""
        f = self.focal * max(self.height, self.width)
        return f * points[..., :2] / points[..., 2:] + np.array([self.width, self.height]) / 2

    def back_project(self, pixel: np.ndarray, depth: float) -> np.ndarray:
        """The camera-frame point (3,) at a pixel (2,) and a depth in metres."""
        f = self.focal * max(self.height, self.width)
        return np.append((np.asarray(pixel) - np.array([self.width, self.height]) / 2) / f, 1.0) * depth

    @property
    def half_extent(self) -> np.ndarray:
        """(2,) tangents of half the field of view."""
        return np.array([self.width, self.height]) / (2 * self.focal * max(self.height, self.width))

    def camera_position(self, diameter: float) -> np.ndarray:
        """(3,) the camera in the object frame."""
        return -self.rotation.T @ self.translation / diameter

    def to_camera(self, points: np.ndarray, diameter: float) -> np.ndarray:
        """Object-frame points (..., 3) to the camera frame in metres."""
        return diameter * points @ self.rotation.T + self.translation


def rotation_matrix(azimuth: float, elevation: float, roll: float) -> np.ndarray:
    """Object-to-camera rotation of a camera at ``azimuth`` (0 = in front, on +z; 90 = on +x) and ``elevation``, rolled; degrees."""
    a, e, r = np.deg2rad([azimuth, elevation, roll])
    forward = -np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    upright = np.stack([right, np.cross(forward, right), forward])
    return np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]) @ upright


def varied(config: ViewConfig, category: str, rng: np.random.Generator) -> ViewConfig:
    """The settings with the elevations, sizes and rolls of one of the varied world's kinds of views of a category."""
    return replace(config, **pick(rng, VIEWS[category])[1])


def random_view(instance: Any, rng: np.random.Generator, size: int | tuple[int, int], config: ViewConfig = ViewConfig()) -> View:  # noqa: B008 (frozen)
    """A random :class:`View` of an instance; ``size`` is the side of a square image or (height, width) in pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    category = CATEGORIES[instance.category]
    azimuth = rng.uniform(0, 360)
    if category.frontal is not None and rng.random() < FRONTAL_SHARE:
        azimuth = rng.uniform(-category.frontal, category.frontal) % 360
    elevation, roll = rng.uniform(*config.elevation), rng.normal(0, category.roll if config.roll is None else config.roll)
    if rng.random() < config.upside_down_rate:
        roll += 180
    focal = np.exp(rng.uniform(*np.log(config.focal)))
    kind = rng.random()
    truncated, small = kind < config.truncation_rate, kind > 1 - config.small_rate
    fill = rng.uniform(*(config.truncated_fill if truncated else config.small_fill if small else config.fill))
    rotation = rotation_matrix(azimuth, elevation, roll)
    view = View(height, width, focal, azimuth, elevation, roll, rotation, np.zeros(3))
    return _seen_from(instance, place(instance, view, fill, _box_shift(rng, fill, (height, width), truncated)))


def _seen_from(instance: Any, view: View) -> View:
    """The view with the azimuth and elevation at which the camera really sees the object, which need not lie on the optical axis.

    The frame of a rotationally symmetric object is turned so that its azimuth is exactly 0.
    """
    camera = view.camera_position(instance.diameter)
    azimuth = np.arctan2(camera[0], camera[2])
    elevation = np.rad2deg(np.arcsin(camera[1] / np.linalg.norm(camera)))
    if CATEGORIES[instance.category].symmetric:
        sine, cosine = np.sin(azimuth), np.cos(azimuth)
        turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        return replace(view, rotation=view.rotation @ turn, azimuth=0.0, elevation=elevation)
    return replace(view, azimuth=np.rad2deg(azimuth) % 360, elevation=elevation)


def _box_shift(rng: np.random.Generator, fill: float, size: tuple[int, int], truncated: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Function of the box extent (pixels) that draws where the box's middle goes, in pixels from the image's middle."""
    extent = np.array([size[1], size[0]], dtype=float)
    share = rng.uniform(-1, 1, 2)

    def shift(box: np.ndarray) -> np.ndarray:
        room = np.maximum(extent - box - 0.04 * extent.max(), 0) / 2
        if truncated:
            room = 0.12 * extent + 0.25 * np.abs(extent - box)
        return share * room

    return shift


def place(instance: Any, view: View, fill: float, shift: Callable[[np.ndarray], np.ndarray] | None = None) -> View:
    """The view with the translation at which the object's box has a longer side of ``fill`` L and lies where ``shift`` says."""
    longer = max(view.height, view.width)
    points = instance.diameter * instance.vertices @ view.rotation.T
    offset, depth = np.zeros(2), 2.0 * view.focal / fill * instance.diameter
    target = np.zeros(2)
    for _ in range(8):
        nearest = -points[:, 2].min() + 0.15 * instance.diameter
        depth = max(depth, nearest)
        translation = np.array([*offset, depth])
        pixels = view.project(points + translation)
        low, high = pixels.min(0), pixels.max(0)
        target = shift(high - low) if shift else target
        depth *= ((high - low).max() / (fill * longer)) ** 0.9
        miss = target - (0.5 * (low + high) - np.array([view.width, view.height]) / 2)
        offset = offset + 0.9 * miss * depth / (view.focal * longer)
    return replace(view, translation=np.array([*offset, max(depth, nearest)]))


def orbit_views(
    instance: Any,
    count: int,
    size: int | tuple[int, int],
    turns: float = 1.0,
    focal: float = 1.5,
    fill: float = 0.7,
    elevation: tuple[float, float] = (5.0, 30.0),
) -> list[View]:
    """``count`` smoothly changing views: the object turns (a bottle only nods and rolls, it looks the same from all sides)."""
    height, width = (size, size) if isinstance(size, int) else size
    symmetric = CATEGORIES[instance.category].symmetric
    views = []
    for phase in np.arange(count) / max(count, 1):
        wave = np.sin(2 * np.pi * phase)
        azimuth = 0.0 if symmetric else (360 * turns * phase) % 360
        tilt = elevation[0] + (elevation[1] - elevation[0]) * 0.5 * (1 + wave)
        roll = (25.0 if symmetric else 5.0) * np.sin(4 * np.pi * phase)
        view = View(height, width, focal, azimuth, tilt, roll, rotation_matrix(azimuth, tilt, roll), np.zeros(3))
        placed = place(instance, view, fill * (1 + 0.12 * np.cos(2 * np.pi * phase)), _sway(phase, longer=max(height, width)))
        views.append(_seen_from(instance, placed))
    return views


def _sway(phase: float, longer: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda box: 0.05 * longer * np.array([np.sin(2 * np.pi * phase), np.cos(4 * np.pi * phase)])
