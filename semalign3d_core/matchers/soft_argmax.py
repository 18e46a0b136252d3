"""Where a query feature is in a target feature map: arg-max, soft arg-max, window and kernel soft arg-max.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section "inference"; positions are (x, y) in cells, cell centres
are integers. Similarities are cosines of unit-norm features; the temperature of all published results is 0.02.
"""

from dataclasses import dataclass

import torch

from semalign3d_core.geometry.image_grid import CANVAS_CELLS, CANVAS_SIDE, patch_index
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.transfer.matches import Matches

TEMPERATURE = 0.02


def arg_max(similarity):
    """Positions (Q, 2) float of the largest value of each map of ``similarity`` (Q, H, W)."""
    index = similarity.flatten(1).argmax(dim=1)
    columns = similarity.shape[2]
    return torch.stack([index % columns, index // columns], dim=-1).to(similarity.dtype)


def soft_arg_max(similarity, temperature=TEMPERATURE):
    """Expected positions (Q, 2) under ``softmax(similarity / temperature)`` over all cells of ``similarity`` (Q, H, W)."""
    _, rows, columns = similarity.shape
    weight = torch.softmax(similarity.flatten(1) / temperature, dim=1).reshape(similarity.shape)
    x = weight.sum(1) @ torch.arange(columns, dtype=weight.dtype, device=weight.device)
    y = weight.sum(2) @ torch.arange(rows, dtype=weight.dtype, device=weight.device)
    return torch.stack([x, y], dim=-1)


def window_soft_arg_max(similarity, half_width, temperature=TEMPERATURE, outside=0.0):
    """Soft arg-max (Q, 2) in the window of ``half_width`` cells around the arg-max of ``similarity`` (Q, H, W).

    outside: value of the cells outside the window. Published results set them to 0, so that they keep the weight
    ``exp(0 / temperature)``; ``-inf`` leaves them out.
    """
    dx, dy = _offsets_from_peak(similarity)
    inside = (dx.abs() <= half_width)[:, None, :] & (dy.abs() <= half_width)[:, :, None]
    return soft_arg_max(torch.where(inside, similarity, outside), temperature)


def kernel_soft_arg_max(similarity, sigma, temperature=TEMPERATURE):
    """Soft arg-max (Q, 2) of ``similarity`` (Q, H, W) times a Gaussian of ``sigma`` cells around its arg-max."""
    dx, dy = _offsets_from_peak(similarity)
    kernel = torch.exp(-(dx.square()[:, None, :] + dy.square()[:, :, None]) / (2 * sigma**2))
    return soft_arg_max(similarity * kernel, temperature)


def _offsets_from_peak(similarity):
    peak = arg_max(similarity)
    x = torch.arange(similarity.shape[2], dtype=similarity.dtype, device=similarity.device)
    y = torch.arange(similarity.shape[1], dtype=similarity.dtype, device=similarity.device)
    return x - peak[:, :1], y - peak[:, 1:]


# how a position is read off a similarity map: name -> function(similarity (Q, H, W), width in cells) -> (Q, 2)
READOUTS = {
    "nearest_neighbour": lambda similarity, width: arg_max(similarity),
    "soft_argmax": lambda similarity, width: soft_arg_max(similarity),
    "window_soft_argmax": window_soft_arg_max,
    "kernel_soft_argmax": kernel_soft_arg_max,
}


def transfer_on_canvas(source, target, keypoints, readout="window_soft_argmax", width=7):
    """Published keypoint transfer on the square canvas: (K, 2) predicted canvas pixels.

    source, target: (3600, C) unit-norm tokens, row-major; keypoints: (K, 2 or more) canvas pixels of the source;
    readout, width: see ``READOUTS``. The prediction of cell ``p`` is its centre ``14 p + 7``.
    """
    similarity = source[patch_index(keypoints)] @ target.T
    position = READOUTS[readout](similarity.reshape(-1, CANVAS_CELLS, CANVAS_CELLS), width)
    cell = CANVAS_SIDE / CANVAS_CELLS
    return position.clamp(0, CANVAS_CELLS - 1) * cell + cell / 2


@dataclass(frozen=True)
class SimilarityMatcher(Matcher):
    """Matches single points by their features alone; the baselines of the seed papers.

    readout: one of ``READOUTS``;  width: half width of the window, or sigma of the kernel, in cells
    (7 in the supervised, 5 in the zero-shot results of the paper);  chunk: queries per similarity product (memory)
    """

    readout: str = "window_soft_argmax"
    width: float = 7
    chunk: int = 1024

    def __post_init__(self):
        choice("readout", self.readout, READOUTS)
        if self.width <= 0 or self.chunk < 1:
            raise InputError(f"width {self.width} and chunk {self.chunk} must be positive")

    @property
    def name(self):  # type: ignore[override]
        """The method's name is that of its readout."""
        return self.readout

    def match(self, source, target, points):
        """Carries ``points`` (Q, 2), pixels of ``source``, to ``target`` (two :class:`ImageEvidence`): :class:`Matches`.

        The query feature is that of the cell the point lies in, without interpolation, as published. Confidence is the
        largest cosine, clamped to [0, 1].
        """
        grid, query = target.features.grid, cell_features(source.features, points)
        found, confidence = [query.new_zeros(0, 2)], [query.new_zeros(0)]
        for part in query.split(self.chunk):
            similarity = target.features.similarity(part).unflatten(1, (grid.cells, grid.cells))
            found.append(READOUTS[self.readout](similarity, self.width))
            confidence.append(similarity.flatten(1).amax(1).clamp(0, 1))
        return Matches(grid.cell_to_pixel(torch.cat(found).clamp(0, grid.cells - 1)), torch.cat(confidence))


def cell_features(features, points):
    """Features (Q, C) of the cells in which ``points`` (Q, 2) lie (:class:`FeatureMap`, pixels of its image)."""
    cells = features.grid.cells
    column, row = features.grid.pixel_to_cell(points.float()).round().long().clamp(0, cells - 1).unbind(-1)
    return features.of_cells(row, column)
