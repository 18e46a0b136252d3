"""What one image says about a category: likelihoods, sampled pixels, mask, boxes. Computed once per image."""

from dataclasses import dataclass

import numpy as np
import torch

from semalign3d_core.alignment.config import SIZE_OF_UNIT
from semalign3d_core.alignment.energy import DistanceField
from semalign3d_core.alignment.likelihood import semantic_log_likelihood, similarity_map
from semalign3d_core.alignment.mask_field import distance_field, extended_boxes, mask_box, touched_sides


@dataclass(frozen=True)
class Region:
    """The rectangle of feature cells in which likelihoods were computed.

    rows, columns: its size in cells; origin: (2,) normalised position of its first cell's centre; spacing: of cells, in L;
    coverage: (rows * columns,) share of each cell inside the mask (1 everywhere without one)
    """

    rows: int
    columns: int
    origin: torch.Tensor
    spacing: float
    coverage: torch.Tensor

    def centres(self):
        """(N, 2) normalised positions of the cells, row-major."""
        like = self.origin
        rows, columns = torch.meshgrid(torch.arange(self.rows).to(like), torch.arange(self.columns).to(like), indexing="ij")
        return torch.stack([columns, rows], -1).reshape(-1, 2) * self.spacing + like


@dataclass(frozen=True)
class Observation:
    """U sampled pixels, N cells, T candidate cells per keypoint, J points (P dense, then K keypoints), Nb boxes.

    pixels:        (U, 2) normalised; pixel_log: (U, P) log p_sem of the dense points there
    keypoint_cells: (K, T, 2) best cells of every keypoint; keypoint_log: (K, T)
    similarity, log_semantic: (J, N) S and log p_sem on the cells of ``region``
    field:         :class:`DistanceField`, None without a mask
    boxes:         (Nb, 4) x0, y0, x1, y1 the object may fill, normalised; the first is the mask's own
    size:          object size: longer side of the first box, in L; unit: size / 0.6
    focal, principal: (2,) each; focal_known: whether it may be changed
    """

    pixels: torch.Tensor
    pixel_log: torch.Tensor
    keypoint_cells: torch.Tensor
    keypoint_log: torch.Tensor
    similarity: torch.Tensor
    log_semantic: torch.Tensor
    region: Region
    field: DistanceField | None
    boxes: torch.Tensor
    size: float
    focal: torch.Tensor
    principal: torch.Tensor
    focal_known: bool

    @property
    def unit(self):
        """Length in which sigmas are given, in L."""
        return self.size / SIZE_OF_UNIT


def observe(category, evidence, config):
    """:class:`Observation` of an :class:`ImageEvidence` for :class:`CategoryTensors` under an :class:`AlignConfig`."""
    like = category.shape
    mask = _usable_mask(evidence)
    region, values = _region(evidence, mask, config.observation.margin_cells)
    similarity = similarity_map(category.features, values.to(like))
    log_semantic = semantic_log_likelihood(similarity, category.mu, category.sd, config.observation.sd_floor)
    centres, best = region.centres(), log_semantic[: category.dense].amax(0).exp()
    pixel = sampled_cells(best, region.coverage, config.observation.pixels)
    candidates = similarity[category.dense :].topk(min(config.energy.sparse_cells, len(centres)), dim=-1).indices
    if mask is None:
        field, boxes = None, likely_boxes(best, region)
    else:
        field = distance_field(mask, config.observation.field_pixels, like.device)
        boxes = _mask_boxes(mask, config.bank, like)
    size = float((boxes[0, 2:] - boxes[0, :2]).max())
    camera = evidence.camera
    focal = camera.focal.to(like) if camera.known else category.log_focal[0].exp() * (camera.focal / camera.focal.mean()).to(like)
    return Observation(
        pixels=centres[pixel], pixel_log=log_semantic[: category.dense, pixel].T.contiguous(),
        keypoint_cells=centres[candidates], keypoint_log=log_semantic[category.dense :].gather(1, candidates),
        similarity=similarity, log_semantic=log_semantic, region=region, field=_as(field, like), boxes=boxes, size=size,
        focal=focal, principal=camera.principal.to(like), focal_known=camera.known,
    )  # fmt: skip


def _usable_mask(evidence):
    mask = None if evidence.mask is None else evidence.mask.cpu().numpy().astype(bool)
    return mask if mask is not None and mask.any() else None


def _as(field, like):
    if field is None:
        return None
    return DistanceField(field.distance.to(like), field.offset.to(like), field.origin.to(like), field.spacing)


def _region(evidence, mask, margin):
    """:class:`Region` around the mask (or of the whole image) and the features (C, N) in it."""
    grid, values = evidence.features.grid, evidence.features.values
    height, width = evidence.camera.height, evidence.camera.width
    picture = torch.tensor([[0.0, 0.0], [width - 1.0, height - 1.0]])
    box = picture if mask is None else torch.tensor(mask_box(mask)).reshape(2, 2).float()
    cells = grid.pixel_to_cell(box).round().long()
    whole = grid.pixel_to_cell(picture).round().long().clamp(0, grid.cells - 1)
    left, top = torch.maximum(cells[0] - margin, whole[0]).tolist()
    right, bottom = torch.minimum(cells[1] + margin, whole[1]).tolist()
    shape = bottom - top + 1, right - left + 1
    coverage = torch.ones(shape) if mask is None else grid.cells_inside(torch.from_numpy(mask))[top : bottom + 1, left : right + 1]
    longer = max(height, width)
    origin = grid.cell_to_pixel(torch.tensor([float(left), float(top)])) / longer
    part = values[:, top : bottom + 1, left : right + 1].reshape(len(values), -1)
    region = Region(*shape, origin.to(values), grid.cell_size / longer, coverage.reshape(-1).to(values))
    return region, part


def sampled_cells(best, coverage, count):
    """Indices (count,) of cells drawn inside the mask in proportion to their best likelihood (systematic, so reproducible).

    best, coverage: (N,). Duplicates are possible and mean what they say; the number is fixed, so shapes are.
    """
    inside = (coverage > 0.5).to(best)
    inside = torch.where(inside.sum() >= 8, inside, (coverage > 0).to(best))
    weight = best * inside + 1e-6 * inside + 1e-12
    cumulative = weight.double().cumsum(0)
    targets = (torch.arange(count, device=best.device) + 0.5) / count * cumulative[-1]
    return torch.searchsorted(cumulative, targets).clamp(max=len(best) - 1)


def _mask_boxes(mask, config, like):
    longer = max(mask.shape)
    box, touched = mask_box(mask), touched_sides(mask)
    boxes = extended_boxes(box, config.extension, touched) if config.extended else box[None]
    return torch.as_tensor(boxes / longer, dtype=like.dtype, device=like.device)


def likely_boxes(best, region):
    """Boxes (Nb, 4) where the object may be when there is no mask: around the likeliest cells, at several strictnesses.

    best: (N,) likelihood of the best point in each cell.
    """
    smooth = torch.nn.functional.avg_pool2d(best.reshape(1, 1, region.rows, region.columns), 5, 1, 2, count_include_pad=False)[0, 0]
    excess = (smooth - smooth.median()).clamp(min=0) ** 2 + 1e-9
    boxes = []
    for tail in (0.02, 0.06, 0.12, 0.2):
        spans = [_quantiles(excess.sum(axis), tail) for axis in (0, 1)]
        boxes.append([spans[0][0] - 0.5, spans[1][0] - 0.5, spans[0][1] + 0.5, spans[1][1] + 0.5])
    order = np.array([1, 0, 2, 3])  # the first is the best single guess and gives the object size
    cells = torch.tensor(np.array(boxes)[order], dtype=best.dtype, device=best.device)
    return cells * region.spacing + region.origin.repeat(2)


def _quantiles(weight, tail):
    cumulative = (weight.cumsum(0) / weight.sum()).cpu().numpy()
    return float(np.searchsorted(cumulative, tail)), float(np.searchsorted(cumulative, 1 - tail))
