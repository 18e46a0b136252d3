"""Which of several solutions is the object, and how probable it is that this one is right.

The choice looks at energy, at how usual the view is and at the order in depth. The confidence is made of logistic maps of a few statistics
of the choice, calibrated per category:

``CategoryModel.calibration`` holds, for each map (``pose``: the pose is right; ``keypoints``: at least 80 % of the keypoints are within
0.1; ``present``: the object is there at all; ``found``: it is there and the pose is right), ``<map>.bias`` and
``<map>.<statistic>``; ``depth_weight`` (of the depth-order check); ``axis_x, axis_y, axis_z`` of an axis about which the
category's pose is not determined; and the keypoint bias ``offset.<keypoint>.<axis>``.

A patch that touches the object's border shows less of the object and more of what is behind it, so that the features of a corner
are found a little inside the object, and an aligned shape comes out a few percent too small. The mean difference to the annotations of
the training images, per keypoint and in the object's own frame, is the *keypoint bias*. It is added to what is reported; the solver
knows nothing of it. How all of this is learned is in ``semalign3d_core.calibration``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import LEAST_SD
from semalign3d_core.alignment.gauss_newton.poses import Candidates, poses_of_keypoints
from semalign3d_core.alignment.observation import ImageTensors, Observation
from semalign3d_core.alignment.visibility import ProjectedSolutions
from semalign3d_core.geometry.rotations import rotation_angle
from semalign3d_core.runtime.values import ShortRepr

RIVAL_DEGREES = 40.0  # a rival is a solution further away than this
NO_RIVAL = 0.5  # margin where no rival exists
VIEW_DEGREES = 20.0  # standard deviation of the kernels of a view prior
LEAST_DENSITY = 0.01  # of a view prior, relative to usual views: nothing is impossible
FEWEST_RANKS = 5  # points that a rank correlation needs

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
class Choice(ShortRepr):
    """The best of B solutions.

    Its index () int64; score (B,), the energy less the bonus for agreeing with the depth map; the depth-order correlation (B,); the
    margin () to its best rival, and the lead () of the best start over its best rival while the solver still had all of its starts:
    later, rivals have moved to the winner or are gone.
    """

    winner: Tensor
    score: Tensor
    depth_order: Tensor
    margin: Tensor
    lead: Tensor


class ViewPrior:
    """How unusual a view is among those of a category's training images: bottles stand, cars drive.

    pose_rotations: (N, 3, 3) object to camera; axis: (3,) undetermined axis, a turn about which changes no view, or None.
    Called with rotations (B, 3, 3): minus the logarithm of their density (B,), 0 for usual views, at most ``-log(LEAST_DENSITY)``.
    With the direction ``up`` (3,) in the camera's frame any view of an upright object is usual, from wherever the camera looks.
    """

    def __init__(self, pose_rotations: Tensor, axis: Tensor | None = None):
        self.axis, self.known = axis, pose_rotations
        self.usual = self._density(pose_rotations).median() if len(pose_rotations) else None
        self.upright = upright_axis(pose_rotations, axis) if len(pose_rotations) else None

    def _density(self, rotations: Tensor) -> Tensor:
        if self.axis is None:
            cosine = (rotations.flatten(1) @ self.known.flatten(1).T - 1) / 2  # of the angles between them
        else:
            cosine = (rotations @ self.axis) @ (self.known @ self.axis).T
        return _kernel(cosine).mean(1)

    def __call__(self, rotations: Tensor, up: Tensor | None = None) -> Tensor:
        """What every rotation (B, 3, 3) costs, (B,); see the class."""
        if self.usual is None or self.upright is None:
            return torch.zeros_like(rotations[:, 0, 0])
        density = self._density(rotations) / self.usual if up is None else _kernel(rotations @ self.upright @ up)
        return -density.clamp(LEAST_DENSITY, 1).log()


def _kernel(cosine: Tensor) -> Tensor:
    return torch.exp((cosine - 1) / math.radians(VIEW_DEGREES) ** 2)


def upright_axis(pose_rotations: Tensor, axis: Tensor | None = None) -> Tensor:
    """(3,) unit vector of the object's frame that points up in pictures: most nearly at right angles to the cameras' sides.

    pose_rotations: (N, 3, 3) object to camera, of cameras held level as most are; axis: (3,) undetermined axis, up or down, or None.
    """
    sides, above = pose_rotations[:, 0], -pose_rotations[:, 1].mean(0)
    upright = torch.linalg.eigh(sides.T @ sides)[1][:, 0] if axis is None else axis
    return torch.where(upright @ above < 0, -upright, upright)


def choose(
    image: ImageTensors,
    candidates: Candidates,
    solutions: ProjectedSolutions,
    energies: Tensor,
    depth_weight: float,
    axis: Tensor | None = None,
    known: tuple[Tensor, Tensor] | None = None,
) -> Choice:
    """The :class:`Choice` among candidates with energies (B,), what their views cost included.

    depth_weight: of the depth-order correlation; axis: (3,) undetermined axis, about which solutions do not count as rivals;
    known: margin and lead (), if known from an earlier frame.
    """
    order = torch.zeros_like(energies) if image.depth is None else depth_order(image, solutions)
    score = energies - depth_weight * order
    if known is None:
        margin = _gap(candidates.rotations, score, axis)
        known = margin, margin if candidates.early is None else _gap(*candidates.early, axis)
    return Choice(score.argmin(), score, order, *known)


def _gap(rotations: Tensor, score: Tensor, axis: Tensor | None) -> Tensor:
    """() by which the best of solutions with rotations (B, 3, 3) and scores (B,) is better than the best one far from it."""
    best = score.argmin()
    far = rotation_distance(rotations, row(rotations, best), axis) > math.radians(RIVAL_DEGREES)
    return (torch.where(far, score, torch.inf).amin() - row(score, best)).clamp(max=NO_RIVAL)


def rotation_distance(rotations: Tensor, reference: Tensor, axis: Tensor | None = None) -> Tensor:
    """Angle in radians between rotations (B, 3, 3) and one (3, 3); with an undetermined axis (3,), the angle between the axes."""
    if axis is None:
        return rotation_angle(rotations, reference)
    return (rotations @ axis * (reference @ axis)).sum(-1).clamp(-1, 1).acos()


def depth_order(image: ImageTensors, solutions: ProjectedSolutions) -> Tensor:
    """Spearman correlation (B,) of 1/z of the front-most cloud points with the inverse depth at their pixels."""
    cloud = solutions.front.shape[1]
    seen = image.inverse_depth(solutions.projected[:, :cloud])
    usable = solutions.front & torch.isfinite(seen)
    if solutions.distance is not None:
        usable &= solutions.distance <= 0
    return masked_spearman(1 / solutions.points[:, :cloud, 2].clamp(min=1e-3), seen.nan_to_num(), usable)


def masked_spearman(first: Tensor, second: Tensor, usable: Tensor) -> Tensor:
    """Rank correlation (B,) of the usable entries of (B, P) arrays; 0 where fewer than 5 are usable."""
    ranks = [_ranks(values, usable) for values in (first, second)]
    count = usable.sum(-1, keepdim=True)
    centred = [torch.where(usable, rank - (count - 1) / 2, torch.zeros_like(rank)) for rank in ranks]
    norm = ((centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1)).sqrt()
    correlation = (centred[0] * centred[1]).sum(-1) / norm.clamp(min=1e-9)
    return torch.where(count[:, 0] >= FEWEST_RANKS, correlation, torch.zeros_like(correlation))


def _ranks(values: Tensor, usable: Tensor) -> Tensor:
    order = torch.where(usable, values, torch.inf).argsort(-1)
    ranks = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device).expand_as(values)
    return torch.zeros_like(values).scatter(-1, order, ranks)


def row(values: Tensor, index: Tensor) -> Tensor:
    """Row ``index``, a () tensor, of values, without reading the index."""
    return values.index_select(0, index[None])[0]


# How probable it is that the choice is right.


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
