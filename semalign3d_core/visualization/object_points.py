"""The object as coloured points, which every 3D export shows."""

from dataclasses import dataclass

import numpy as np
import torch

from semalign3d_core.alignment.result import Alignment, inside_image
from semalign3d_core.visualization.overlay import keypoint_colours

GREY = 150


@dataclass(frozen=True)
class ObjectPoints:
    """Points of an aligned object in the camera frame (x right, y down, z forward).

    cloud: (P, 3) float32 dense points;  cloud_colours: (P, 3) uint8
    keypoints: (K', 3) float32, those that the model knows;  keypoint_colours: (K', 3) uint8;  names: K' names
    size: diameter of the object
    """

    cloud: np.ndarray
    cloud_colours: np.ndarray
    keypoints: np.ndarray
    keypoint_colours: np.ndarray
    names: tuple[str, ...]
    size: float


def object_points(alignment: Alignment, image: np.ndarray | None) -> ObjectPoints:
    """The :class:`ObjectPoints` of an alignment; dense points have the colours of ``image`` (h, w, 3), grey outside or without it."""
    cloud = alignment.cloud_3d.detach().cpu().float()
    colours = np.full((len(cloud), 3), GREY, np.uint8)
    if image is not None and len(cloud):
        pixels = alignment.camera.to_pixels(alignment.camera.project(cloud))
        inside = (inside_image(pixels, alignment.camera) & (cloud[:, 2] > 0)).numpy()
        column, row = pixels[torch.from_numpy(inside)].round().long().T.numpy()
        colours[inside] = image[row, column]
    known = torch.isfinite(alignment.keypoints_3d).all(1).nonzero()[:, 0].tolist()
    all_colours = keypoint_colours(len(alignment.keypoint_names))
    return ObjectPoints(
        cloud.numpy(),
        colours,
        alignment.keypoints_3d[known].detach().cpu().float().numpy(),
        np.array([all_colours[k] for k in known], np.uint8).reshape(-1, 3),
        tuple(alignment.keypoint_names[k] for k in known),
        float(alignment.scale),
    )
