"""The sparse canonical cloud: the likeliest constellation under the category's Betas (method, section 1.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.category.statistics.geometric_features import BetaTable, geometric_loss
from semalign3d_core.geometry.rotations import shape_diameter
from semalign3d_core.runtime.errors import InputError

RATE = 0.03  # first learning rate of Adam, in diameters; falls to a hundredth


@dataclass(frozen=True)
class Descent:
    """How long the geometric loss is minimised.

    starts: random constellations that start together; coarse_steps: Adam steps of all of them; steps: Adam steps of the best two;
    features: random edge pairs and triangle rows per step
    """

    starts: int
    coarse_steps: int
    steps: int
    features: int


def placeable(table: BetaTable, count: int) -> Tensor:
    """(count,) bool: keypoints that some edge pair of the table mentions; the others cannot be placed."""
    touched = torch.zeros(count, dtype=torch.bool)
    touched[table.edge1.flatten()] = True
    touched[table.edge2.flatten()] = True
    touched[table.triangle.flatten()] = True
    touched[table.vertex] = True
    return touched


def reconstruct(table: BetaTable, count: int, descent: Descent, generator: torch.Generator) -> tuple[Tensor, float]:
    """The constellation (count, 3) of least geometric loss (Eq. 10), diameter 1, centred, and its loss.

    Rows of keypoints that no feature mentions are NaN. Random starts are refined together; mirror images of all of them compete,
    because the signed tetrahedron cosines decide chirality and a gradient cannot turn a shape inside out.
    Raises :class:`InputError` where fewer than four keypoints, or no triangle, have valid statistics.
    """
    placed = placeable(table, count)
    if int(placed.sum()) < 4 or len(table.triangle) == 0:
        raise InputError(
            f"only {int(placed.sum())} of {count} keypoints have valid statistics and {len(table.triangle)} triangle rows are valid; "
            "a shape needs four keypoints that are often seen together: annotate more images"
        )
    starts = 0.3 * torch.randn(descent.starts, count, 3, generator=generator)
    coarse = _descend(starts, table, placed, descent.coarse_steps, descent.features, generator)
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    candidates = torch.cat([coarse, coarse * mirror])
    best = _losses(candidates, table).argsort()[:2]
    refined = _descend(candidates[best], table, placed, descent.steps, descent.features, generator)
    loss = _losses(refined, table)
    points = refined[loss.argmin()]
    points = points - points[placed].mean(0)
    points = points / shape_diameter(points[placed])
    return torch.where(placed[:, None], points, torch.nan), float(loss.min())


def _losses(points: Tensor, table: BetaTable) -> Tensor:
    with torch.no_grad():
        return torch.stack([geometric_loss(p, table) for p in points])


def _descend(points: Tensor, table: BetaTable, placed: Tensor, steps: int, features: int, generator: torch.Generator) -> Tensor:
    points = points.clone().requires_grad_()
    optimiser = torch.optim.Adam([points], lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * 0.01 ** (step / max(steps - 1, 1))
        part = _subset(table, features, generator)
        loss = geometric_loss(points, part).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():  # the loss does not fix position and scale; the learning rate means something only at scale 1
            centred = points - points[:, placed].mean(1, keepdim=True)
            points.copy_(centred / shape_diameter(centred[:, placed])[:, None, None])
    return points.detach()


def _subset(table: BetaTable, limit: int, generator: torch.Generator) -> BetaTable:
    """Random rows of a table, at most ``limit`` of each kind."""
    if len(table.edge1) <= limit and len(table.triangle) <= limit:
        return table
    e = torch.randint(len(table.edge1), (limit,), generator=generator)
    t = torch.randint(len(table.triangle), (limit,), generator=generator)
    return BetaTable(table.edge1[e], table.edge2[e], table.edge_beta[e], table.triangle[t], table.vertex[t], table.tet_beta[t])
