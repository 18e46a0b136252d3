"""The fast solver: iteratively reweighted Gauss-Newton on rigid pose and deformation modes, batched over starts.

It starts from the best viewpoints of a bank, which is made once per category and scored without gradients for every image.
Tensors have fixed shapes and no value is copied to the CPU, so that a GPU never stands still.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import AlignConfig, BankConfig
from semalign3d_core.alignment.gauss_newton import native
from semalign3d_core.alignment.gauss_newton.poses import (
    FOCAL,
    MODES,
    SCALE,
    Candidates,
    DeformableCloud,
    Poses,
    fit_box,
    poses_in_boxes,
    reduced_projection,
)
from semalign3d_core.alignment.gauss_newton.residuals import PRIOR, RobustResiduals
from semalign3d_core.alignment.judgement import RIVAL_DEGREES
from semalign3d_core.alignment.observation import CoarseMap, Observation
from semalign3d_core.alignment.visibility import BEHIND, front_most
from semalign3d_core.geometry.rotations import rotation_from_vector, turned, uniform_rotations
from semalign3d_core.runtime.values import ShortRepr

STARTS = (16, 6, 3)  # from the bank, after the first and after the second halving
HALVINGS = (4, 8)  # steps before which starts are halved
STEPS, WARM_STEPS = 14, 6
ANNEALED = 0.87  # share of the steps in which sigma falls
WARM_SIGMA = 0.08  # of the first warm step, object scales
WARM_RELAXATION = 1.6  # by which warm steps are lengthened: steps of reweighted least squares are too short, and there are few of them
FOCAL_PRIOR = 0.02  # of (log f - mean)^2 / (2 sd^2)
DAMPING, SMALLEST_DAMPING = 0.02, 1e-3
LARGEST_TURN = 0.5  # radians per step
LARGEST_SHIFT, LARGEST_SCALE, LARGEST_FOCAL = 0.5, 0.4, 0.3  # per step: object scales, and changes of the logarithms
COARSE_STRIDE = 2  # every second sampled pixel is used while there are many starts
NEVER_DROPPED = 1e3  # advantage in energy that keeps the distant rival through a halving
JITTER = math.radians(11.0)  # about each axis, of the copies of training poses
SEPARATION = math.radians(30.0)  # between two starts
CONSIDERED = 320  # best-scoring viewpoints and boxes among which distinct viewpoints are sought
SUPPRESSION_ROUNDS = 4
LEAST_LOG = -50.0  # of a likelihood: exponentials that are no normal numbers take ten times as long
BUFFER = 12 - 1e-3  # cells along the longer side of the depth buffer that decides visibility; the last one holds the farthest point


class GaussNewtonSolver:
    """The solver of the ``fast`` preset: viewpoints of a bank, scored, then refined.

    While there are many starts, they see the scoring points and a part of the pixels only.
    """

    needs_gradients = False

    def __init__(self, category: CategoryTensors, pose_rotations: Tensor, config: AlignConfig):
        self.category, self.weights = category, config.energy
        self.bank = ViewpointBank.of(category, bank_rotations(pose_rotations, config.bank))
        self.coarse = DeformableCloud(category, category.scoring[: category.dense_scoring])
        self.fine = DeformableCloud(category, torch.arange(category.dense, device=category.shape.device))
        self.phases = ((0, 1),), tuple(zip((0, *HALVINGS), STARTS, strict=True))
        like = category.shape
        self.stiffness = self._stiffness()
        self.damping = torch.tensor(1 + DAMPING).to(like)
        self.least = SMALLEST_DAMPING + self.damping * torch.cat([self.stiffness.new_zeros(3), self.stiffness])
        self.limits = torch.full_like(self.least, torch.inf)
        self.limits[:3], self.limits[3:5] = LARGEST_TURN, LARGEST_SHIFT
        self.limits[3 + SCALE], self.limits[3 + FOCAL] = LARGEST_SCALE, LARGEST_FOCAL
        first, last = config.gauss_newton.sigma
        self.sigmas, self.warm_sigmas = annealed(first, last, STEPS).to(like), annealed(WARM_SIGMA, last, WARM_STEPS).to(like)

    def _stiffness(self) -> Tensor:
        """(5 + M,) curvature of the priors: of the focal length, and of the deformation (a Gaussian in place of Eq. 10)."""
        variances = self.category.variances
        rigid = variances.new_zeros(MODES)
        rigid[FOCAL] = FOCAL_PRIOR / self.category.log_focal[1] ** 2
        return torch.cat([rigid, 2 * (PRIOR * self.weights.geometry) / variances])

    def solve(self, observation: Observation) -> Candidates:
        """:class:`Candidates` of an image of which nothing is known: sigma from large to small, starts halved twice."""
        (first, second), traces, early = HALVINGS, [], None
        poses, scores = best_starts(self.bank, self.category, observation, STARTS[0])
        began = poses
        for sigmas, kept in ((self.sigmas[:first], STARTS[1]), (self.sigmas[first:second], STARTS[2])):
            poses, energies = self._descend(observation, self.coarse, poses, sigmas, COARSE_STRIDE)
            early = early or (poses.rotation, energies[-1])
            poses = poses[self._survivors(poses, energies[-1], kept)]
            traces.append(energies)
        poses, energies = self._descend(observation, self.fine, poses, self.sigmas[second:])
        candidates = self._candidates(observation, poses, [*traces, energies])
        return replace(candidates, starts=began.keypoints(self.category), start_scores=scores, early=early)

    def refine(self, observation: Observation, poses: Poses) -> Candidates:
        """:class:`Candidates` from warm :class:`Poses`: few long steps, all starts kept."""
        poses, energies = self._descend(observation, self.fine, poses, self.warm_sigmas, relaxation=WARM_RELAXATION)
        return self._candidates(observation, poses, [energies])

    def _candidates(self, observation: Observation, poses: Poses, energies: list[Tensor]) -> Candidates:
        focal, trace = observation.focal * poses.log_focal.exp()[:, None], torch.cat([part.amin(1) for part in energies])
        return Candidates(poses.keypoints(self.category), focal, poses.rotation, trace, poses=poses)

    def _descend(
        self, observation: Observation, cloud: DeformableCloud, poses: Poses, sigmas: Tensor, stride: int = 1, relaxation: float = 1.0
    ) -> tuple[Poses, Tensor]:
        """One step for each of sigmas (S,), in object scales, lengthened by ``relaxation``.

        Returns the poses after them and the energies (S, B) before every step.
        """
        largest = torch.cat([self.limits[:3], self.limits[3:5] * observation.object_scale, self.limits[5:]])
        if native.usable(cloud.mean, cloud.parts[2]):
            priors = self.stiffness, self.least, largest
            return native.descend(observation, cloud, poses, self.weights, sigmas, stride, priors, 1 + DAMPING, relaxation)
        residuals, visited = RobustResiduals(observation, cloud, self.weights, sigmas, stride), []
        for step in range(len(sigmas)):
            visited.append(poses.parameters)
            equations = self.normal_equations(observation, cloud, partial(residuals, step=step), poses)
            change = self._step(*equations).mul_(relaxation).clamp_(-largest, largest)
            turn, shift = change.split((3, poses.parameters.shape[1]), 1)
            poses = Poses(turned(poses.rotation, turn), poses.parameters + shift)
        return poses, residuals.energies() + 0.5 * (torch.stack(visited) ** 2 @ self.stiffness)

    def _survivors(self, poses: Poses, energy: Tensor, kept: int) -> Tensor:
        """Indices (kept,) of the best starts; the best one far from the leader always survives, so that the margin is known."""
        leader = poses.rotation.index_select(0, energy.argmin()[None])
        far = (poses.rotation * leader).sum((-2, -1)) < 1 + 2 * math.cos(math.radians(RIVAL_DEGREES))
        rival = torch.where(far, energy, torch.inf).argmin()[None]
        bonus = torch.zeros_like(energy).scatter(0, rival, far.any().to(energy)[None] * NEVER_DROPPED)
        return (energy - bonus).topk(min(kept, len(energy)), largest=False).indices

    def normal_equations(self, observation: Observation, cloud: DeformableCloud, residuals: partial, poses: Poses) -> tuple[Tensor, Tensor]:
        """Hessian (B, D, D) without priors and descent direction (B, D) at ``poses``; D = 8 + M unknowns.

        residuals: of places (B, 2, J), (B, 3, J), see :class:`RobustResiduals`.
        """
        projection = cloud.project(poses, observation.focal)
        residual, weight = residuals(projection.places).split((2, 1), 1)
        jacobian = cloud.jacobian(projection, observation.focal_known)
        weighted, jacobian = (jacobian * weight[:, None]).flatten(2), jacobian.flatten(2)
        gradient = torch.bmm(jacobian, residual.flatten(1)[..., None]).squeeze(-1)
        gradient[:, 3:].addcmul_(self.stiffness, poses.parameters, value=-1)
        return torch.bmm(weighted, jacobian.transpose(1, 2)), gradient

    def _step(self, hessian: Tensor, gradient: Tensor) -> Tensor:
        """Levenberg-damped step (B, D)."""
        hessian.diagonal(dim1=1, dim2=2).mul_(self.damping).add_(self.least)
        factor, _ = torch.linalg.cholesky_ex(hessian)
        half = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1).nan_to_num_(nan=0.0)


def annealed(first: float, last: float, steps: int) -> Tensor:
    """(steps,) float64: falls geometrically from first to last within the first ``ANNEALED`` share of the steps, then stays."""
    progress = (torch.arange(steps, dtype=torch.float64) / max(ANNEALED * (steps - 1), 1)).clamp(max=1.0)
    return first * (last / first) ** progress


# The bank of viewpoints.


@dataclass(frozen=True, repr=False)
class ViewpointBank(ShortRepr):
    """R rotations with what they show of the J' scoring points.

    rotations: (R, 3, 3); projected: (2, R, J') for f = 1; low, high: (R, 2) extents of the whole cloud's projection;
    visible: (R, J') weights that sum to one over the points that a coarse depth buffer shows
    """

    rotations: Tensor
    projected: Tensor
    low: Tensor
    high: Tensor
    visible: Tensor

    @classmethod
    def of(cls, category: CategoryTensors, rotations: Tensor) -> "ViewpointBank":
        """The bank of a category around given rotations (R, 3, 3)."""
        projected, depth = reduced_projection(category.points, rotations)
        visible = front_most(projected, depth, tolerance=BEHIND, cells=BUFFER)[:, category.scoring].to(projected)
        visible = visible / visible.sum(1, keepdim=True).clamp(min=1)
        shown = projected[:, category.scoring].movedim(-1, 0).contiguous()
        return cls(rotations, shown, projected.amin(1), projected.amax(1), visible)


def bank_rotations(pose_rotations: Tensor, config: BankConfig) -> Tensor:
    """Rotations (R, 3, 3) of a bank: training poses (N, 3, 3) and jittered copies, or an even cover of all rotations."""
    poses = pose_rotations
    if config.poses == "uniform" or not len(poses):
        return uniform_rotations(config.size).to(poses)
    generator = torch.Generator().manual_seed(0)
    if len(poses) > config.size:
        poses = poses[torch.randperm(len(poses), generator=generator)[: config.size]]
    copies = max(config.size // len(poses) - 1, 0)
    jitter = torch.randn(copies, len(poses), 3, generator=generator) * JITTER
    jittered = rotation_from_vector(jitter.to(poses)) @ poses
    return torch.cat([poses, jittered.reshape(-1, 3, 3)])


def best_starts(bank: ViewpointBank, category: CategoryTensors, observation: Observation, count: int) -> tuple[Poses, Tensor]:
    """:class:`Poses` of the ``count`` best-scoring viewpoints, mutually distinct first, and their scores (count,)."""
    scores, viewpoint, box = best_viewpoints(bank, observation)
    rotations = bank.rotations.index_select(0, viewpoint)
    order = _distinct_order(rotations, scores)[:count]
    return poses_in_boxes(category, observation, rotations[order], observation.boxes[box[order]]), scores[order]


def _distinct_order(rotations: Tensor, scores: Tensor) -> Tensor:
    """Order of candidates, best first, those within the separation of a better one last (non-maximum suppression in rounds)."""
    flat = rotations.flatten(1)
    near = (flat @ flat.T > 1 + 2 * math.cos(SEPARATION)).to(scores)  # 0 and 1: a matrix product asks faster than any()
    better = near * (scores > scores[:, None])
    open_, distinct = torch.ones_like(scores), torch.zeros_like(scores)
    for _ in range(SUPPRESSION_ROUNDS):  # the best of every neighbourhood, then the best of what is left ...
        peak = open_ * (better @ open_ == 0)
        distinct, open_ = distinct + peak, open_ * (near @ peak == 0)
    return (scores + 10.0 * distinct).argsort(descending=True)


def best_viewpoints(bank: ViewpointBank, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, viewpoints and boxes, (N,) each, of the best-scoring viewpoints in boxes.

    The score is the mean tolerance-map value at the projected visible points + half of (share of points inside the mask + share of
    mask cells covered). Without a mask only the first part is known. The last part is expensive and computed only of those that are the
    best by the others.
    """
    coarse = observation.coarse
    assert coarse is not None, "observe with search=True"
    tolerance, spacing, origin = tolerance_map(coarse)
    rows, columns = tolerance.shape[1:]
    scale, centre = fit_box(bank.low, bank.high, observation.boxes[:, None])
    scale, centre = scale / spacing, (centre - origin) / spacing + 0.5  # so that truncation rounds; -0.5 ... 0 rounds up, harmlessly
    column = torch.addcmul(centre[..., :1], scale[..., None], bank.projected[0])  # (Nb, R, J')
    row = torch.addcmul(centre[..., 1:], scale[..., None], bank.projected[1])
    # The map has a margin of one node all around, so that what lies beyond it reads nothing.
    column, row = column.clamp_(-1, columns - 2).int(), row.clamp_(-1, rows - 2).int()
    cell = torch.add(column, row, alpha=columns).add_(columns + 1)
    offset = torch.arange(tolerance.shape[0], device=cell.device, dtype=torch.int32) * (rows * columns)
    value = tolerance.reshape(-1).index_select(0, (cell + offset).reshape(-1)).reshape(cell.shape)
    score = (value * bank.visible).sum(-1)
    mask = pooled_coverage(coarse.coverage)
    if observation.field is not None:
        score = score + 0.5 * mask.reshape(-1).index_select(0, cell.reshape(-1)).reshape(cell.shape).mean(-1)
    best, index = score.reshape(-1).topk(min(CONSIDERED, score.numel()))
    if observation.field is not None:
        chosen_row, chosen_column = (values.flatten(0, 1).index_select(0, index) for values in (row, column))
        best = best + 0.5 * _covered_share(chosen_row, chosen_column, mask)
    return best, index % score.shape[1], torch.div(index, score.shape[1], rounding_mode="floor")


def tolerance_map(coarse: CoarseMap) -> tuple[Tensor, Tensor, Tensor]:
    """Likelihood of each scoring point maximised over windows of 2 x 2 coarse cells, so that it forgives about two cells.

    Returns the map (J', h, w) with a margin of zeros, its node spacing in L and the position (2,) of its first node within the margin.
    """
    log = pad(coarse.log_semantic, (1, 1, 1, 1), value=-torch.inf)
    log = torch.maximum(log[..., :-1], log[..., 1:])
    log = torch.maximum(log[:, :-1], log[:, 1:])
    # Window i covers coarse cells i - 1 and i: its centre is half a coarse cell before i.
    return pad(log.clamp(min=LEAST_LOG).exp(), (1, 1, 1, 1)), coarse.spacing, coarse.origin - 0.5 * coarse.spacing


def pooled_coverage(coverage: Tensor) -> Tensor:
    """(h, w) on the nodes of the tolerance map: 1 where at least two fifths of the window lie on the mask, 0 in the margin."""
    return pad((avg_pool2d(pad(coverage, (1, 1, 1, 1))[None, None], 2, 1)[0, 0] >= 0.4).to(coverage), (1, 1, 1, 1))


def _covered_share(row: Tensor, column: Tensor, mask: Tensor) -> Tensor:
    """Share (N,) of the mask's cells, two nodes wide, that hold one of the points (N, J')."""
    rows, columns = (mask.shape[0] + 1) // 2, (mask.shape[1] + 1) // 2
    filled = avg_pool2d(mask[None, None], 2, ceil_mode=True)[0, 0].reshape(-1) >= 0.5
    cell = (((row + 1) >> 1) * columns + ((column + 1) >> 1)).long()
    held = torch.zeros(len(cell), rows * columns, dtype=mask.dtype, device=cell.device).scatter_(1, cell, 1.0)
    return held @ filled.to(mask) / filled.sum().clamp(min=1)
