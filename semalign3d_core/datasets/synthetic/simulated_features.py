"""Simulated backbone features: what a good self-supervised backbone does well (meaning) and badly (left and right), without a network.

The feature of an object pixel is a random function of its place on the category's template, so equal meaning gives equal
features on all instances:

    f = offset + w E(|x|, y, z) + (1 - w) S(x, y, z) + a D_instance(x, y, z)

with E, S, D random Fourier fields (cosines of random frequency and phase, unit variance per channel), (x, y, z) the canonical
coordinates, and w the folding weight: E cannot tell left from right, w = 1 makes the sides indistinguishable. D is another field for
every instance: its smooth deviation. Everything that is not the object gets a smooth random field of the image plane, in
which some blobs imitate pieces of the category's surface. Each cell of the grid is the mean over its sub-samples; noise of its
own is added to every cell; a Gaussian blur makes neighbours overlap. Features are scaled to unit norm.

The features of the mirror image are those of the mirrored object: the surface point seen at a mirrored place is the one with x of
opposite sign. Its noise is its own; its surroundings are mirrored.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from semalign3d_core.datasets.synthetic.instances import generator
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import read_json, write_json
from semalign3d_core.runtime.tensors import write_tensors

SUB_SAMPLES = 3  # per cell side
OBJECT_WEIGHT = np.float32(8)  # of a sub-sample on the object: a patch that touches the object speaks of the object
MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SimulatedFeatureConfig:
    """Size, folding and noise of simulated features.

    channels, cells: size of the feature map;  folding: w, 0 (sides differ fully) to 1 (indistinguishable)
    wavelength: typical length of the fields, template diameters;  offset: norm of the common part, relative to that of the fields
    instance_change: a;  noise: norm of the cell noise relative to the feature's norm (with offset);  blur: sd in cells
    blobs: range of the number of false pieces of surface;  seed: of the fields: one seed is one "backbone".
    """

    channels: int = 96
    cells: int = 60
    folding: float = 0.85
    wavelength: float = 0.9
    offset: float = 0.3
    instance_change: float = 0.15
    noise: float = 0.6
    blur: float = 0.8
    blobs: tuple = (1, 4)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.folding <= 1 or min(self.noise, self.blur, self.offset, self.instance_change) < 0:
            raise InputError(f"simulated features: folding must lie in 0..1 and noise, blur, offset not below 0, found {self}")
        if self.channels < 1 or self.cells < 2 or self.wavelength <= 0:
            raise InputError(f"simulated features need channels >= 1, cells >= 2 and a positive wavelength, found {self}")


@dataclass(frozen=True)
class _Field:
    """A random Fourier field: ``sqrt(2) cos(frequency x + phase)``, one cosine per channel. frequency (C, D), phase (C,)."""

    frequency: np.ndarray
    phase: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, channels: int, dimensions: int, wavelength: float) -> Any:
        frequency = rng.normal(size=(channels, dimensions)) * (2 * np.pi / wavelength / np.sqrt(dimensions))
        return cls(frequency.astype(np.float32), rng.uniform(0, 2 * np.pi, channels).astype(np.float32))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (N, C) at points (N, D)."""
        return np.float32(np.sqrt(2)) * np.cos(points.astype(np.float32) @ self.frequency.T + self.phase)


def simulated_features(
    rendering: Any, config: SimulatedFeatureConfig = SimulatedFeatureConfig(), mirrored: bool = False, with_object: bool = True
) -> np.ndarray:  # noqa: B008 (frozen)
    """Features (C, cells, cells) float32 of unit norm of a rendering, or of its mirror image; grid padded at the bottom right.

    with_object: False gives the surroundings alone, as if the object were not there.
    """
    inside, canonical = _sub_samples(rendering, config.cells, mirrored)
    inside &= with_object
    features = _surroundings(rendering, config, mirrored)
    features[inside] = _surface(canonical[inside], rendering, config, mirrored)
    n, s = config.cells, SUB_SAMPLES
    weight = np.where(inside, OBJECT_WEIGHT, np.float32(1)).reshape(n, s, n, s, 1)
    cells = (features.reshape(n, s, n, s, -1) * weight).sum((1, 3)) / weight.sum((1, 3)) + _common_part(rendering.category, config)
    rng = generator("cell noise", rendering.category, rendering.instance_seed, rendering.view_seed, int(mirrored), config.seed)
    noise = rng.standard_normal(cells.shape, dtype=np.float32) / np.float32(np.sqrt(config.channels))
    cells = cells + config.noise * np.linalg.norm(cells, axis=-1, keepdims=True) * noise
    cells = gaussian_filter(cells, (config.blur, config.blur, 0), mode="nearest") if config.blur > 0 else cells
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True) + 1e-9
    return np.ascontiguousarray(cells.transpose(2, 0, 1), dtype=np.float32)


@dataclass(frozen=True)
class FeatureFiles:
    """Writes ``Features/<name>/<category>/<image>.safetensors`` and ``.flip.safetensors`` (float16) of a data set folder."""

    name: str
    config: SimulatedFeatureConfig

    def claim(self, root: Path) -> "FeatureFiles":
        """Writes ``grid.json``, which also tells how the features were made; returns self. Refuses a folder made otherwise."""
        path = self._folder(root) / "grid.json"
        content = {"padding": "bottom_right", "simulated": asdict(self.config) | {"blobs": list(self.config.blobs)}}
        if not path.is_file():
            write_json(path, content, ours=True)
        elif read_json(path) != content:
            raise InputError(f"{path}: these features were made with other options; choose another name or remove {path.parent}")
        return self

    def exists(self, root: Path, task: Any) -> bool:
        """Whether both files of an image are there."""
        return all(path.is_file() for path in self._paths(root, task))

    def write(self, root: Path, task: Any, rendering: Any) -> None:
        """Writes both files of an image."""
        for mirrored, path in enumerate(self._paths(root, task)):
            features = torch.from_numpy(simulated_features(rendering, self.config, bool(mirrored))).half()
            write_tensors(path, {"features": features}, ours=True)

    def _folder(self, root: Path) -> Path:
        return Path(root) / "Features" / self.name

    def _paths(self, root: Path, task: Any) -> list[Path]:
        return [self._folder(root) / task.category / f"{task.name}{suffix}.safetensors" for suffix in ("", ".flip")]


def _sub_samples(rendering: Any, cells: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """``inside`` (N, N) bool and ``canonical`` (N, N, 3), seen by the sub-samples of the cells, N = cells * SUB_SAMPLES.

    In the mirror image the canonical coordinates change the sign of x.
    """
    height, width = rendering.mask.shape
    count = cells * SUB_SAMPLES
    pixel = np.floor((np.arange(count) + 0.5) * max(height, width) / count).astype(int)
    rows, columns = np.minimum(pixel, height - 1), np.minimum(pixel, width - 1)
    if mirrored:
        columns = width - 1 - columns
    canonical = rendering.canonical[rows[:, None], columns]
    inside = rendering.mask[rows[:, None], columns] & (pixel < height)[:, None] & (pixel < width)
    return inside, canonical * (MIRROR if mirrored else 1)


def _fields(category: str, config: SimulatedFeatureConfig) -> tuple[_Field, ...]:
    """The folded and the sided field of a category."""
    rng = generator("field", category, config.seed)
    return tuple(_Field.random(rng, config.channels, 3, config.wavelength) for _ in range(2))


def _meaning(points: np.ndarray, category: str, config: SimulatedFeatureConfig) -> np.ndarray:
    """``w E(|x|, y, z) + (1 - w) S(x, y, z)`` at canonical points (N, 3)."""
    even, sided = _fields(category, config)
    folded = points * np.where(points[:, :1] < 0, MIRROR, 1)
    return config.folding * even(folded) + (1 - config.folding) * sided(points)


def _surface(points: np.ndarray, rendering: Any, config: SimulatedFeatureConfig, mirrored: bool) -> np.ndarray:
    """Features (N, C) of the object's surface at canonical points (N, 3), without the common part."""
    rng = generator("instance field", rendering.category, rendering.instance_seed, config.seed)
    change = _Field.random(rng, config.channels, 3, config.wavelength)
    # The deviation belongs to the surface itself, so the mirror image shows it where the point really is.
    return _meaning(points, rendering.category, config) + config.instance_change * change(points * (MIRROR if mirrored else 1))


def _common_part(category: str, config: SimulatedFeatureConfig) -> np.ndarray:
    direction = generator("offset", category, config.seed).normal(size=config.channels)
    scale = np.sqrt(config.folding**2 + (1 - config.folding) ** 2)
    return (config.offset * scale * direction).astype(np.float32)


def _surroundings(rendering: Any, config: SimulatedFeatureConfig, mirrored: bool) -> np.ndarray:
    """Features (N, N, C) of everything that is not the object, N = cells * SUB_SAMPLES."""
    count = config.cells * SUB_SAMPLES
    rng = generator("clutter", rendering.category, rendering.instance_seed, rendering.view_seed, config.seed)
    step = (np.arange(count, dtype=np.float32) + 0.5) / count
    if mirrored:  # the same surroundings, mirrored within the image's own width
        height, width = rendering.mask.shape
        step_x = np.float32(width / max(height, width)) - step
    else:
        step_x = step
    x, y = np.meshgrid(step_x, step)
    place = np.stack([x, y], -1).reshape(-1, 2)
    clutter = _Field.random(rng, config.channels, 2, 0.35)
    features = np.sqrt(config.folding**2 + (1 - config.folding) ** 2) * clutter(place)
    for _ in range(rng.integers(config.blobs[0], config.blobs[1] + 1)):
        _add_blob(features, place, rng, rendering, config, mirrored)
    return features.reshape(count, count, -1)


def _add_blob(
    features: np.ndarray, place: np.ndarray, rng: np.random.Generator, rendering: Any, config: SimulatedFeatureConfig, mirrored: bool
) -> None:
    """Overwrites an ellipse with features like those of a piece of the category's surface."""
    centre, radius = rng.random(2), rng.uniform(0.03, 0.12, 2)
    inside = (((place - centre) / radius) ** 2).sum(1) < 1
    visible = rendering.canonical[rendering.mask]
    if not inside.any() or not len(visible):
        return
    tangent = rng.normal(size=(2, 3)) * rng.uniform(0.5, 2.0)
    points = visible[rng.integers(len(visible))] + rng.normal(0, 0.1, 3) + (place[inside] - centre) @ tangent
    features[inside] = _meaning(points * (MIRROR if mirrored else 1), rendering.category, config)
