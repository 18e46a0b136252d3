"""The host's share of an image: what a mask, a camera and a grid say, as the tensors that everything else is computed from.

After this step nothing is read back before the result, so that a GPU is never waited for and its work can be captured in a graph.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from semalign3d_core.geometry.mask_field import mask_box, mask_shape
from semalign3d_core.perception.evidence import DepthMap

MOST_BOXES = 9  # the mask's own, and two on each side
FAR_AWAY = 10.0  # in L, outside of every picture


@dataclass(frozen=True)
class Layout:
    """What stays the same while images keep their size and kind; a captured graph belongs to one layout.

    cells: of the features' grid, per side; rows, columns: (first, one past the last) cell of the rectangle that is computed;
    masked: there is a mask; depth: kind of the depth map, or None; focal_known: the focal length must not be changed
    """

    cells: int
    rows: tuple
    columns: tuple
    masked: bool
    depth: str | None
    focal_known: bool


@dataclass(frozen=True)
class ImageTensors:
    """One image on the device of the model. Lengths in L.

    features: (C, cells, cells); first_cell: (2,) position of the rectangle's first cell; spacing: () distance between cells
    near: (rows, columns) 1 for cells of the rectangle within a margin of the mask's box, which alone are looked at
    coverage: (rows, columns) share of each inside the mask (1 without one)
    distance (H, H), offset (H, H, 2), field_origin (2,), boxes (Nb, 4): see :func:`~semalign3d_core.geometry.mask_field.mask_shape`
    (empty without a mask);  focal, principal: (2,) of the given camera;  depth: (h, w) (empty without one)
    box: the mask's own box on the host, 4 numbers, or None
    """

    layout: Layout
    features: torch.Tensor
    first_cell: torch.Tensor
    spacing: torch.Tensor
    near: torch.Tensor
    coverage: torch.Tensor
    distance: torch.Tensor
    offset: torch.Tensor
    field_origin: torch.Tensor
    boxes: torch.Tensor
    focal: torch.Tensor
    principal: torch.Tensor
    depth: torch.Tensor
    box: tuple | None = None

    def tensors(self):
        """{name: tensor}, the inputs of a captured graph."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def with_tensors(self, tensors):
        """The same image with other tensors of the same shapes."""
        return replace(self, **tensors)

    def features_at(self, places):
        """Features (C, N) of the cells nearest to places (N, 2), and (N,) bool: inside the grid."""
        layout = self.layout
        column, row = ((places - self.first_cell) / self.spacing).round().unbind(-1)
        column, row = column + layout.columns[0], row + layout.rows[0]
        inside = (column >= 0) & (row >= 0) & (column < layout.cells) & (row < layout.cells)
        index = (row.clamp(0, layout.cells - 1) * layout.cells + column.clamp(0, layout.cells - 1)).long()
        return self.features.flatten(1).index_select(1, index), inside

    def inverse_depth(self, places):
        """Relative inverse depth (...) at the nearest pixels of places (..., 2); NaN where unknown, outside, or without a depth map."""
        if self.layout.depth is None:
            return torch.full_like(places[..., 0], torch.nan)
        return DepthMap(self.depth, self.layout.depth).inverse_at(places * max(self.depth.shape))


def image_tensors(category, evidence, config, whole=None):
    """:class:`ImageTensors` of an :class:`ImageEvidence`, on the device and in the precision of :class:`CategoryTensors`.

    whole: compute the whole picture, so that shapes stay the same, instead of the surroundings of the mask; None: on a GPU. What is
    far from the mask has no weight in either case.
    """
    like, camera, grid = category.shape, evidence.camera, evidence.features.grid
    mask = _usable_mask(evidence)
    picture = _cell_spans(grid, [0.0, 0.0, camera.width - 1.0, camera.height - 1.0])
    near = picture if mask is None else _near_mask(grid, mask, picture, config.observation.margin_cells)
    whole = like.is_cuda if whole is None else whole
    # Cells of a window that lie outside of the picture are none of it, but without them shapes would depend on where the window lies.
    most = picture if grid.window is None else ((0, grid.cells), (0, grid.cells))
    rows, columns = (_of_blocks(*spans, grid.cells) for spans in zip(most if whole else near, most, strict=True))
    depth_kind = None if evidence.depth is None else evidence.depth.kind
    layout = Layout(grid.cells, rows, columns, mask is not None, depth_kind, camera.known)
    arrays = _arrays(layout, grid, near, mask, camera, config)
    if whole and mask is not None:
        nowhere = np.repeat(arrays["boxes"][:1] + FAR_AWAY, MOST_BOXES - len(arrays["boxes"]), 0)  # where no viewpoint scores
        arrays["boxes"] = np.concatenate([arrays["boxes"], nowhere])
    return ImageTensors(
        layout=layout, features=_moved(evidence.features.values, like), box=None if mask is None else tuple(arrays["boxes"][0].tolist()),
        depth=_moved(torch.zeros(0, 0) if evidence.depth is None else evidence.depth.values, like), **_uploaded(arrays, like),
    )  # fmt: skip


def _usable_mask(evidence):
    mask = None if evidence.mask is None else evidence.mask.cpu().numpy().astype(bool)
    return mask if mask is not None and mask.any() else None


def _arrays(layout, grid, near, mask, camera, config):
    """{name: array} of the fields of :class:`ImageTensors` that the host computes."""
    (top, bottom), (left, right) = layout.rows, layout.columns
    looked_at = np.zeros((bottom - top, right - left), dtype=np.float32)
    looked_at[near[0][0] - top : near[0][1] - top, near[1][0] - left : near[1][1] - left] = 1
    first = grid.cell_to_pixel(torch.tensor([float(left), float(top)])).numpy() / camera.longer_side
    arrays = {"first_cell": first, "spacing": np.float64(grid.cell_size / camera.longer_side), "near": looked_at}
    arrays |= {"focal": camera.focal.numpy(), "principal": camera.principal.numpy()}
    if mask is None:
        empty = {"distance": np.zeros((0, 0)), "offset": np.zeros((0, 0, 2)), "field_origin": np.zeros(2), "boxes": np.zeros((0, 4))}
        return arrays | empty | {"coverage": looked_at}
    coverage = grid.cells_inside(torch.from_numpy(mask))[top:bottom, left:right].numpy()
    return arrays | vars(mask_shape(mask, config.observation.field_nodes, config.bank)) | {"coverage": coverage}


def _cell_spans(grid, box):
    """((top, bottom), (left, right)) cells of a box x0, y0, x1, y1 in pixels, each from the first to one past the last."""
    cells = grid.pixel_to_cell(torch.tensor(box).reshape(2, 2).float()).round().long().clamp(0, grid.cells - 1)
    (left, top), (right, bottom) = cells.tolist()
    return (top, bottom + 1), (left, right + 1)


def _near_mask(grid, mask, picture, margin):
    """Spans as :func:`_cell_spans` of the cells within a margin of the mask's box."""
    spans = _cell_spans(grid, mask_box(mask))
    return tuple((max(a - margin, low), min(b + margin, high)) for (a, b), (low, high) in zip(spans, picture, strict=True))


def _of_blocks(span, picture, cells):
    """The span enlarged to blocks of two cells that begin where the picture begins."""
    first, last = span[0] - (span[0] - picture[0]) % 2, span[1] + (span[1] - picture[0]) % 2
    return first, min(last, cells)


def _moved(values, like):
    return values.to(device=like.device, dtype=like.dtype, non_blocking=True)


def _uploaded(arrays, like):
    """{name: tensor} of arrays in one transfer; the host does not wait for it."""
    if not like.is_cuda:
        return {name: torch.as_tensor(np.asarray(value), dtype=like.dtype) for name, value in arrays.items()}
    flat = torch.from_numpy(np.concatenate([np.asarray(value, dtype=np.float32).ravel() for value in arrays.values()]))
    parts = _moved(flat.pin_memory(), like).split([np.size(value) for value in arrays.values()])
    return {name: part.view(np.shape(value)) for (name, value), part in zip(arrays.items(), parts, strict=True)}
