"""The four losses of SphericalMaps (CVPR 2024, section 3.2). B images of N cells; a point is 0 where its cell shows no object.

Sphere points (B, N, 3) are unit vectors times the share of the object in their cell. Positions are (row, column) in the image, from 0
to 1 each. Triplets are indices of cells (V, 3, n), anchor, b and c, of the images ``rows`` (V,).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize

from semalign3d_core.learned.spherical_maps.viewpoint import mean_directions

INSIDE = 0.99  # length from which on a point belongs to the object for certain
SHORT = 0.999  # keeps the arcs' derivatives finite
STEEP = 0.7  # triplets nearer to a straight line say nothing about orientation


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; 0 leaves one out. The published ones."""

    reconstruction: float = 1.0
    distance: float = 0.3
    orientation: float = 0.3
    viewpoint: float = 0.1


def grid_positions(rows: int, columns: int) -> torch.Tensor:
    """Positions (rows * columns, 2) of the cells of a grid, row-major: both axes reach from 0 to 1 whatever the image's shape."""
    axes = torch.linspace(0, 1, rows), torch.linspace(0, 1, columns)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)


def draw_triplets(points: torch.Tensor, count: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, triplets) of ``count`` random triplets, with replacement, among the cells that lie inside the object of each image.

    They are drawn on the CPU, so that a seed means the same on every device.
    """
    inside = (points.detach().norm(dim=-1) > INSIDE).float().cpu()
    rows = inside.any(1).nonzero()[:, 0]
    triplets = rows.new_zeros(0, 3 * count)
    if len(rows):
        triplets = torch.multinomial(inside[rows], 3 * count, replacement=True, generator=generator)
    return rows.to(points.device), triplets.unflatten(1, (3, count)).to(points.device)


def reconstruction_loss(features: torch.Tensor, points: torch.Tensor, condition: torch.Tensor, decoder: nn.Module) -> torch.Tensor:
    """Mean of 1 - cosine of the features (B, N, C) and what the decoder makes of their points; all cells whose point is not 0 count.

    condition: (B, categories) one-hot.
    """
    seen = (points != 0).any(-1)
    if not seen.any():
        return points.sum() * 0
    category = condition[:, None].expand(-1, points.shape[1], -1)
    return 1 - cosine_similarity(features[seen], decoder(points[seen], category[seen]), dim=-1).mean()


def distance_loss(
    points: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, triplets: torch.Tensor, margin: float = 0.5, arcs: bool = False
) -> torch.Tensor:
    """What is nearer in the image shall be nearer on the sphere: mean of max(0, margin + d(a, near) - d(a, far)); 0 without triplets.

    positions: (N, 2) or (B, N, 2);  arcs: angles in place of 1 - cosine (not used by the published training)
    """
    if not len(rows):
        return points.sum() * 0
    a, b, c = _take(points, rows, triplets)
    at_a, at_b, at_c = _take(positions.expand(len(points), -1, -1), rows, triplets)
    b_is_near = ((at_b - at_a).square().sum(-1) < (at_c - at_a).square().sum(-1))[..., None]  # on a tie c is the near one
    near, far = torch.where(b_is_near, b, c), torch.where(b_is_near, c, b)
    distance = _arc if arcs else _one_minus_cosine
    return (margin + distance(a, near) - distance(a, far)).clamp(min=0).mean()


def image_turns(positions: torch.Tensor, rows: torch.Tensor, triplets: torch.Tensor) -> torch.Tensor:
    """(V, n) sine of the turn from b to c around the anchor, of positions (B, N, 2): > 0 goes from down towards right."""
    a, b, c = _take(positions, rows, triplets)
    u, v = normalize(b - a, dim=-1), normalize(c - a, dim=-1)
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def orientation_loss(
    points: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, triplets: torch.Tensor, arcs: bool = False
) -> torch.Tensor:
    """What turns left in the image shall turn left on the sphere, seen from outside; 0 where no triplet is far from a straight line.

    Mean of max(0, 1 - s)^2 with s = (t1 x t2) . o, t the tangents at the anchor o towards the two others. It alone tells the sphere
    from its mirror image, so images must not be mirrored in training.
    """
    if not len(rows):
        return points.sum() * 0
    turn = image_turns(positions.expand(len(points), -1, -1), rows, triplets)
    kept = turn.abs() > STEEP
    if not kept.any():
        return points.sum() * 0  # the published code gives NaN
    o, b, c = (part[kept] for part in _take(points, rows, triplets))
    first = (turn[kept] > 0)[..., None]
    t1, t2 = _tangent(o, torch.where(first, b, c)), _tangent(o, torch.where(first, c, b))
    cross = torch.linalg.cross(t1, t2)
    if arcs:
        cross = normalize(cross, dim=-1) * (2 / torch.pi * torch.asin(SHORT * cross.norm(dim=-1, keepdim=True)))
    return (1 - (cross * o).sum(-1)).clamp(min=0).square().mean()


def viewpoint_loss(points: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Mean over all pairs of images, of whatever categories, of (m_i . m_j - cos(angle between their azimuths (B,) in degrees))^2."""
    mean, angle = mean_directions(points), torch.deg2rad(degrees.to(points))
    return (mean @ mean.T - torch.cos(angle[:, None] - angle[None])).square().mean()


def weighted_sum(losses: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """The total of named losses: those of weight 0 need not be there."""
    return sum(getattr(weights, name) * value for name, value in losses.items())


def _take(values: torch.Tensor, rows: torch.Tensor, triplets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values (B, N, D) of anchors, b and c: three of (V, n, D)."""
    chosen = values[rows].gather(1, triplets.flatten(1)[..., None].expand(-1, -1, values.shape[-1]))
    return chosen.unflatten(1, triplets.shape[1:]).unbind(1)


def _tangent(o: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    edge = end - o
    return normalize(edge - o * (o * edge).sum(-1, keepdim=True), dim=-1)


def _one_minus_cosine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 1 - cosine_similarity(x, y, dim=-1)


def _arc(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 2 / torch.pi * torch.acos(SHORT * (x * y).sum(-1))
