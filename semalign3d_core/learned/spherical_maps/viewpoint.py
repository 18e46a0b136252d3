"""From which side an object is seen: viewpoint bins, the mean direction of its sphere points, and the azimuth that it stands for."""

import math
from typing import Any

import torch
from torch.nn.functional import normalize

BINS = 8


def azimuth_bins(degrees: Any, bins: int = BINS) -> torch.Tensor:
    """Bins (...,) int64 of azimuths (...,) in degrees; bin 0 begins at 0 degrees."""
    return (torch.as_tensor(degrees, dtype=torch.float32) % 360 / (360 / bins)).floor().long() % bins


def mean_directions(points: torch.Tensor) -> torch.Tensor:
    """Unit mean (B, 3) of the sphere points (B, N, 3) of an image; 0 where all of them are 0."""
    return normalize(points.mean(1), dim=-1)


def circle(degrees: Any) -> torch.Tensor:
    """(..., 2) cosine and sine of angles in degrees."""
    angle = torch.as_tensor(degrees, dtype=torch.float32) * (math.pi / 180)
    return torch.stack([angle.cos(), angle.sin()], -1)


def fit_azimuth(directions: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """The linear map (3, 2) from mean directions (M, 3) to cosine and sine of their azimuths (M,), by least squares.

    The sphere is free to turn as a whole; a few images of known azimuth say how it stands.
    """
    return torch.linalg.lstsq(directions.double(), circle(degrees).double()).solution.to(directions)


def read_azimuth(directions: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """Azimuths (M,) in degrees, 0 to 360, of mean directions (M, 3); ``axes`` comes from :func:`fit_azimuth`."""
    cosine, sine = (directions @ axes).unbind(-1)
    return torch.atan2(sine, cosine).rad2deg() % 360


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angles (...,) between azimuths in degrees, 0 to 180."""
    return ((a - b + 180) % 360 - 180).abs()
