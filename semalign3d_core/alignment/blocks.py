"""Likelihoods of few points on blocks of 2 x 2 cells: what viewpoints are scored by, and where an object may be without a mask."""

from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from semalign3d_core.alignment.likelihood import semantic_log_likelihood, similarity_map

BLOCK = 2  # cells along a block's side
GUESSES = (0.06, 0.02, 0.12, 0.2)  # tails cut off where there is no mask; the first is the best single guess
SMOOTHING = 3  # blocks


@dataclass(frozen=True)
class Blocks:
    """The scoring points of a category on blocks of cells.

    log_semantic: (J', rows, columns) log p_sem of the mean similarity over each block, -inf far from the mask
    coverage: (rows, columns) share of each block inside the mask (1 everywhere in the picture without one)
    origin: (2,) normalised position of the first block's centre;  spacing: of blocks, in L
    """

    log_semantic: torch.Tensor
    coverage: torch.Tensor
    origin: torch.Tensor
    spacing: float


def blocks_of(category, image, options):
    """:class:`Blocks` of :class:`ImageTensors`: the mean similarity over a block is the similarity to the mean feature, so only that is
    computed; options: an :class:`ObservationConfig`."""
    (top, bottom), (left, right) = image.layout.rows, image.layout.columns
    values = _halved(_halved(image.features[:, top:bottom, left:right], 1), 2)
    similarity = similarity_map(category.scoring_features, values.flatten(1))
    log_semantic = log_semantic_of(category, category.scoring, similarity, options).unflatten(1, values.shape[1:])
    cells = torch.stack([image.near, image.coverage])[None]
    near, coverage = avg_pool2d(cells, BLOCK, ceil_mode=True, count_include_pad=False)[0].unbind(0)
    origin, spacing = image.first_cell + 0.5 * image.spacing, BLOCK * image.spacing
    return Blocks(log_semantic.masked_fill(near < 0.5, -torch.inf), coverage, origin, spacing)


def log_semantic_of(category, points, similarity, options):
    """log p_sem (Eq. 4) of the points (J'), indices or a slice, from their similarities (J', N)."""
    return semantic_log_likelihood(similarity, category.mu[points], options.sd_scale * category.sd[points], options.sd_floor)


def _halved(values, axis):
    """Means of neighbours (2i, 2i + 1) along an axis of (C, rows, columns); the last one stays alone where their number is odd."""
    length = values.shape[axis]
    if length % 2:
        values = torch.cat([values, values.narrow(axis, length - 1, 1)], axis)
    pairs = values.unflatten(axis, (-1, 2))
    return (pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)) * 0.5


def likely_boxes(blocks, dense):
    """Boxes (Nb, 4) where the object may be when there is no mask: around the blocks that are likeliest by any of the first ``dense``
    points, at several strictnesses."""
    best = blocks.log_semantic[:dense].amax(0).exp()
    smooth = avg_pool2d(best[None, None], SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)[0, 0]
    excess = (smooth - smooth.median()).clamp(min=0) ** 2 + 1e-9
    spans = []
    tails = torch.stack([best.new_full((), share) for share in GUESSES])
    for axis in (0, 1):
        cumulative = excess.sum(axis).cumsum(0)
        low, high = (torch.searchsorted(cumulative, share * cumulative[-1]) for share in (tails, 1 - tails))
        spans.append((low - 0.5, high + 0.5))
    cells = torch.stack([spans[0][0], spans[1][0], spans[0][1], spans[1][1]], -1)
    return cells * blocks.spacing + blocks.origin.repeat(2)
