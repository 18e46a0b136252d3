"""What one image says about a category: likelihoods, sampled pixels, mask, boxes. Computed once per image.

The similarity product is the largest cost of an alignment. All points are needed at the few sampled pixels, and the
keypoints in all cells; viewpoints are scored by fewer points on blocks of 2 x 2 cells (blocks.py).
"""

from dataclasses import dataclass

import torch

from semalign3d_core.alignment.blocks import Blocks, blocks_of, likely_boxes, log_semantic_of
from semalign3d_core.alignment.config import SIZE_OF_UNIT
from semalign3d_core.alignment.energy import DistanceField
from semalign3d_core.alignment.image_tensors import ImageTensors
from semalign3d_core.alignment.likelihood import similarity_map


@dataclass(frozen=True)
class Observation:
    """U sampled pixels, T candidate cells per keypoint, J points (P dense, then K keypoints), Nb boxes.

    image:         :class:`ImageTensors` that is observed
    spread:        (V, 2) normalised places, evenly over the mask (over the picture without one); similarity: (P, V) of the dense
                   points there
    pixels:        (U, 2) of them, drawn by their likelihood; pixel_log: (U, P) log p_sem of the dense points there
    keypoint_cells: (K, T, 2) best cells of every keypoint; keypoint_log: (K, T)
    blocks:        :class:`Blocks`, None where a warm start does not need them
    field:         :class:`DistanceField`, None without a mask
    boxes:         (Nb, 4) x0, y0, x1, y1 the object may fill, normalised; the first is the mask's own
    size:          () object size: longer side of the first box, in L
    focal, principal: (2,) each; focal_known: whether it may be changed
    """

    image: ImageTensors
    spread: torch.Tensor
    similarity: torch.Tensor
    pixels: torch.Tensor
    pixel_log: torch.Tensor
    keypoint_cells: torch.Tensor
    keypoint_log: torch.Tensor
    blocks: Blocks | None
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


def observe(category, image, config, for_bank=True):
    """:class:`Observation` of :class:`ImageTensors` for :class:`CategoryTensors` under an :class:`AlignConfig`.

    for_bank: viewpoints will be scored, not only a given pose refined.
    """
    options, layout = config.observation, image.layout
    blocks = blocks_of(category, image, options) if for_bank or not layout.masked else None
    spread, similarity, pixels, pixel_log = _sampled_pixels(category, image, options)
    keypoint_cells, keypoint_log = _keypoint_cells(category, image, config)
    if layout.masked:
        field = DistanceField(image.distance, image.offset, image.field_origin, 2 / len(image.distance))
        boxes = image.boxes
    else:
        field, boxes = None, likely_boxes(blocks, category.dense_scoring)
    typical = category.log_focal[0].exp() * image.focal / image.focal.mean()
    return Observation(
        image=image, spread=spread, similarity=similarity, pixels=pixels, pixel_log=pixel_log,
        keypoint_cells=keypoint_cells, keypoint_log=keypoint_log, blocks=blocks, field=field,
        boxes=boxes, size=(boxes[0, 2:] - boxes[0, :2]).amax(), principal=image.principal,
        focal=image.focal if layout.focal_known else typical, focal_known=layout.focal_known,
    )  # fmt: skip


def _sampled_pixels(category, image, options):
    """Positions (V, 2) of cells evenly spread over the mask, at which alone similarities (P, V) are computed; positions (U, 2) of those
    drawn in proportion to their best likelihood, and log p_sem (U, P) of the dense points there."""
    points = slice(0, category.dense)
    count = options.candidates if image.layout.masked else options.unmasked_candidates
    candidates = sampled_cells(inside_mask(image.coverage), count)
    places, values = _cells(image, candidates)
    similarity = similarity_map(category.features[points], values)
    log = log_semantic_of(category, points, similarity, options)
    chosen = sampled_cells(log.amax(0).exp(), options.pixels)
    return places, similarity, places.index_select(0, chosen), log.index_select(1, chosen).T.contiguous()


def _cells(image, index):
    """Positions (N, 2) of the cells with row-major indices (N,) of the region, and their features (C, N)."""
    (top, _), (left, right) = image.layout.rows, image.layout.columns
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    values = image.features.flatten(1).index_select(1, (row + top) * image.layout.cells + column + left)
    return torch.stack([column, row], -1) * image.spacing + image.first_cell, values


def _keypoint_cells(category, image, config):
    """(K, T, 2) best cells of every keypoint in the region and their log p_sem (K, T)."""
    (top, bottom), (left, right) = image.layout.rows, image.layout.columns
    band = similarity_map(category.features[category.dense :], image.features[:, top:bottom].flatten(1))  # whole rows need no copy
    region = band.unflatten(1, (bottom - top, -1))[:, :, left:right].masked_fill(image.near == 0, -1.0).flatten(1)
    best, index = region.topk(min(config.energy.sparse_cells, region.shape[1]), dim=-1, sorted=False)
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    cells = torch.stack([column, row], -1) * image.spacing + image.first_cell
    return cells, log_semantic_of(category, slice(category.dense, None), best, config.observation)


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
