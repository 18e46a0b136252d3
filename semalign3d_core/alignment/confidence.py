"""How much an alignment is to be believed: logistic maps of a few statistics, calibrated per category.

``CategoryModel.calibration`` holds, for each map (``pose``: the pose is right; ``keypoints``: at least 80 % of the keypoints are within
0.1; ``present``: the object is there at all), ``<map>.bias`` and ``<map>.<statistic>``; ``depth_weight`` (of the depth-order check), and
``axis_x, axis_y, axis_z`` of an axis about which the category's pose is not determined.
"""

import torch

from semalign3d_core.alignment.selection import picked
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


def statistics(category, observation, selection, points, projected):
    """(S,) the STATISTICS of the winner.

    energy: its score; margin: to the best rival; fit: minus the mean deviation of its visible points from the expected
    similarity, in standard deviations; contrast: how far the similarity below its visible points stands out
    from that of the same points elsewhere in the image, in standard deviations (independent of how noisy features are).
    points: (J, 3) of the winner, the first P of them its cloud; projected: (J, 2), normalised.
    """
    blocks, chosen = observation.blocks, category.scoring
    rows, columns = blocks.coverage.shape
    column, row = ((projected[chosen] - blocks.origin) / blocks.spacing).round().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < columns) & (row < rows)
    index = (row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)).long()[:, None]
    cloud, depth = projected[None, : category.dense], points[None, : category.dense, 2]
    seen = front_most(cloud, depth, projected[None, chosen], points[None, chosen, 2])[0].to(projected)
    deviation = (-2 * blocks.log_semantic.flatten(1).gather(1, index)[:, 0]).sqrt().clamp(max=WORST_DEVIATION)
    deviation = torch.where(inside, deviation, WORST_DEVIATION)
    similarity, looked_at = blocks.similarity.flatten(1), (blocks.near.flatten() >= 0.5).to(points)
    looked_at = looked_at / looked_at.sum()
    mean = similarity @ looked_at
    spread = (((similarity - mean[:, None]) ** 2) @ looked_at).sqrt()
    contrast = (similarity.gather(1, index)[:, 0] - mean) / spread.clamp(min=1e-6) * inside
    share = seen / seen.sum()
    return torch.stack([picked(selection.energies, selection.winner), selection.margin, -(deviation * share).sum(), (contrast * share).sum()])


def belief_weights(calibration, like):
    """Biases (3,) and weights (3, S) of the MAPS, from a calibration or from the defaults."""
    tables = [calibration if f"{kind}.bias" in calibration else DEFAULTS for kind in MAPS]
    biases = torch.tensor([table[f"{kind}.bias"] for kind, table in zip(MAPS, tables, strict=True)])
    weights = torch.tensor([[table.get(f"{kind}.{name}", 0.0) for name in STATISTICS] for kind, table in zip(MAPS, tables, strict=True)])
    return biases.to(like), weights.to(like)


def undetermined_axis(calibration, like):
    """(3,) unit vector of the axis in the calibration, or None."""
    if "axis_x" not in calibration:
        return None
    return torch.tensor([calibration[f"axis_{c}"] for c in "xyz"]).to(like)
