"""What numbers in a category model can mean: files with others are refused, however well-formed they are."""

import math
from typing import Any

import torch
from torch import Tensor

LENGTH = 100.0  # of a unit of diameter 1
# tensor -> (least, most)
RANGES = {
    "shape": (-LENGTH, LENGTH),
    "keypoint_features": (-1.01, 1.01),  # unit vectors in half precision
    "dense_features": (-1.01, 1.01),
    "keypoint_mu": (-1.01, 1.01),  # cosines
    "dense_mu": (-1.01, 1.01),
    "keypoint_sd": (0.0, 2.0),
    "dense_sd": (0.0, 2.0),
    "weights": (-1e4, 1e4),
    "offsets": (-LENGTH, LENGTH),
    "plane": (-1e4, 1e4),
    "modes": (-1.01, 1.01),  # unit norm
    "mode_variances": (0.0, LENGTH**2),
    "pose_rotations": (-1.01, 1.01),
}
TOLERANCE = 0.02  # of rotations


def value_problem(tensors: dict[str, Tensor], calibration: dict[str, Any]) -> str | None:
    """What is physically impossible in the tensors of a model (finite, of the right shapes), or None."""
    for name, (least, most) in RANGES.items():
        values = tensors.get(name, torch.zeros(0))  # older files have fewer
        if values.numel() and not (values.min() >= least and values.max() <= most):
            return f"{name} has values from {values.min():.3g} to {values.max():.3g}, expected {least:g} to {most:g}"
    focal, diameter = tensors["focal"], tensors["diameter_metres"]
    if not (0.01 <= focal[0] <= 1000 and 0 <= focal[1] <= 10):
        return f"focal is {focal.tolist()}, expected a positive focal length in units of the longer side, and its spread"
    if not (torch.isnan(diameter).all() or 0 < diameter[0] < 1e5 and not diameter[1] < 0):
        return f"diameter_metres is {diameter.tolist()}, expected a positive length and its spread"
    rotations = tensors["pose_rotations"]
    if rotations.numel():
        products = rotations @ rotations.transpose(1, 2) - torch.eye(3)
        if products.abs().max() > TOLERANCE or (torch.linalg.det(rotations) < 0).any():
            return "pose_rotations are no rotations"
    wrong = next((key for key, value in calibration.items() if not _finite(value)), None)
    return None if wrong is None else f"calibration has no finite number for {wrong!r}"


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return isinstance(value, str) or value is None or isinstance(value, int | float) and math.isfinite(value)
