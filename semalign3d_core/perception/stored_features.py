"""Feature maps as files hold them, in half precision: for whoever keeps many images at once."""

import torch

from semalign3d_core.geometry.image_grid import SquareGrid, interpolated
from semalign3d_core.perception.evidence import FeatureMap

PIECE = 64  # channels widened at a time: those of 60 x 60 cells stay in the processor's cache


class StoredFeatureMap:
    """A :class:`~semalign3d_core.perception.evidence.FeatureMap` that keeps what the file holds, mostly half precision of any norm.

    stored: (C, cells, cells) of any floating type;  grid: the :class:`SquareGrid` of the image it belongs to
    finite: False if any value is NaN or infinite

    All methods give unit-norm float32, without a loss against widening first. ``values`` is widened anew each time.
    """

    quick = False  # see FeatureMap

    def __init__(self, stored: torch.Tensor, grid: SquareGrid) -> None:
        self.stored, self.grid = stored, grid
        squares = stored.new_zeros(stored.shape[1:], dtype=torch.float32)
        for piece in stored.split(PIECE):
            squares += piece.float().square().sum(0)
        self._factor = squares.sqrt().clamp(min=1e-12).reciprocal()  # (cells, cells), to unit norm
        self.finite = bool(torch.isfinite(squares).all())

    @property
    def values(self) -> torch.Tensor:
        """(C, cells, cells) float32, unit norm along C."""
        return self.stored.float() * self._factor

    def to(self, device: str) -> "StoredFeatureMap":
        """The same on a device."""
        return self if self.stored.device == torch.device(device) else StoredFeatureMap(self.stored.to(device), self.grid)

    def widened(self) -> FeatureMap:
        """The same as a :class:`FeatureMap`."""
        return FeatureMap(self.values, self.grid)

    def sample(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features (..., C) at pixels (..., 2), bilinear, renormalised."""
        found = interpolated(self._at, self.stored.shape[1:], self.grid.pixel_to_cell(pixels))
        return torch.nn.functional.normalize(found, dim=-1)

    def of_cells(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Features (Q, C) of the cells in ``rows`` and ``columns`` (Q,) int64."""
        return self._at(rows, columns).T

    def similarity(self, features: torch.Tensor) -> torch.Tensor:
        """Inner products (Q, cells * cells), row-major, of ``features`` (Q, C) with all cells.

        Half precision brings half the bytes from memory, which makes this faster than a product with ``values``.
        """
        cells = self.stored.flatten(1)
        result = features.new_zeros(len(features), cells.shape[1])
        for part, piece in zip(features.split(PIECE, dim=1), cells.split(PIECE), strict=True):
            result.addmm_(part, piece.to(features.dtype))
        return result * self._factor.flatten()

    def _at(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return self.stored[:, rows, columns].float() * self._factor[rows, columns]
