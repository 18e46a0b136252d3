"""SFNet as a matcher: a dense sampling grid between two images, read at the points.

Source: SFNet (CVPR 2019), section 4 and its code: the image of the points is resized without its aspect and framed by a ring of cells,
the grid from there to the other image loses that ring and is stretched by 10/9 (:mod:`semalign3d_core.metrics.grid_transfer`).
"""

from dataclasses import dataclass
from typing import Any

import torch

from semalign3d_core.geometry.image_grid import SquareGrid, bilinear
from semalign3d_core.learned.sfnet.benchmark import adapted_levels, pixel_grid
from semalign3d_core.learned.sfnet.network import SFNet
from semalign3d_core.learned.sfnet.storage import load_network
from semalign3d_core.matchers.matcher import Matcher
from semalign3d_core.metrics.grid_transfer import inner_grid
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import sha256_of_arrays
from semalign3d_core.transfer.matches import Matches


@dataclass(frozen=True)
class SFNetImage:
    """What the network knows of an image: its size in pixels, its adapted levels (1, C, cells, cells), its feature grid or None."""

    height: int
    width: int
    levels: tuple
    grid: SquareGrid | None


@dataclass(frozen=True)
class LiftedPoints:
    """Points (Q, 2) in pixels of an :class:`SFNetImage`."""

    image: SFNetImage
    points: torch.Tensor


class SFNetMatcher(Matcher):
    """Matches points by the dense flow of a trained SFNet; it reads the pictures, and of an evaluation's features nothing.

    network: a file for :func:`load_network`, or a :class:`SFNet`
    """

    name = "sfnet"
    prepares = uses_picture = rates_cells = True

    def __init__(self, network: SFNet | str, device: str | torch.device = "cpu") -> None:
        self.network: SFNet = (network if isinstance(network, SFNet) else load_network(network)).to(device)
        self.network.pyramid.to(device)

    @property
    def settings(self) -> dict[str, Any]:
        """The network's settings and the hash of its weights."""
        state = {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}
        return {"network": to_dict(self.network.config), "weights": sha256_of_arrays(state)}

    def prepare(self, evidence: Any) -> SFNetImage:
        """The :class:`SFNetImage` of an image (:class:`ImageEvidence` with its picture)."""
        if evidence.image is None:
            raise InputError(f"{evidence.name}: SFNet needs the image itself, and the evidence does not hold it")
        height, width = evidence.image.shape[:2]
        return SFNetImage(height, width, tuple(adapted_levels(self.network, evidence.image)), evidence.features.grid)

    def look(self, image: ImageInput) -> SFNetImage:
        """The :class:`SFNetImage` of an :class:`ImageInput`, for who has no evidence."""
        return SFNetImage(image.height, image.width, tuple(adapted_levels(self.network, image.rgb)), None)

    def match(self, source: SFNetImage, target: SFNetImage, points: torch.Tensor) -> Matches:
        """Carries ``points`` (Q, 2), pixels of ``source``, to ``target``: :class:`~semalign3d_core.matchers.Matches`.

        Confidence is the largest score of the cell the point lies in, a share of all its scores' length.
        """
        lifted = self.lift(source, points)
        return self.place(lifted, torch.arange(len(lifted.points)), target)

    def lift(self, source: SFNetImage, points: torch.Tensor) -> LiftedPoints:
        """The points on their image, once for all targets."""
        image = self._prepared(source)
        return LiftedPoints(image, points.float().to(image.levels[0].device))

    def place(self, lifted: LiftedPoints, rows: torch.Tensor, target: SFNetImage) -> Matches:
        """Where the points ``rows`` (N,) of ``lifted`` are in ``target``: :class:`Matches`."""
        start, end = lifted.image, self._prepared(target)
        scores, grid = self.network.carry(start.levels, end.levels)
        places = _inner_cells(lifted.points[rows], start, grid.shape[1])
        stretched = inner_grid(grid[0], grid.shape[1] - 2, grid.shape[2] - 2)  # the 10/9 rule, at the cells' own size
        normalised = bilinear(stretched.movedim(2, 0), places)
        extent = torch.tensor([end.width - 1, end.height - 1], dtype=torch.float32, device=normalised.device)
        confidence = bilinear(scores.amax(1), places + 1)[:, 0].clamp(0, 1)
        return Matches((normalised + 1) * extent / 2, confidence)

    def flow(self, source: SFNetImage, target: SFNetImage) -> torch.Tensor:
        """Sampling grid (h, w, 2) of the source: where each of its pixels is in the target, x and y from -1 to 1."""
        start, end = self._prepared(source), self._prepared(target)
        return pixel_grid(self.network, start.levels, end.levels, (start.height, start.width))

    def score_maps(self, lifted: LiftedPoints, target: SFNetImage) -> torch.Tensor:
        """How likely each lifted point is at each cell of the target's feature grid, (Q, cells * cells) in [0, 1]: for KAP."""
        start, end = lifted.image, self._prepared(target)
        scores, _ = self.network.carry(start.levels, end.levels)
        side = scores.shape[-1]
        maps = bilinear(scores[0], _inner_cells(lifted.points, start, side) + 1).unflatten(1, end.levels[0].shape[-2:])
        return bilinear(maps, _inner_cells(end.grid.cell_centres(maps.device), end, side) + 1).T.clamp(0, 1)

    def _prepared(self, image):
        return image if isinstance(image, SFNetImage) else self.prepare(image)


def _inner_cells(points, image, side):
    """Continuous cells (..., 2) of pixels (..., 2) within the ring: the corner pixels are at the corner cells, as published."""
    extent = torch.tensor([max(image.width - 1, 1), max(image.height - 1, 1)], dtype=torch.float32, device=points.device)
    return points / extent * (side - 3)
