"""The sphere of SphericalMaps (CVPR 2024, Fig. 1 and 5): as colours over the picture, as a ball with its points, PCA colours beside it.

Pictures are (h, w, 3) uint8 RGB. A place on the sphere has the colour (x, y, z) / 2 + 1 / 2, so opposite sides have opposite colours.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.learned.spherical_maps.network import sphere_points
from semalign3d_core.learned.spherical_maps.samples import SampleSet
from semalign3d_core.visualization.overlay import draw_points, feature_colours, keypoint_colours

SIDE = 320  # pixels of a ball and of a sample
DULL = 0.35  # of the picture's own brightness that shows behind the colours
SHOWN = 4  # samples of a kind on the page of a training


def sphere_colours(points: np.ndarray | torch.Tensor) -> np.ndarray:
    """Colours (..., 3) uint8 of unit vectors (..., 3)."""
    return np.clip(np.rint(127.5 * (np.asarray(points, np.float64) + 1)), 0, 255).astype(np.uint8)


def pca_colours(values: torch.Tensor, inside: torch.Tensor | None = None) -> np.ndarray:
    """Colours (h, w, 3) uint8 of features (C, h, w): their three main directions, those of the cells ``inside`` (h, w) bool if given."""
    known = None if inside is None or int(inside.sum()) < 4 else inside.flatten()
    return feature_colours(values.flatten(1).T, known).reshape(*values.shape[1:], 3).numpy()


def over_picture(rgb: np.ndarray, colours: np.ndarray, grid: SquareGrid, mask: np.ndarray | torch.Tensor | None = None) -> np.ndarray:
    """The picture under the ``colours`` (cells, cells, 3) of its feature cells, bilinear; where ``mask`` (h, w) is, or everywhere."""
    height, width = rgb.shape[:2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).float()
    shade = grid.sample(torch.from_numpy(colours.copy()).permute(2, 0, 1).float(), pixels).numpy()
    grey = rgb.mean(2, keepdims=True).repeat(3, 2)
    shown = grid.covered().numpy() & (np.ones((height, width), bool) if mask is None else np.asarray(mask))
    return np.where(shown[..., None], DULL * grey + (1 - DULL) * shade, rgb).round().clip(0, 255).astype(np.uint8)


def on_sphere(mapper: Any, evidence: Any) -> np.ndarray:
    """The picture of an :class:`ImageEvidence` in the sphere colours of its object, of a :class:`TrainedMapper` of its features."""
    sphere = mapper.of_features(evidence.features.values.cpu())
    mask = None if evidence.mask is None else evidence.mask.cpu()
    return over_picture(evidence.image, sphere_colours(sphere.permute(1, 2, 0)), evidence.features.grid, mask)


def draw_ball(
    points: np.ndarray | list[list[float]],
    colours: Sequence[Sequence[int]] | None = None,
    view: tuple[float, float] = (0.0, 0.0),
    side: int = SIDE,
) -> np.ndarray:
    """A ball with ``points`` (M, 3) of unit length as dots; those behind it are small and pale.

    colours: RGB of each; nothing means its own;  view: (longitude, latitude) in degrees of the point that faces us
    """
    axes, radius, canvas = _seen_from(*view), 0.46 * side, np.full((side, side, 3), 255, np.uint8)
    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5 - side / 2) / radius
    inside = (grid**2).sum(-1) <= 1
    near = np.concatenate([grid[inside] * [1, -1], np.sqrt(1 - (grid[inside] ** 2).sum(-1, keepdims=True))], -1)
    canvas[inside] = (0.55 * sphere_colours(near @ axes) + 0.45 * 255).astype(np.uint8)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    shown = sphere_colours(points) if colours is None else np.asarray(colours, np.uint8).reshape(-1, 3)
    seen = points @ axes.T
    for i in np.argsort(seen[:, 2]):
        place = (round(side / 2 + radius * seen[i, 0]), round(side / 2 - radius * seen[i, 1]))
        front = seen[i, 2] > 0
        colour = shown[i] if front else 0.3 * shown[i] + 0.7 * 255
        cv2.circle(canvas, place, 4 if front else 2, [int(c) for c in colour], -1, cv2.LINE_AA)
        if front:
            cv2.circle(canvas, place, 4, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


def sphere_pictures(
    rgb: np.ndarray,
    features: torch.Tensor,
    sphere: torch.Tensor,
    grid: SquareGrid,
    mask: torch.Tensor | None = None,
    keypoints: torch.Tensor | None = None,
) -> dict[str, np.ndarray]:
    """{caption: picture} of an image: sphere colours over it, the ball with its cells, PCA colours of the features.

    features: (C, cells, cells);  sphere: (3, cells, cells);  grid: of both;  mask: (h, w) bool or None;  keypoints: (K, 2) pixels or None
    """
    inside = None if mask is None else grid.cells_inside(torch.as_tensor(mask)) >= 0.5
    own = sphere.flatten(1).T if inside is None or not inside.any() else sphere[:, inside].T
    own = torch.nn.functional.normalize(own, dim=-1)
    middle = torch.nn.functional.normalize(own.mean(0), dim=0)
    view = float(torch.rad2deg(torch.atan2(middle[0], middle[2]))), float(torch.rad2deg(torch.asin(middle[1].clamp(-1, 1))))
    found = {
        "place on the sphere": over_picture(rgb, sphere_colours(sphere.permute(1, 2, 0).numpy()), grid, mask),
        "the object's cells on the sphere, seen from their middle": draw_ball(own[:: max(1, len(own) // 400)].numpy(), view=view),
        "three main directions of the features": over_picture(rgb, pca_colours(features, inside), grid, mask),
    }
    if keypoints is not None:
        visible = keypoints[torch.isfinite(keypoints).all(1)]
        places = torch.nn.functional.normalize(grid.sample(sphere, visible), dim=-1)
        found["keypoints on the sphere"] = draw_ball(places.numpy(), keypoint_colours(len(visible)), view)
        found["place on the sphere"] = draw_points(found["place on the sphere"], visible)
    return found


@torch.no_grad()
def sample_pictures(mapper: torch.nn.Sequential, kinds: dict[str, SampleSet]) -> dict[str, np.ndarray]:
    """{caption: picture} of a few samples for the page of a training; kinds: {name: SampleSet}. Cells off the object are white."""
    found = {}
    for kind, samples in kinds.items():
        for index in torch.linspace(0, len(samples) - 1, min(SHOWN, len(samples))).long().tolist():
            features, masks = samples.take(torch.tensor([index]))
            points = sphere_points(mapper(features.to(next(mapper.parameters()).device)))[0].cpu()
            colours = np.where(masks[0].numpy() > 0.5, sphere_colours(points.numpy()), 255).astype(np.uint8)
            grid = colours.reshape(samples.cells, samples.cells, 3)
            path, view = samples.files[index]
            caption = f"{kind}: {path.parent.name}/{path.stem}, view {view}, {float(samples.degrees[index]) % 360:.0f} degrees"
            found[caption] = cv2.resize(grid, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_NEAREST)
    return found


def _seen_from(longitude: float, latitude: float) -> np.ndarray:
    """(3, 3) rows right, up, towards us, of a look at a point of the sphere; the poles are on y."""
    a, b = np.deg2rad([longitude, latitude])
    towards = np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
    right = np.array([np.cos(a), 0, -np.sin(a)])
    return np.stack([right, np.cross(towards, right), towards])
