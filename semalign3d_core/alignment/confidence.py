"""How much an alignment is to be believed: logistic maps of a few statistics, calibrated per category.

``CategoryModel.calibration`` holds, for each map (``pose``: the pose is right; ``keypoints``: at least 80 % of the keypoints are within
0.1; ``present``: the object is there at all), ``<map>.bias`` and ``<map>.<statistic>``; ``depth_weight`` (of the depth-order check), and
``axis_x, axis_y, axis_z`` of an axis about which the category's pose is not determined.
"""

import math

import torch

from semalign3d_core.alignment.visibility import front_most

# Measured on simulated categories (bench/alignment.py); used where a model carries no calibration of its own.
DEFAULTS = {
    "pose.bias": -3.0, "pose.energy": -3.0, "pose.margin": 4.0, "pose.contrast": 1.8,
    "keypoints.bias": -7.0, "keypoints.energy": -4.0, "keypoints.margin": 1.0, "keypoints.contrast": 2.0,
    "present.bias": -5.0, "present.contrast": 4.5,
}  # fmt: skip
MAPS = ("pose", "keypoints", "present")
STATISTICS = ("energy", "margin", "fit", "contrast")
WORST_DEVIATION = 4.0  # standard deviations a single point can be off


def statistics(observation, selection, points, projected, dense):
    """{name: float} of the winner.

    energy: its score; margin: to the best rival; fit: minus the mean deviation of its visible points from the expected
    similarity, in standard deviations; contrast: how far the similarity below its visible points stands out
    from that of the same points elsewhere in the image, in standard deviations (independent of how noisy features are).
    points: (J, 3) of the winner, the first ``dense`` of them its cloud; projected: (J, 2), normalised.
    """
    region = observation.region
    cell = ((projected - region.origin) / region.spacing).round().long()
    inside = (cell >= 0).all(-1) & (cell[:, 0] < region.columns) & (cell[:, 1] < region.rows)
    index = (cell[:, 1].clamp(0, region.rows - 1) * region.columns + cell[:, 0].clamp(0, region.columns - 1))[:, None]
    seen = front_most(projected[None, :dense], points[None, :dense, 2], projected[None], points[None, :, 2])[0].to(projected)
    deviation = (-2 * observation.log_semantic.gather(1, index)[:, 0]).sqrt().clamp(max=WORST_DEVIATION)
    deviation = torch.where(inside, deviation, torch.full_like(deviation, WORST_DEVIATION))
    similarity = observation.similarity
    spread, mean = torch.std_mean(similarity, dim=1)
    contrast = (similarity.gather(1, index)[:, 0] - mean) / spread.clamp(min=1e-6) * inside
    return {
        "energy": float(selection.energies[selection.winner]), "margin": selection.margin,
        "fit": -float((deviation * seen).sum() / seen.sum()), "contrast": float((contrast * seen).sum() / seen.sum()),
    }  # fmt: skip


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
