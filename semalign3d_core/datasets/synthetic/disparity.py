"""What a monocular depth network would say: relative inverse depth, wrong in the ways that such networks are wrong."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class DisparityConfig:
    """How monocular disparity is wrong.

    noise: smooth error, share of the object's own range of disparities;  bend: sd of the log of a random power (0: none);
    blur: pixels by which edges are smeared
    """

    noise: float = 0.03
    bend: float = 0.0
    blur: float = 0.6


def monocular_disparity(depth: np.ndarray, mask: np.ndarray, rng: np.random.Generator, config: DisparityConfig) -> np.ndarray:
    """(h, w) float32, larger is nearer, unknown scale and shift.

    depth: (h, w) metres, NaN where there is nothing;  mask: (h, w) bool of the object;  rng: numpy generator.
    """
    inverse = np.where(np.isfinite(depth), 1 / np.maximum(np.nan_to_num(depth, nan=1e9), 1e-6), 0.0)
    inverse /= max(inverse.max(), 1e-9)
    bent = inverse ** np.exp(rng.normal(0, config.bend)) if config.bend > 0 else inverse
    object_values = bent[mask] if mask.any() else bent.ravel()
    span = max(np.percentile(object_values, 95) - np.percentile(object_values, 5), 1e-3)
    noisy = bent + config.noise * span * _smooth_noise(depth.shape, rng)
    if config.blur > 0:
        noisy = cv2.GaussianBlur(noisy, (0, 0), config.blur)
    shift = rng.uniform(-0.9, 0.3) * max(noisy.min(), 0.0)
    return (np.exp(rng.uniform(0, 3)) * np.maximum(noisy + shift, 1e-4)).astype(np.float32)


def _smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(h, w) noise of unit variance with features of 1/12 and 1/5 of the picture."""
    total = np.zeros(shape)
    for cells in (12, 5):
        coarse = rng.normal(size=(cells, cells))
        total += cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return total / (total.std() + 1e-9)
