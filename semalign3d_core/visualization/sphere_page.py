"""The page that shows many images on the sphere (SphericalMaps, CVPR 2024, Fig. 5)."""

import colorsys
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch

from semalign3d_core.learned.spherical_maps.inference import TrainedMapper, mapper_input
from semalign3d_core.learned.spherical_maps.viewpoint import mean_directions
from semalign3d_core.pages.html import note, page, section
from semalign3d_core.pages.page import figures
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.look import close_up
from semalign3d_core.visualization.sphere import draw_ball, sphere_pictures


@dataclass(frozen=True)
class ImageOnSphere:
    """What the page shows of an image.

    direction: (3,) mean of the object's places on the sphere, of unit length;  azimuth: annotated, in degrees, or None
    pictures:  HTML of its pictures
    """

    name: str
    direction: torch.Tensor
    azimuth: float | None
    pictures: str

    @classmethod
    def of(
        cls, image: ImageInput, mask: torch.Tensor | None, backbone: Any, mapper: TrainedMapper, azimuth: float | None = None
    ) -> "ImageOnSphere":
        """Looks at an image, whose object is where ``mask`` (h, w) bool is, or everywhere."""
        values, grid = mapper_input(backbone, close_up(image, mask, backbone), mapper.facts.raw)
        sphere = mapper.points(values)
        inside = torch.ones(grid.cells**2) if mask is None else (grid.cells_inside(mask) >= 0.5).float().flatten()
        direction = mean_directions((sphere.flatten(1) * inside).T[None])[0]
        return cls(image.name, direction, azimuth, figures(sphere_pictures(image.rgb, values, sphere, grid, mask), "gallery"))


def sphere_page(title: str, groups: dict[str, list[ImageOnSphere]]) -> str:
    """HTML of the page; groups: {heading: images}, each with a ball on which every image is one dot."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for heading, images in groups.items():
        body = [_overview(images)]
        body += [f"<h3>{escape(image.name)}{_degrees(image.azimuth)}</h3>{image.pictures}" for image in images]
        parts.append(section(heading, "\n".join(body)))
    return page(title, "\n".join(parts))


def _overview(images: list[ImageOnSphere]) -> str:
    known = [image for image in images if image.azimuth is not None]
    colours = [_hue(image.azimuth) for image in known if image.azimuth is not None]
    shown = known or images
    directions = np.array([image.direction.tolist() for image in shown])
    views = {"longitude 0": (0.0, 0.0), "longitude 90": (90.0, 0.0), "longitude 180": (180.0, 0.0), "from above": (0.0, 89.0)}
    balls = {f"the sphere, {name}": draw_ball(directions, colours or None, view, 240) for name, view in views.items()}
    legend = "The colour of a dot is the annotated azimuth of its image." if known else "The views of these images are not annotated."
    return note(f"Every dot is the mean place of one image's object. {legend}") + figures(balls, "gallery")


def _hue(azimuth: float) -> list[int]:
    return [round(255 * part) for part in colorsys.hsv_to_rgb(azimuth % 360 / 360, 0.9, 0.9)]


def _degrees(azimuth: float | None) -> str:
    return "" if azimuth is None else f", seen from {azimuth % 360:.0f} degrees"
