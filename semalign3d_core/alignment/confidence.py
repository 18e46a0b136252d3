"""The probability that an alignment is right: logistic maps of a few statistics, calibrated per category.

``CategoryModel.calibration`` holds, for each map (``pose``: the pose is right; ``keypoints``: at least 80 % of the keypoints are within
0.1; ``present``: the object is there at all; ``found``: it is there and the pose is right), ``<map>.bias`` and
``<map>.<statistic>``; ``depth_weight`` (of the depth-order check); ``axis_x, axis_y, axis_z`` of an axis about which the
category's pose is not determined; and the keypoint bias ``offset.<keypoint>.<axis>``.

A patch that touches the object's border shows less of the object and more of what is behind it, so that the features of a corner
are found a little inside the object, and an aligned shape comes out a few percent too small. The mean difference to the annotations of
the training images, per keypoint and in the object's own frame, is the *keypoint bias*. It is added to what is reported; the solver
knows nothing of it. How all of this is learned is in ``semalign3d_core.calibration``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.choice import Choice, ProjectedSolutions, row
from semalign3d_core.alignment.config import LEAST_SD
from semalign3d_core.alignment.gauss_newton.poses import Candidates, poses_of_keypoints
from semalign3d_core.alignment.observation import Observation
from semalign3d_core.runtime.values import ShortRepr

MAPS = ("pose", "keypoints", "present", "found")
STATISTICS = ("energy", "margin", "lead", "fit", "contrast", "depth", "evidence", "deformation", "cover", "inside", "masked", "with_depth")
# Bias and weights of the STATISTICS: the prior of the maps of a category, used in their place where a model has no calibration of its own.
# A category's own training images show too few wrong results to learn all weights from. Fit to the calibration trials of six synthetic
# categories together, with simulated features and with those of the embedded backbone (bench/confidence_prior.py).
PRIOR = {
    "pose":      (-3.78, -1.67, 1.02, 0.48, 0.17, 1.22, 2.55, 0.44, -1.18, 2.58, -0.12, 1.24, -0.87),
    "keypoints": (-7.99, -1.38, 0.32, 0.56, 0.09, 0.79, 0.75, 3.05, -2.23, 4.68, 2.78, -0.40, -0.48),
    "present":   (-10.48, -0.41, 1.10, 1.43, 1.59, 0.44, 0.44, 2.39, -2.12, 11.45, 3.00, 2.25, -0.27),
    "found":     (-4.93, -0.14, 0.89, 0.62, 1.49, 0.43, 2.01, -0.41, -1.41, 7.04, 1.85, 1.92, -0.68),
}  # fmt: skip
WORST_DEVIATION = 4.0  # standard deviations a single point can be off
NEAR_KEYPOINT = 0.05  # object scales: sigma of p_spat in the evidence for a keypoint
COVERED = 0.04  # object scales from a point of the cloud, within which the mask is covered by it
UNKNOWN_SHARE = 0.9  # in place of ``cover`` and ``inside`` without a mask
DEPTH_WEIGHT = 0.15  # of the depth-order correlation, for a category without calibration


@dataclass(frozen=True, repr=False)
class Calibration(ShortRepr):
    """The calibration of a category as tensors; the defaults without one. K present keypoints, S statistics.

    biases: (4,) and weights: (4, S) of the MAPS;  depth_weight: of the depth-order correlation
    axis: (3,) unit vector, object frame, about which the pose is not determined, or None;  keypoint_bias: (K, 3) in diameters, or None
    """

    biases: Tensor
    weights: Tensor
    depth_weight: float
    axis: Tensor | None
    keypoint_bias: Tensor | None

    @classmethod
    def of(cls, calibration: dict[str, float], category: CategoryTensors) -> "Calibration":
        """Reads ``CategoryModel.calibration``."""
        own = {kind: tuple(calibration.get(f"{kind}.{name}", 0.0) for name in ("bias", *STATISTICS)) for kind in MAPS}
        table = torch.tensor([own[kind] if f"{kind}.bias" in calibration else PRIOR[kind] for kind in MAPS]).to(category.shape)
        axis = bias = None
        if "axis_x" in calibration:
            axis = torch.tensor([calibration[f"axis_{c}"] for c in "xyz"]).to(category.shape)
        if "offset.0.x" in calibration:
            bias = torch.tensor([[calibration[f"offset.{k}.{c}"] for c in "xyz"] for k in category.keypoints.tolist()]).to(category.shape)
        depth_weight = calibration.get("depth_weight", DEPTH_WEIGHT)
        return cls(table[:, 0], table[:, 1:], depth_weight, axis, bias)

    def probabilities(self, statistics: Tensor) -> Tensor:
        """(4,) of the MAPS, from statistics (S,)."""
        return torch.sigmoid(self.biases + self.weights @ statistics)


def with_keypoint_bias(keypoints: Tensor, rotations: Tensor, shape: Tensor, bias: Tensor | None) -> Tensor:
    """Keypoints (B, K, 3) in the camera frame, each moved by its bias (K, 3); rotations: (B, 3, 3); shape: (K, 3) X0."""
    if bias is None:
        return keypoints
    spread = (keypoints - keypoints.mean(1, keepdim=True)).flatten(1).norm(dim=1) / (shape - shape.mean(0)).norm()
    return keypoints + spread[:, None, None] * (bias @ rotations.transpose(1, 2))


def statistics(
    category: CategoryTensors, observation: Observation, candidates: Candidates, choice: Choice, best: ProjectedSolutions, evidence: Tensor
) -> Tensor:
    """(S,) the STATISTICS of the best of the candidates.

    energy: its score; margin: to the best rival; lead: to the best rival early on; fit: minus the mean deviation of its visible
    points from the expected similarity, in standard deviations; contrast: how far the similarity below its visible points stands
    out from that of the same points all over the mask, in standard deviations (independent of how noisy features are);
    depth: the depth-order correlation; evidence: mean of that of the keypoints; deformation: of the shape, in standard
    deviations; cover: share of the mask that its cloud covers; inside: share of its cloud inside the mask; masked: 1 with a mask;
    with_depth: 1 with a depth map, without one ``depth`` is 0 and means nothing.
    best: of it alone (B = 1); evidence: (K,) :func:`keypoint_evidence` of it.
    """
    cloud, masked, with_depth = best.projected[0, : category.dense], best.distance is not None, observation.image.depth is not None
    if best.distance is None:
        cover = inside = cloud.new_full((), UNKNOWN_SHARE)
    else:
        near = torch.clamp(COVERED * observation.object_scale, min=observation.image.spacing)
        cover = (torch.cdist(observation.spread, cloud).amin(1) < near).to(cloud).mean()
        inside = (best.distance[0] <= 0).to(cloud).mean()
    score, order = (row(values, choice.winner) for values in (choice.score, choice.depth_order))
    return torch.stack([
        score, choice.margin, choice.lead, *_appearance(category, observation, best), order,
        evidence.mean(), _deformation(category, candidates, choice), cover, inside,
        *(torch.ones_like(cover) * known for known in (masked, with_depth)),
    ])  # fmt: skip


def _appearance(category: CategoryTensors, observation: Observation, best: ProjectedSolutions) -> tuple[Tensor, Tensor]:
    """``fit`` and ``contrast`` of :func:`statistics`, () each, by the dense scoring points."""
    chosen = category.scoring[: category.dense_scoring]
    seen = best.front[0].index_select(0, chosen)
    values, inside = observation.image.features_at(best.projected[0].index_select(0, chosen))
    similarity = (category.scoring_features[: category.dense_scoring].T * values).sum(0)
    deviation = ((category.mu[chosen] - similarity) / category.sd[chosen].clamp(min=LEAST_SD)).clamp(0, WORST_DEVIATION)
    everywhere = observation.similarity.index_select(0, chosen)
    mean = everywhere.mean(1)
    spread = (everywhere - mean[:, None]).square_().sum(1).div_(everywhere.shape[1] - 1).sqrt_()  # torch.std takes five times as long
    contrast = (similarity - mean) / spread.clamp(min=LEAST_SD) * inside
    share = seen.to(similarity) / seen.sum()
    return -(torch.where(inside, deviation, WORST_DEVIATION) * share).sum(), (contrast * share).sum()


def _deformation(category: CategoryTensors, candidates: Candidates, choice: Choice) -> Tensor:
    """() root mean square of the winner's mode coefficients, in their standard deviations."""
    if not len(category.modes):
        return torch.zeros_like(choice.margin)
    poses = candidates.poses
    if poses is None:
        poses = poses_of_keypoints(category, candidates.keypoints, torch.zeros_like(choice.score))
    return (row(poses.coefficients, choice.winner) ** 2 / category.variances).mean().sqrt()


def keypoint_evidence(category: CategoryTensors, observation: Observation, best: ProjectedSolutions) -> Tensor:
    """(K,) best likelihood (Eq. 6) of every keypoint near its place in a solution (B = 1)."""
    keypoints = best.projected[0, category.dense :]
    distance2 = ((observation.keypoint_cells - keypoints[:, None]) ** 2).sum(-1)
    return (observation.keypoint_log - 0.5 * distance2 / (NEAR_KEYPOINT * observation.object_scale) ** 2).amax(-1).exp()
