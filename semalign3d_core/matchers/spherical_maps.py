"""Matches single points by their features and their places on the sphere (SphericalMaps, CVPR 2024, section 3.3)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from semalign3d_core.geometry.image_grid import CANVAS_SIDE
from semalign3d_core.geometry.readouts import READOUTS
from semalign3d_core.learned.spherical_maps.inference import FEATURE_SHARE
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.perception.evidence import ImageEvidence
from semalign3d_core.runtime.errors import InputError, choice
from semalign3d_core.transfer.matches import Matches

ROUNDINGS = {"first": 0.5, "later": 0.0}  # release -> pixels of the canvas before the middle of a cell that stand for it
GAP = 1e-6  # what torch's pairwise distance adds to every coordinate difference


def cosine(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(Q, N) cosines of rows (Q, C) and (N, C)."""
    return normalize(source, dim=1, eps=1e-8) @ normalize(target, dim=1, eps=1e-8).T


def negative_distance(source: torch.Tensor, target: torch.Tensor, order: float = 2.0) -> torch.Tensor:
    """(Q, N) negative distances of rows (Q, C) and (N, C), a hundred rows at a time."""
    parts = [-(part[:, None] - target[None] + GAP).norm(p=order, dim=2) for part in source.split(100)]
    return torch.cat(parts) if parts else source.new_zeros(0, len(target))


# measure -> function(rows (Q, C), rows (N, C)) -> (Q, N), larger is more alike
MEASURES = {
    "cosine": cosine,
    "l2": negative_distance,
    "l1": lambda source, target: negative_distance(source, target, 1.0),
    "l2norm": lambda source, target: negative_distance(normalize(source, dim=1), normalize(target, dim=1)),
}


def fused_similarity(
    features: tuple[torch.Tensor, torch.Tensor],
    sphere: tuple[torch.Tensor, torch.Tensor],
    measure: str = "cosine",
    share: float = FEATURE_SHARE,
) -> torch.Tensor:
    """(Q, N) similarity: ``share`` of the features' and the rest of the sphere's, by one measure.

    features, sphere: (source (Q, C), target (N, C)) each
    """
    compare = choice("measure", measure, MEASURES)
    return share * compare(*features) + (1 - share) * compare(*sphere)


@dataclass(frozen=True)
class SphericalMapsMatcher(Matcher):
    """The published matcher, on features of the backbone ``spherical_maps``, whose last three channels are the sphere.

    measure:  ``cosine``, or a negative distance: ``l2`` (published for fused features), ``l1``, ``l2norm``
    share:    of the features' similarity; the sphere has the rest
    rounding: where cell ``c`` of 60 is on the canvas of 840 pixels: ``first`` release 14 c + 6.5, ``later`` 14 c + 7
    inside:   look for matches only where the target's mask is, if there is one (an option of the first release)
    readout, width: how a position is read off the similarities, see :data:`~semalign3d_core.geometry.readouts.READOUTS`
    """

    measure: str = "cosine"
    share: float = FEATURE_SHARE
    rounding: str = "first"
    inside: bool = False
    readout: str = "nearest_neighbour"
    width: float = 7

    name = "spherical_maps"
    rates_cells = True

    def __post_init__(self) -> None:
        choice("measure", self.measure, MEASURES)
        choice("readout", self.readout, READOUTS)
        choice("rounding", self.rounding, ROUNDINGS)
        if not 0 <= self.share <= 1 or self.width <= 0:
            raise InputError(f"share {self.share} must lie in 0..1 and width {self.width} above 0")

    def match(self, source: ImageEvidence, target: ImageEvidence, points: torch.Tensor) -> Matches:
        """Carries ``points`` (Q, 2), pixels of ``source``, to ``target`` (two :class:`ImageEvidence`): :class:`Matches`."""
        return self.place(self.lift(source, points), slice(None), target)

    def lift(self, source: ImageEvidence, points: torch.Tensor) -> list[torch.Tensor]:
        """(features (Q, C), sphere (Q, 3)) of the cells in which ``points`` lie."""
        grid = source.features.grid
        scale, offset = CANVAS_SIDE / grid.side, torch.tensor(grid.offset, device=points.device)
        cell = ((points + offset) * scale * (grid.cells / CANVAS_SIDE)).long().clamp(0, grid.cells - 1)
        return self._parts(source.features.of_cells(cell[:, 1], cell[:, 0]))

    def place(self, lifted: list[torch.Tensor], rows: Any, target: ImageEvidence) -> Matches:
        """Where the points ``rows`` of what :meth:`lift` gave are in ``target``: :class:`Matches`, without a confidence."""
        grid = target.features.grid
        similarity = self.score_maps([part[rows] for part in lifted], target).unflatten(1, (grid.cells, grid.cells))
        cell, stride = READOUTS[self.readout](similarity, self.width).clamp(0, grid.cells - 1), CANVAS_SIDE / grid.cells
        canvas = cell * stride + stride / 2 - ROUNDINGS[self.rounding]
        pixels = canvas * (grid.side / CANVAS_SIDE) - torch.tensor(grid.offset, device=cell.device)
        return Matches(pixels, torch.full((len(pixels),), torch.nan, device=cell.device))

    def score_maps(self, lifted: list[torch.Tensor], target: ImageEvidence) -> torch.Tensor:
        """(Q, cells * cells) fused similarity of lifted points to all cells of ``target``; KAP judges it."""
        features, sphere = self._parts(target.features.values.flatten(1).T)
        similarity = fused_similarity((lifted[0], features), (lifted[1], sphere), self.measure, self.share)
        if not self.inside or target.mask is None or not similarity.numel():
            return similarity
        seen = target.features.grid.cells_inside(target.mask).flatten() >= 0.5
        return torch.where(seen, similarity, similarity.min())  # finite, for KAP

    @staticmethod
    def _parts(values):
        """Unit features and unit sphere vectors of fused rows (Q, C + 3)."""
        return [normalize(part, dim=1) for part in (values[:, :-3], values[:, -3:])]
