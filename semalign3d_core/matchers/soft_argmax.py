"""Matching by the similarity of single features: the query of a point against all cells of the target.

Source: GeoAware-SC (Telling Left from Right, CVPR 2024), section "inference".
"""

from dataclasses import dataclass
from typing import Any

import torch

from semalign3d_core.geometry.readouts import READOUTS
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.perception.evidence import FeatureMap
from semalign3d_core.perception.stored_features import StoredFeatureMap
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.transfer.matches import Matches


@dataclass(frozen=True)
class SimilarityMatcher(Matcher):
    """Matches single points by their features alone; the baselines of the seed papers.

    readout: one of ``READOUTS``;  width: half width of the window, or sigma of the kernel, in cells
    (7 in the supervised, 5 in the zero-shot results of the paper);  chunk: queries per similarity product (memory)
    """

    readout: str = "window_soft_argmax"
    width: float = 7
    chunk: int = 1024

    def __post_init__(self) -> None:
        choice("readout", self.readout, READOUTS)
        if self.width <= 0 or self.chunk < 1:
            raise InputError(f"width {self.width} and chunk {self.chunk} must be positive")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The method's name is that of its readout."""
        return self.readout

    def match(self, source: Any, target: Any, points: torch.Tensor) -> Matches:
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


def cell_features(features: FeatureMap | StoredFeatureMap, points: torch.Tensor) -> torch.Tensor:
    """Features (Q, C) of the cells in which ``points`` (Q, 2) lie (:class:`FeatureMap`, pixels of its image)."""
    cells = features.grid.cells
    column, row = features.grid.pixel_to_cell(points.float()).round().long().clamp(0, cells - 1).unbind(-1)
    return features.of_cells(row, column)
