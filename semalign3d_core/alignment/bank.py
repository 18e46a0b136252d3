"""A bank of viewpoints, made once per category and scored without gradients for every image."""

import math
from dataclasses import dataclass

import torch

from semalign3d_core.alignment.poses import TYPICAL_SCALE, fit_box, poses_in_boxes
from semalign3d_core.geometry import rotation_from_vector, uniform_rotations

BUFFER = 12  # side of the depth buffer that decides visibility
COARSE = 10  # side of the grid on which coverage of the mask is judged


@dataclass(frozen=True)
class ViewpointBank:
    """R rotations with what they show of J' scoring points.

    rotations: (R, 3, 3); chosen: (J',) indices into the category's points; projected: (R, J', 2) for f = 1;
    low, high: (R, 2) extents of the whole cloud's projection; visible: (R, J') bool by a coarse depth buffer
    """

    rotations: torch.Tensor
    chosen: torch.Tensor
    projected: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    visible: torch.Tensor


def make_bank(category, rotations, config):
    """The :class:`ViewpointBank` of a category around given rotations (R, 3, 3)."""
    rotated = category.points @ rotations.transpose(1, 2)
    projected = rotated[..., :2] / (1 + TYPICAL_SCALE * rotated[..., 2:])
    chosen = scoring_points(category, config.points)
    visible = _front_points(projected, rotated[..., 2])
    return ViewpointBank(rotations, chosen, projected[:, chosen].contiguous(), projected.amin(1), projected.amax(1), visible[:, chosen])


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


def scoring_points(category, count):
    """Indices of at most ``count`` dense points, far from one another, and of all keypoints."""
    points = category.points[: category.dense]
    keypoints = torch.arange(category.dense, len(category.points), device=points.device)
    if len(points) <= count:
        return torch.cat([torch.arange(len(points), device=points.device), keypoints])
    distance = torch.full_like(points[:, 0], torch.inf)
    chosen = [torch.zeros((), dtype=torch.long, device=points.device)]
    for _ in range(count - 1):  # once per category
        distance = torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(-1))
        chosen.append(distance.argmax())
    return torch.cat([torch.stack(chosen), keypoints])


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
    boxes = observation.boxes
    scores = score_bank(bank, observation)
    score, box = scores.max(0)
    best = score.topk(min(4 * count, len(score)))
    rotations = bank.rotations[best.indices]
    order = _distinct_order(rotations, best.values, config.separation_degrees)[:count]
    chosen = best.indices[order]
    return poses_in_boxes(category, observation, bank.rotations[chosen], boxes[box[chosen]]), best.values[order]


def _distinct_order(rotations, scores, separation_degrees):
    """Order of candidates, best first, those with a better neighbour within the separation last."""
    near = torch.einsum("aij,bij->ab", rotations, rotations) > 1 + 2 * math.cos(math.radians(separation_degrees))
    better = near & (scores[None] > scores[:, None])
    return (scores - 10.0 * better.any(1)).argsort(descending=True)


def score_bank(bank, observation):
    """Scores (Nb, R) of every viewpoint in every box.

    Mean tolerance-map value at the projected visible points + half of (share of points inside the mask + share of mask
    cells covered). Without a mask only the first part is known.
    """
    tolerance, spacing, origin, shape = tolerance_map(observation, bank.chosen)
    scale, centre = fit_box(bank.low, bank.high, observation.boxes[:, None])
    position = scale[..., None, None] * bank.projected + centre[..., None, :]  # (Nb, R, J', 2)
    cell = ((position - origin) / spacing).round()
    column, row = cell.unbind(-1)
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    index = row.clamp(0, shape[0] - 1) * shape[1] + column.clamp(0, shape[1] - 1)
    offset = torch.arange(len(bank.chosen), device=index.device) * (shape[0] * shape[1])
    value = tolerance.reshape(-1)[(index + offset).long()] * inside
    visible = bank.visible.to(value)
    score = (value * visible).sum(-1) / visible.sum(-1)
    if observation.field is None:
        return score
    outside = observation.field.sample(position) > 0.02 * observation.size
    return score + 0.5 * ((~outside).to(value).mean(-1) + _covered_share(position, observation))


def tolerance_map(observation, chosen):
    """Likelihood of each chosen point maximised over windows of 4 x 4 cells, so that it forgives about two cells.

    Returns the map (J', h, w), its node spacing in L, the position (2,) of its first node, and (h, w).
    """
    region = observation.region
    log = observation.log_semantic[chosen].reshape(1, -1, region.rows, region.columns)
    pooled = torch.nn.functional.max_pool2d(log, 4, 2, padding=1, ceil_mode=True)[0].exp()
    # Window i covers cells 2i-1 ... 2i+2: its centre is half a cell behind cell 2i.
    return pooled, 2 * region.spacing, region.origin + 0.5 * region.spacing, pooled.shape[1:]


def _covered_share(position, observation):
    """Share of coarse cells of the mask that hold a projected point, (Nb, R)."""
    box = observation.boxes[0]
    side = box[2:] - box[:2]
    region = observation.region
    cell = _coarse(region.centres(), box, side)
    filled = torch.zeros(COARSE * COARSE + 1).to(box).index_add(0, cell, (region.coverage > 0.5).to(box))[:-1]
    filled = (filled >= 0.3 * filled.amax()).to(box)
    held = torch.zeros(*position.shape[:2], COARSE * COARSE + 1, dtype=torch.bool, device=box.device)
    held.scatter_(2, _coarse(position, box, side), True)
    return (held[..., :-1].to(box) @ filled) / filled.sum()


def _coarse(position, box, side):
    """Index of the coarse cell of the box that holds each position (..., 2); the last index means outside."""
    cell = ((position - box[:2]) / side * COARSE).floor()
    outside = ((cell < 0) | (cell >= COARSE)).any(-1)
    index = cell[..., 1] * COARSE + cell[..., 0]
    return torch.where(outside, torch.full_like(index, COARSE * COARSE), index).long()
