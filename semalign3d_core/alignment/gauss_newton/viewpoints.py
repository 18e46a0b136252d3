"""A bank of viewpoints, made once per category and scored without gradients for every image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import BankConfig
from semalign3d_core.alignment.gauss_newton.poses import Poses, fit_box, poses_in_boxes, reduced_projection
from semalign3d_core.alignment.observation import CoarseMap, Observation
from semalign3d_core.alignment.visibility import front_most
from semalign3d_core.geometry.rotations import rotation_from_vector, uniform_rotations
from semalign3d_core.runtime.values import ShortRepr

JITTER = math.radians(11.0)  # about each axis, of the copies of training poses
SEPARATION = math.radians(30.0)  # between two starts
CONSIDERED = 320  # best-scoring viewpoints and boxes among which distinct viewpoints are sought
SUPPRESSION_ROUNDS = 4
LEAST_LOG = -50.0  # of a likelihood: exponentials that are no normal numbers take ten times as long
BUFFER = 12 - 1e-3  # cells along the longer side of the depth buffer that decides visibility; the last one holds the farthest point
BEHIND = 0.12  # diameters behind the front up to which a point is visible


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
    turned = rotation_from_vector(jitter.to(poses)) @ poses
    return torch.cat([poses, turned.reshape(-1, 3, 3)])


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
