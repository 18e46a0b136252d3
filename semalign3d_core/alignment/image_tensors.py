"""The host's share of an image: what a mask, a camera and a grid say, as the tensors that everything else is computed from.

After this step nothing is read back before the result, so that a GPU is never waited for and its work can be captured in a graph.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from semalign3d_core.alignment.mask_field import mask_box, mask_shape
from semalign3d_core.evidence import DepthMap
from semalign3d_core.image_grid import SquareGrid


@dataclass(frozen=True)
class Layout:
    """What stays the same while images keep their size and kind; a captured graph belongs to one layout.

    grid: :class:`SquareGrid` of the features; rows, columns: (first, one past the last) cell of the region that is looked at;
    masked: there is a mask; depth: kind of the depth map, or None; focal_known: the focal length must not be changed
    """

    grid: SquareGrid
    rows: tuple
    columns: tuple
    masked: bool
    depth: str | None
    focal_known: bool

    @property
    def spacing(self):
        """Distance between cells, in L."""
        return 1 / self.grid.cells


@dataclass(frozen=True)
class ImageTensors:
    """One image on the device of the model. Lengths in L.

    features: (C, cells, cells); first_cell: (2,) position of the region's first cell; coverage: (rows, columns) share of each cell of
    the region inside the mask (1 without one); distance (H, H), offset (H, H, 2), field_origin (2,), boxes (Nb, 4): see
    :func:`~semalign3d_core.alignment.mask_field.mask_shape` (empty without a mask); focal, principal: (2,) of the given camera;
    depth: (h, w) (empty without one); box: the mask's own box on the host, (4,) array, or None
    """

    layout: Layout
    features: torch.Tensor
    first_cell: torch.Tensor
    coverage: torch.Tensor
    distance: torch.Tensor
    offset: torch.Tensor
    field_origin: torch.Tensor
    boxes: torch.Tensor
    focal: torch.Tensor
    principal: torch.Tensor
    depth: torch.Tensor
    box: np.ndarray | None = None

    def tensors(self):
        """{name: tensor}, the inputs of a captured graph."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def with_tensors(self, tensors):
        """The same image with other tensors of the same shapes."""
        return replace(self, **tensors)

    def inverse_depth(self, places):
        """Relative inverse depth (...) at the nearest pixels of places (..., 2); NaN where unknown, outside, or without a depth map."""
        if self.layout.depth is None:
            return torch.full_like(places[..., 0], torch.nan)
        return DepthMap(self.depth, self.layout.depth).inverse_at(places * max(self.depth.shape))


def image_tensors(category, evidence, config):
    """:class:`ImageTensors` of an :class:`ImageEvidence`, on the device and in the precision of :class:`CategoryTensors`."""
    like, camera = category.shape, evidence.camera
    mask = _usable_mask(evidence)
    layout = _layout(evidence, mask, config.observation.margin_cells, whole=like.is_cuda)
    grid, longer = layout.grid, camera.longer_side
    (top, bottom), (left, right) = layout.rows, layout.columns
    arrays = {
        "first_cell": grid.cell_to_pixel(torch.tensor([float(left), float(top)])).numpy() / longer,
        "focal": camera.focal.numpy(), "principal": camera.principal.numpy(),
    }  # fmt: skip
    if mask is None:
        arrays |= {"coverage": np.ones((bottom - top, right - left)), "distance": np.zeros((0, 0)), "offset": np.zeros((0, 0, 2)),
                   "field_origin": np.zeros(2), "boxes": np.zeros((0, 4))}  # fmt: skip
    else:
        shape = mask_shape(mask, config.observation.field_nodes, config.bank)
        coverage = grid.cells_inside(torch.from_numpy(mask))[top:bottom, left:right]
        arrays |= {**vars(shape), "coverage": coverage.numpy()}
    depth = torch.zeros(0, 0) if evidence.depth is None else evidence.depth.values
    return ImageTensors(
        layout=layout, features=_moved(evidence.features.values, like), depth=_moved(depth, like),
        box=None if mask is None else arrays["boxes"][0], **_uploaded(arrays, like),
    )  # fmt: skip


def _usable_mask(evidence):
    mask = None if evidence.mask is None else evidence.mask.cpu().numpy().astype(bool)
    return mask if mask is not None and mask.any() else None


def _layout(evidence, mask, margin, whole):
    """:class:`Layout`; ``whole``: the region is the whole picture (shapes stay fixed), otherwise the mask's box and a margin."""
    grid = evidence.features.grid
    picture = torch.tensor([[0.0, 0.0], [evidence.camera.width - 1.0, evidence.camera.height - 1.0]])
    region = grid.pixel_to_cell(picture).round().long().clamp(0, grid.cells - 1)
    if mask is not None and not whole:
        cells = grid.pixel_to_cell(torch.tensor(mask_box(mask)).reshape(2, 2).float()).round().long()
        region = torch.stack([torch.maximum(cells[0] - margin, region[0]), torch.minimum(cells[1] + margin, region[1])])
    (left, top), (right, bottom) = region.tolist()
    return Layout(
        grid, _even(top, bottom + 1, grid.cells), _even(left, right + 1, grid.cells), mask is not None,
        None if evidence.depth is None else evidence.depth.kind, evidence.camera.known,
    )  # fmt: skip


def _even(first, last, cells):
    """A range of an even number of cells around [first, last), where the grid has that many."""
    if (last - first) % 2 == 0:
        return first, last
    return (first, last + 1) if last < cells else (max(first - 1, 0), last)


def _moved(values, like):
    return values.to(device=like.device, dtype=like.dtype, non_blocking=True)


def _uploaded(arrays, like):
    """{name: tensor} of arrays in one transfer; the host does not wait for it."""
    if not like.is_cuda:
        return {name: torch.as_tensor(np.asarray(value), dtype=like.dtype) for name, value in arrays.items()}
    flat = torch.from_numpy(np.concatenate([np.asarray(value, dtype=np.float32).ravel() for value in arrays.values()]))
    parts = _moved(flat.pin_memory(), like).split([np.size(value) for value in arrays.values()])
    return {name: part.view(np.shape(value)) for (name, value), part in zip(arrays.items(), parts, strict=True)}
