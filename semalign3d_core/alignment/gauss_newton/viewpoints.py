"""A bank of viewpoints, made once per category and scored without gradients for every image."""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d, pad

from semalign3d_core.alignment.gauss_newton.poses import TYPICAL_SCALE, fit_box, poses_in_boxes
from semalign3d_core.geometry.rotations import rotation_from_vector, uniform_rotations

CONSIDERED = 320  # best-scoring viewpoints and boxes among which distinct viewpoints are sought
SUPPRESSION_ROUNDS = 4
BUFFER = 12  # side of the depth buffer that decides visibility


@dataclass(frozen=True)
class ViewpointBank:
    """R rotations with what they show of the J' scoring points.

    rotations: (R, 3, 3); projected: (2, R, J') for f = 1; low, high: (R, 2) extents of the whole cloud's projection;
    visible: (R, J') weights that sum to one over the points that a coarse depth buffer shows
    """

    rotations: torch.Tensor
    projected: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    visible: torch.Tensor


def make_bank(category, rotations):
    """The :class:`ViewpointBank` of a category around given rotations (R, 3, 3)."""
    rotated = category.points @ rotations.transpose(1, 2)
    projected = rotated[..., :2] / (1 + TYPICAL_SCALE * rotated[..., 2:])
    visible = _front_points(projected, rotated[..., 2])[:, category.scoring].to(projected)
    visible = visible / visible.sum(1, keepdim=True).clamp(min=1)
    shown = projected[:, category.scoring].movedim(-1, 0).contiguous()
    return ViewpointBank(rotations, shown, projected.amin(1), projected.amax(1), visible)


def bank_rotations(pose_rotations, config, seed=0):
    """Rotations (R, 3, 3) of a bank: training poses and jittered copies, or an even cover of all rotations."""
    poses = pose_rotations
    if config.poses == "uniform" or not len(poses):
        return uniform_rotations(config.size).to(poses)
    generator = torch.Generator().manual_seed(seed)
    if len(poses) > config.size:
        poses = poses[torch.randperm(len(poses), generator=generator)[: config.size]]
    copies = max(config.size // len(poses) - 1, 0)
    jitter = torch.randn(copies, len(poses), 3, generator=generator) * math.radians(config.jitter_degrees)
    turned = rotation_from_vector(jitter.to(poses)) @ poses
    return torch.cat([poses, turned.reshape(-1, 3, 3)])


def _front_points(projected, depth, tolerance=0.12):
    """(R, J) bool: points not behind others of the cloud, in a coarse depth buffer over its own box."""
    low, high = projected.amin(1, keepdim=True), projected.amax(1, keepdim=True)
    cell = ((projected - low) / (high - low).amax(-1, keepdim=True).clamp(min=1e-9) * (BUFFER - 1e-3)).long()
    index = cell[..., 1] * BUFFER + cell[..., 0]
    buffer = torch.full((len(projected), BUFFER * BUFFER), torch.inf).to(depth)
    buffer = buffer.scatter_reduce(1, index, depth, "amin")
    return depth <= buffer.gather(1, index) + tolerance


def best_starts(bank, category, observation, count, config):
    """:class:`Poses` of the ``count`` best-scoring viewpoints, mutually distinct first, and their scores (count,)."""
    scores, viewpoint, box = best_placements(bank, observation)
    rotations = bank.rotations.index_select(0, viewpoint)
    order = _distinct_order(rotations, scores, config.separation_degrees)[:count]
    return poses_in_boxes(category, observation, rotations[order], observation.boxes[box[order]]), scores[order]


def _distinct_order(rotations, scores, separation_degrees):
    """Order of candidates, best first, those within the separation of a better one last (non-maximum suppression in rounds)."""
    flat = rotations.flatten(1)
    near = flat @ flat.T > 1 + 2 * math.cos(math.radians(separation_degrees))
    better = near & (scores[None] > scores[:, None])
    open_, distinct = torch.ones_like(scores, dtype=torch.bool), torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(SUPPRESSION_ROUNDS):  # the best of every neighbourhood, then the best of what is left ...
        peak = open_ & ~(better & open_).any(1)
        distinct, open_ = distinct | peak, open_ & ~(near & peak).any(1)
    return (scores + 10.0 * distinct).argsort(descending=True)


def best_placements(bank, observation):
    """Scores, viewpoints and boxes, (N,) each, of the best-scoring viewpoints in boxes.

    The score is the mean tolerance-map value at the projected visible points + half of (share of points inside the mask + share of
    mask cells covered). Without a mask only the first part is known. The last part, the dearest, is computed of the best by the
    others alone.
    """
    tolerance, spacing, origin = tolerance_map(observation.blocks)
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
    if observation.field is not None:
        mask = pooled_coverage(observation.blocks.coverage)
        score = score + 0.5 * mask.reshape(-1).index_select(0, cell.reshape(-1)).reshape(cell.shape).mean(-1)
    best, index = score.reshape(-1).topk(min(CONSIDERED, score.numel()))
    if observation.field is not None:
        placed = (values.flatten(0, 1).index_select(0, index) for values in (row, column))
        best = best + 0.5 * _covered_share(*placed, mask)
    return best, index % score.shape[1], torch.div(index, score.shape[1], rounding_mode="floor")


def tolerance_map(blocks):
    """Likelihood of each scoring point maximised over windows of 2 x 2 blocks, so that it forgives about two cells.

    Returns the map (J', h, w) with a margin of zeros, its node spacing in L and the position (2,) of its first node within the margin.
    """
    log = pad(blocks.log_semantic, (1, 1, 1, 1), value=-torch.inf)
    log = torch.maximum(log[..., :-1], log[..., 1:])
    log = torch.maximum(log[:, :-1], log[:, 1:])
    # Window i covers blocks i - 1 and i: its centre is half a block before block i.
    return pad(log.exp(), (1, 1, 1, 1)), blocks.spacing, blocks.origin - 0.5 * blocks.spacing


def pooled_coverage(coverage):
    """(h, w) on the nodes of the tolerance map: 1 where at least two fifths of the window lie on the mask, 0 in the margin."""
    return pad((avg_pool2d(pad(coverage, (1, 1, 1, 1))[None, None], 2, 1)[0, 0] >= 0.4).to(coverage), (1, 1, 1, 1))


def _covered_share(row, column, mask):
    """Share (N,) of the mask's cells, two nodes wide, that hold one of the points (N, J')."""
    rows, columns = (mask.shape[0] + 1) // 2, (mask.shape[1] + 1) // 2
    filled = avg_pool2d(mask[None, None], 2, ceil_mode=True)[0, 0].reshape(-1) >= 0.5
    cell = (((row + 1) >> 1) * columns + ((column + 1) >> 1)).long()
    held = torch.zeros(len(cell), rows * columns, dtype=mask.dtype, device=cell.device).scatter_(1, cell, 1.0)
    return held @ filled.to(mask) / filled.sum().clamp(min=1)
