"""What one image says about a category: likelihoods, sampled pixels, mask, boxes. Computed once per image.

The similarity product is the largest cost of an alignment. All points are needed at the few sampled pixels, and the
keypoints in all cells; viewpoints are scored and images judged by fewer points on blocks of 2 x 2 cells.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from semalign3d_core.alignment.config import SIZE_OF_UNIT
from semalign3d_core.alignment.energy import DistanceField
from semalign3d_core.alignment.likelihood import semantic_log_likelihood, similarity_map

BLOCK = 2  # cells along a block's side
GUESSES = (0.06, 0.02, 0.12, 0.2)  # tails cut off where there is no mask; the first is the best single guess
SMOOTHING = 3  # blocks


@dataclass(frozen=True)
class Blocks:
    """The scoring points of a category on blocks of cells.

    similarity, log_semantic: (J', rows, columns) mean similarity over each block, and log p_sem of it, -inf far from the mask
    near, coverage: (rows, columns) share of each block near the mask and inside it (1 everywhere in the picture without one)
    origin: (2,) normalised position of the first block's centre;  spacing: of blocks, in L
    """

    similarity: torch.Tensor
    log_semantic: torch.Tensor
    near: torch.Tensor
    coverage: torch.Tensor
    origin: torch.Tensor
    spacing: float


@dataclass(frozen=True)
class Observation:
    """U sampled pixels, T candidate cells per keypoint, J points (P dense, then K keypoints), Nb boxes.

    spread:        (V, 2) normalised places, evenly over the mask (over the picture without one)
    pixels:        (U, 2) of them, drawn by their likelihood; pixel_log: (U, P) log p_sem of the dense points there
    keypoint_cells: (K, T, 2) best cells of every keypoint; keypoint_log: (K, T)
    blocks:        :class:`Blocks`
    field:         :class:`DistanceField`, None without a mask
    boxes:         (Nb, 4) x0, y0, x1, y1 the object may fill, normalised; the first is the mask's own
    size:          () object size: longer side of the first box, in L
    focal, principal: (2,) each; focal_known: whether it may be changed
    """

    spread: torch.Tensor
    pixels: torch.Tensor
    pixel_log: torch.Tensor
    keypoint_cells: torch.Tensor
    keypoint_log: torch.Tensor
    blocks: Blocks
    field: DistanceField | None
    boxes: torch.Tensor
    size: torch.Tensor
    focal: torch.Tensor
    principal: torch.Tensor
    focal_known: bool

    @property
    def unit(self):
        """() length in which sigmas are given, in L."""
        return self.size / SIZE_OF_UNIT


def observe(category, image, config):
    """:class:`Observation` of :class:`ImageTensors` for :class:`CategoryTensors` under an :class:`AlignConfig`."""
    options, layout = config.observation, image.layout
    blocks = _blocks(category, image, options)
    spread, pixels, pixel_log = _sampled_pixels(category, image, options)
    keypoint_cells, keypoint_log = _keypoint_cells(category, image, config)
    if layout.masked:
        field = DistanceField(image.distance, image.offset, image.field_origin, 2 / len(image.distance))
        boxes = image.boxes
    else:
        field, boxes = None, likely_boxes(blocks.log_semantic[: category.dense_scoring].amax(0).exp(), blocks)
    typical = category.log_focal[0].exp() * image.focal / image.focal.mean()
    return Observation(
        spread=spread, pixels=pixels, pixel_log=pixel_log, keypoint_cells=keypoint_cells, keypoint_log=keypoint_log,
        blocks=blocks, field=field, boxes=boxes, size=(boxes[0, 2:] - boxes[0, :2]).amax(), principal=image.principal,
        focal=image.focal if layout.focal_known else typical, focal_known=layout.focal_known,
    )  # fmt: skip


def _log_semantic(category, points, similarity, options):
    """log p_sem (Eq. 4) of the points (J'), indices or a slice, from their similarities (J', N)."""
    return semantic_log_likelihood(similarity, category.mu[points], options.sd_scale * category.sd[points], options.sd_floor)


def _blocks(category, image, options):
    """:class:`Blocks`: the mean similarity over a block is the similarity to the mean feature, so only that is computed."""
    (top, bottom), (left, right) = image.layout.rows, image.layout.columns
    values = _halved(_halved(image.features[:, top:bottom, left:right], 1), 2)
    shape = values.shape[1:]
    similarity = similarity_map(category.scoring_features, values.flatten(1))
    log_semantic = _log_semantic(category, category.scoring, similarity, options)
    shares = avg_pool2d(torch.stack([image.near, image.coverage])[None], BLOCK, ceil_mode=True, count_include_pad=False)[0]
    log_semantic = log_semantic.unflatten(1, shape).masked_fill(shares[0] < 0.5, -torch.inf)
    origin, spacing = image.first_cell + 0.5 * image.layout.spacing, BLOCK * image.layout.spacing
    return Blocks(similarity.unflatten(1, shape), log_semantic, *shares.unbind(0), origin, spacing)


def _halved(values, axis):
    """Means of neighbours (2i, 2i + 1) along an axis of (C, rows, columns); the last one stays alone where their number is odd."""
    length = values.shape[axis]
    if length % 2:
        values = torch.cat([values, values.narrow(axis, length - 1, 1)], axis)
    pairs = values.unflatten(axis, (-1, 2))
    return (pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)) * 0.5


def _sampled_pixels(category, image, options):
    """Positions (V, 2) of cells evenly spread over the mask, of which alone the likelihood is computed; positions (U, 2) of those drawn in
    proportion to their best likelihood, and log p_sem (U, P) of the dense points there."""
    points = slice(0, category.dense)
    candidates = sampled_cells(inside_mask(image.coverage), options.candidates)
    places, values = _cells(image, candidates)
    log = _log_semantic(category, points, similarity_map(category.features[points], values), options)
    chosen = sampled_cells(log.amax(0).exp(), options.pixels)
    return places, places.index_select(0, chosen), log.index_select(1, chosen).T.contiguous()


def _cells(image, index):
    """Positions (N, 2) of the cells with row-major indices (N,) of the region, and their features (C, N)."""
    (top, _), (left, right) = image.layout.rows, image.layout.columns
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    values = image.features.flatten(1).index_select(1, (row + top) * image.layout.grid.cells + column + left)
    return torch.stack([column, row], -1) * image.layout.spacing + image.first_cell, values


def _keypoint_cells(category, image, config):
    """(K, T, 2) best cells of every keypoint in the region and their log p_sem (K, T)."""
    (top, bottom), (left, right) = image.layout.rows, image.layout.columns
    band = similarity_map(category.features[category.dense :], image.features[:, top:bottom].flatten(1))  # whole rows need no copy
    region = band.unflatten(1, (bottom - top, -1))[:, :, left:right].masked_fill(image.near == 0, -1.0).flatten(1)
    best, index = region.topk(min(config.energy.sparse_cells, region.shape[1]), dim=-1, sorted=False)
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    cells = torch.stack([column, row], -1) * image.layout.spacing + image.first_cell
    return cells, _log_semantic(category, slice(category.dense, None), best, config.observation)


def inside_mask(coverage):
    """(rows, columns) 1 where a cell lies in the mask; where hardly any cell does, those that touch it count."""
    inside = coverage > 0.5
    return torch.where(inside.sum() >= 8, inside, coverage > 0).to(coverage)


def sampled_cells(weight, count):
    """Indices (count,) drawn in proportion to weights (N,) or (rows, columns), systematically, so reproducibly and evenly.

    Duplicates are possible and mean what they say; the number is fixed, so shapes are.
    """
    cumulative = (weight.reshape(-1) + 1e-12).double().cumsum(0)
    targets = (torch.arange(count, device=weight.device) + 0.5) / count * cumulative[-1]
    return torch.searchsorted(cumulative, targets).clamp(max=len(cumulative) - 1)


def likely_boxes(best, blocks):
    """Boxes (Nb, 4) where the object may be when there is no mask: around the likeliest blocks, at several strictnesses.

    best: (rows, columns) likelihood of the best point in each block.
    """
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
