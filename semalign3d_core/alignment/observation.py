"""What is computed of one image for a category: mask, boxes, likelihoods, sampled pixels. Computed once per image.

The product of features, which gives the similarities, takes most of the time of an alignment. So all points are compared only with the
few sampled pixels, the keypoints with all cells, and viewpoints are scored by fewer points on coarse cells of 2 x 2 cells. Between
:meth:`ImageTensors.of` and the result nothing is copied from a GPU to the CPU, so that the CPU never waits for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from semalign3d_core.alignment.category_tensors import CategoryTensors
from semalign3d_core.alignment.config import SIZE_OF_UNIT, AlignConfig
from semalign3d_core.alignment.energy import DistanceField, log_semantic
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.geometry.mask_field import mask_box, mask_shape
from semalign3d_core.perception.evidence import DepthMap, ImageEvidence
from semalign3d_core.runtime.values import ShortRepr

MARGIN = 3  # cells around the mask's box in which likelihoods are computed
FIELD_NODES = 80  # along the longer side of the image, at which the distance to the mask is computed
CANDIDATES, UNMASKED_CANDIDATES = 320, 960  # cells of which pixels are drawn; more without a mask: the image is larger than the object
SPARSE_CELLS = 96  # best cells per keypoint that the sparse term looks at
COARSE = 2  # cells along a side of a coarse cell
GUESSES = (0.06, 0.02, 0.12, 0.2)  # tails cut off where there is no mask; the first is the best single guess
SMOOTHING = 3  # coarse cells

Span = tuple[int, int]  # first, one past the last


@dataclass(frozen=True, repr=False)
class ImageTensors(ShortRepr):
    """One image on the device and in the precision of the model. Lengths in L.

    features: (C, cells, cells);  rows, columns: cells of the rectangle that likelihoods are computed in
    first_cell: (2,) position of the rectangle's first cell;  spacing: () distance between cells
    near:     (rows, columns) 1 for cells within a margin of the mask's box, which alone are looked at
    coverage: (rows, columns) share of each inside the mask (1 without one)
    field:    :class:`DistanceField` of the mask;  boxes: (Nb, 4) the mask's own and larger ones that the object may fill;
    mask_box: the mask's own, as numbers; all three None without a mask
    focal, principal: (2,) of the given camera;  focal_known: the focal length must not be changed;  depth: :class:`DepthMap` or None
    up: (3,) unit vector against gravity in the camera's frame, or None
    """

    features: Tensor
    rows: Span
    columns: Span
    first_cell: Tensor
    spacing: Tensor
    near: Tensor
    coverage: Tensor
    field: DistanceField | None
    boxes: Tensor | None
    mask_box: tuple[float, ...] | None
    focal: Tensor
    principal: Tensor
    focal_known: bool
    depth: DepthMap | None
    up: Tensor | None = None

    @classmethod
    def of(cls, evidence: ImageEvidence, like: Tensor, extended: bool = True) -> "ImageTensors":
        """Prepares the evidence of an image on the CPU; the tensors get device and precision of ``like``.

        extended: whether boxes larger than the mask's own are tried.
        """
        camera, grid = evidence.camera, evidence.features.grid
        mask = None if evidence.mask is None else evidence.mask.cpu().numpy().astype(bool, copy=False)
        mask = mask if mask is not None and mask.any() else None
        whole = (0.0, 0.0, camera.width - 1.0, camera.height - 1.0)
        image, *objects = _cell_spans(grid, [whole] if mask is None else [whole, mask_box(mask)])
        near = _with_margin(objects[0], image) if objects else image
        first_cells = (image[0][0], image[1][0]) if grid.window is None else (0, 0)
        rows, columns = (_of_coarse_cells(*spans, grid.cells) for spans in zip(near, first_cells, strict=True))
        (top, bottom), (left, right) = rows, columns
        looked_at = np.zeros((bottom - top, right - left), dtype=np.float32)
        looked_at[near[0][0] - top : near[0][1] - top, near[1][0] - left : near[1][1] - left] = 1
        coverage, field, boxes = looked_at, None, None

        def moved(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=like.dtype, device=like.device)

        if mask is not None:
            coverage = grid.cells_inside(torch.from_numpy(mask))[top:bottom, left:right].numpy()
            shape = mask_shape(mask, FIELD_NODES, extended)
            field = DistanceField(moved(shape.distance), moved(shape.offset), moved(shape.field_origin), 2 / len(shape.distance))
            boxes = moved(shape.boxes)
        first = grid.cell_to_pixel(torch.tensor([float(left), float(top)])) / camera.longer_side
        depth = None if evidence.depth is None else DepthMap(evidence.depth.values.to(like), evidence.depth.kind)
        return cls(
            features=evidence.features.values.to(like), rows=rows, columns=columns, first_cell=moved(first),
            spacing=moved(grid.cell_size / camera.longer_side), near=moved(looked_at), coverage=moved(coverage), field=field, boxes=boxes,
            mask_box=None if mask is None else tuple(shape.boxes[0].tolist()),
            focal=moved(camera.focal), principal=moved(camera.principal), focal_known=camera.known, depth=depth,
            up=None if evidence.up is None else moved(evidence.up),
        )  # fmt: skip

    def features_at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Features (C, N) of the cells nearest to places (N, 2), and (N,) bool: inside the grid."""
        cells = self.features.shape[1]
        column, row = ((places - self.first_cell) / self.spacing).round().unbind(-1)
        column, row = column + self.columns[0], row + self.rows[0]
        inside = (column >= 0) & (row >= 0) & (column < cells) & (row < cells)
        index = (row.clamp(0, cells - 1) * cells + column.clamp(0, cells - 1)).long()
        return self.features.flatten(1).index_select(1, index), inside

    def inverse_depth(self, places: Tensor) -> Tensor:
        """Relative inverse depth (...) at the nearest pixels of places (..., 2); NaN where unknown, outside, or without a depth map."""
        if self.depth is None:
            return torch.full_like(places[..., 0], torch.nan)
        return self.depth.inverse_at(places * max(self.depth.values.shape))


def _cell_spans(grid: SquareGrid, boxes: Sequence[Any]) -> list[tuple[Span, Span]]:
    """Rows and columns of the cells of boxes x0, y0, x1, y1 in pixels."""
    corners = torch.tensor(np.array(boxes), dtype=torch.float32).view(-1, 2, 2)
    cells = grid.pixel_to_cell(corners).round().long().clamp(0, grid.cells - 1)
    return [((top, bottom + 1), (left, right + 1)) for (left, top), (right, bottom) in cells.tolist()]


def _with_margin(spans: tuple[Span, Span], image: tuple[Span, Span]) -> tuple[Span, Span]:
    """Spans with a margin, within those of the image."""
    rows, columns = ((max(a - MARGIN, low), min(b + MARGIN, high)) for (a, b), (low, high) in zip(spans, image, strict=True))
    return rows, columns


def _of_coarse_cells(span: Span, begin: int, cells: int) -> Span:
    """The span enlarged to coarse cells, of which one begins at the cell ``begin``."""
    first, last = span[0] - (span[0] - begin) % COARSE, span[1] + (span[1] - begin) % COARSE
    return first, min(last, cells)


@dataclass(frozen=True, repr=False)
class CoarseMap(ShortRepr):
    """The scoring points of a category on coarse cells: what viewpoints are scored by, and where an object may be without a mask.

    log_semantic: (J', rows, columns) log p_sem of the mean similarity over each coarse cell, -inf far from the mask
    coverage: (rows, columns) share of each inside the mask (1 everywhere in the image without one)
    origin: (2,) normalised position of the first coarse cell's centre;  spacing: () of coarse cells, in L
    """

    log_semantic: Tensor
    coverage: Tensor
    origin: Tensor
    spacing: Tensor


@dataclass(frozen=True, repr=False)
class Observation(ShortRepr):
    """U sampled pixels, T candidate cells per keypoint, J points (P dense, then K keypoints), Nb boxes.

    image:         :class:`ImageTensors` that is observed
    spread:        (V, 2) normalised places, evenly over the mask (over the image without one); similarity: (P, V) of the dense points
                   there
    pixels:        (U, 2) of them, drawn by their likelihood; pixel_log: (U, P) log p_sem of the dense points there
    keypoint_cells: (K, T, 2) best cells of every keypoint; keypoint_log: (K, T)
    coarse:        :class:`CoarseMap`, None where a warm start does not need it
    boxes:         (Nb, 4) x0, y0, x1, y1 the object may fill, normalised; the first is the mask's own
    size:          () object size: longer side of the first box, in L
    focal:         (2,) known or typical
    """

    image: ImageTensors
    spread: Tensor
    similarity: Tensor
    pixels: Tensor
    pixel_log: Tensor
    keypoint_cells: Tensor
    keypoint_log: Tensor
    coarse: CoarseMap | None
    boxes: Tensor
    size: Tensor
    focal: Tensor

    @property
    def object_scale(self) -> Tensor:
        """() length in which sigmas are given, in L."""
        return self.size / SIZE_OF_UNIT

    @property
    def field(self) -> DistanceField | None:
        """Distance to the mask; None without one."""
        return self.image.field

    @property
    def principal(self) -> Tensor:
        """(2,) principal point."""
        return self.image.principal

    @property
    def focal_known(self) -> bool:
        """Whether the focal length must not be changed."""
        return self.image.focal_known

    @classmethod
    def of(cls, category: CategoryTensors, image: ImageTensors, config: AlignConfig, search: bool = True) -> "Observation":
        """Observes an image; search: viewpoints will be scored, not only a given pose refined."""
        coarse = _coarse_map(category, image) if search or image.boxes is None else None
        spread, similarity, pixels, pixel_log = _sampled_pixels(category, image, config.observation.pixels)
        keypoint_cells, keypoint_log = _keypoint_cells(category, image)
        boxes = image.boxes
        if boxes is None:
            assert coarse is not None
            boxes = _likely_boxes(coarse, category.dense_scoring)
        typical = category.log_focal[0].exp() * image.focal / image.focal.mean()
        return cls(
            image=image, spread=spread, similarity=similarity, pixels=pixels, pixel_log=pixel_log, keypoint_cells=keypoint_cells,
            keypoint_log=keypoint_log, coarse=coarse, boxes=boxes, size=(boxes[0, 2:] - boxes[0, :2]).amax(),
            focal=image.focal if image.focal_known else typical,
        )  # fmt: skip


def _coarse_map(category: CategoryTensors, image: ImageTensors) -> CoarseMap:
    """The mean similarity over a coarse cell is the similarity to the mean feature, so only that is computed."""
    (top, bottom), (left, right) = image.rows, image.columns
    values = _halved(_halved(image.features[:, top:bottom, left:right], 1), 2)
    similarity = category.scoring_features @ values.flatten(1)
    scoring = category.scoring
    log = log_semantic(similarity, category.mu[scoring, None], category.semantic_sd[scoring, None]).unflatten(1, values.shape[1:])
    cells = torch.stack([image.near, image.coverage])[None]
    near, coverage = avg_pool2d(cells, COARSE, ceil_mode=True, count_include_pad=False)[0].unbind(0)
    origin, spacing = image.first_cell + 0.5 * image.spacing, COARSE * image.spacing
    return CoarseMap(log.masked_fill(near < 0.5, -torch.inf), coverage, origin, spacing)


def _halved(values: Tensor, axis: int) -> Tensor:
    """Means of neighbours (2i, 2i + 1) along an axis of (C, rows, columns); the last one stays alone where their number is odd."""
    length = values.shape[axis]
    if length % 2:
        values = torch.cat([values, values.narrow(axis, length - 1, 1)], axis)
    pairs = values.unflatten(axis, (-1, 2))
    return (pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)) * 0.5


def _likely_boxes(coarse: CoarseMap, dense: int) -> Tensor:
    """Boxes (Nb, 4) where the object may be when there is no mask.

    They lie around the coarse cells that are likeliest by any of the first ``dense`` points, at several strictnesses.
    """
    best = coarse.log_semantic[:dense].amax(0).exp()
    smooth = avg_pool2d(best[None, None], SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)[0, 0]
    excess = (smooth - smooth.median()).clamp(min=0) ** 2 + 1e-9
    spans = []
    tails = torch.stack([best.new_full((), share) for share in GUESSES])
    for axis in (0, 1):
        cumulative = excess.sum(axis).cumsum(0)
        low, high = (torch.searchsorted(cumulative, share * cumulative[-1]) for share in (tails, 1 - tails))
        spans.append((low - 0.5, high + 0.5))
    cells = torch.stack([spans[0][0], spans[1][0], spans[0][1], spans[1][1]], -1)
    return cells * coarse.spacing + coarse.origin.repeat(2)


def _sampled_pixels(category: CategoryTensors, image: ImageTensors, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells evenly spread over the mask, and pixels drawn from them.

    Returns positions (V, 2) of the cells, at which alone similarities (P, V) are computed; the similarities; positions (U, 2) of those
    drawn in proportion to their best likelihood; and log p_sem (U, P) of the dense points there.
    """
    dense = category.dense
    candidates = sampled_cells(inside_mask(image.coverage), UNMASKED_CANDIDATES if image.field is None else CANDIDATES)
    places, values = _cells(image, candidates)
    similarity = category.features[:dense] @ values
    log = log_semantic(similarity, category.mu[:dense, None], category.semantic_sd[:dense, None])
    chosen = sampled_cells(log.amax(0).exp(), count)
    return places, similarity, places.index_select(0, chosen), log.index_select(1, chosen).T.contiguous()


def _cells(image: ImageTensors, index: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (N, 2) of the cells with row-major indices (N,) of the rectangle, and their features (C, N)."""
    (top, _), (left, right) = image.rows, image.columns
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    values = image.features.flatten(1).index_select(1, (row + top) * image.features.shape[1] + column + left)
    return torch.stack([column, row], -1) * image.spacing + image.first_cell, values


def _keypoint_cells(category: CategoryTensors, image: ImageTensors) -> tuple[Tensor, Tensor]:
    """(K, T, 2) best cells of every keypoint in the rectangle and their log p_sem (K, T)."""
    (top, bottom), (left, right), dense = image.rows, image.columns, category.dense
    band = category.features[dense:] @ image.features[:, top:bottom].flatten(1)  # whole rows need no copy
    rectangle = band.unflatten(1, (bottom - top, -1))[:, :, left:right].masked_fill(image.near == 0, -1.0).flatten(1)
    best, index = rectangle.topk(min(SPARSE_CELLS, rectangle.shape[1]), dim=-1, sorted=False)
    row, column = torch.div(index, right - left, rounding_mode="floor"), index % (right - left)
    cells = torch.stack([column, row], -1) * image.spacing + image.first_cell
    return cells, log_semantic(best, category.mu[dense:, None], category.semantic_sd[dense:, None])


def inside_mask(coverage: Tensor) -> Tensor:
    """(rows, columns) 1 where a cell lies in the mask; where hardly any cell does, those that touch it count."""
    inside = coverage > 0.5
    return torch.where(inside.sum() >= 8, inside, coverage > 0).to(coverage)


def sampled_cells(weight: Tensor, count: int) -> Tensor:
    """Indices (count,) drawn in proportion to weights (N,) or (rows, columns), systematically, so reproducibly and evenly.

    A cell with a large weight may be drawn several times, and then counts as often. The number of indices does not depend on the weights.
    """
    cumulative = (weight.reshape(-1) + 1e-12).double().cumsum(0)
    targets = (torch.arange(count, device=weight.device) + 0.5) / count * cumulative[-1]
    return torch.searchsorted(cumulative, targets).clamp(max=len(cumulative) - 1)
