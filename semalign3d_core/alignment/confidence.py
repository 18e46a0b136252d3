"""How much an alignment is to be believed: logistic maps of a few statistics, calibrated per category.

``CategoryModel.calibration`` holds, for each map (``pose``: the pose is right; ``keypoints``: at least 80 % of the keypoints are within
0.1; ``present``: the object is there at all), ``<map>.bias`` and ``<map>.<statistic>``; ``depth_weight`` (of the depth-order check), and
``axis_x, axis_y, axis_z`` of an axis about which the category's pose is not determined.
"""

import math

import torch

# Measured on simulated categories (bench/alignment.py); used where a model carries no calibration of its own.
DEFAULTS = {
    "pose.bias": 0.5, "pose.energy": -6.0, "pose.margin": 30.0,
    "keypoints.bias": -3.0, "keypoints.energy": -12.0, "keypoints.margin": 6.0,
    "present.bias": -2.0, "present.energy": -12.0, "present.margin": 4.0,
}  # fmt: skip
MAPS = ("pose", "keypoints", "present")
STATISTICS = ("energy", "margin", "fit")


def statistics(observation, selection, projected):
    """{name: float} of the winner: its score, its margin, and how well its front points fit the features below them.

    projected: (J, 2) all points of the winner, normalised.
    """
    region = observation.region
    cell = ((projected - region.origin) / region.spacing).round().long()
    inside = (cell >= 0).all(-1) & (cell[:, 0] < region.columns) & (cell[:, 1] < region.rows)
    index = cell[:, 1].clamp(0, region.rows - 1) * region.columns + cell[:, 0].clamp(0, region.columns - 1)
    log = observation.log_semantic.gather(1, index[:, None])[:, 0]
    deviation = torch.where(inside, (-2 * log).sqrt().clamp(max=4), 4.0)
    return {"energy": float(selection.score[selection.winner]), "margin": selection.margin, "fit": -float(deviation.mean())}


def probability(calibration, kind, values):
    """Logistic map ``kind`` of the statistics {name: float}."""
    table = calibration if f"{kind}.bias" in calibration else DEFAULTS
    exponent = table[f"{kind}.bias"] + sum(table.get(f"{kind}.{name}", 0.0) * value for name, value in values.items())
    return 1 / (1 + math.exp(-max(min(exponent, 30.0), -30.0)))


def undetermined_axis(calibration, like):
    """(3,) unit vector of the axis in the calibration, or None."""
    if "axis_x" not in calibration:
        return None
    return torch.tensor([calibration[f"axis_{c}"] for c in "xyz"]).to(like)
