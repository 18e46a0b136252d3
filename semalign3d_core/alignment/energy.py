"""The energy of an alignment (method, section 3.2, Eq. 4-13): every term a function, batched over B solutions.

U pixels, N cells, K keypoints, P dense points, J points. Image positions are normalised by L. Every term is a mean, so weights do not
depend on counts; all work in float32 and float64 on any device and are differentiable in the positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from semalign3d_core.category.model import BetaTable
from semalign3d_core.category.statistics.geometric_features import geometric_loss

SIGMA = 0.05  # of p_spat in the reported energy, object scales
BACKGROUND_CAP = 0.3  # largest distance that the background term charges, object scales


def log_semantic(similarity: Tensor, mu: Tensor, sd: Tensor) -> Tensor:
    """``log p_sem`` (Eq. 4), one-sided: 0 where the similarity is at least ``mu``. All (...), broadcast.

    A two-sided likelihood would punish the best match.
    """
    return (mu - similarity).clamp_(min=0).div_(sd).square().mul_(-0.5)


def best_points(log_semantic: Tensor, pixels: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """The exact argmax of Eq. 6 over points, without an exponential and without gradient.

    ``argmax_j log p_sem + log p_spat = argmax_j log p_sem + (u . y_j - |y_j|^2 / 2) / sigma^2``: one small matrix product.
    log_semantic: (U, J); pixels: (U, 2); projections: (B, J, 2); sigma: (B,). Returns indices (B, U).
    """
    with torch.no_grad():
        return _scores(log_semantic, pixels - pixels.mean(0), projections - pixels.mean(0), sigma).argmax(-1)


def best_log_likelihood(log_semantic: Tensor, pixels: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """Log of the largest value of Eq. 6 over points, (B, U), for arguments as of :func:`best_points`."""
    centre = pixels.mean(0)
    best = _scores(log_semantic, pixels - centre, projections - centre, sigma).amax(-1)
    return best - 0.5 * ((pixels - centre) ** 2).sum(-1) / (sigma**2)[:, None]


def _scores(log_semantic: Tensor, pixels: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """(B, U, J) log of Eq. 6 but for the part ``-|u|^2 / 2 sigma^2`` that all points share."""
    batch = len(projections)
    left = torch.cat([pixels, torch.ones_like(pixels[:, :1])], -1).expand(batch, -1, -1)
    right = torch.cat([projections, -0.5 * (projections * projections).sum(-1, keepdim=True)], -1) / (sigma**2)[:, None, None]
    return torch.baddbmm(log_semantic.expand(batch, -1, -1), left, right.transpose(1, 2))


def selected_likelihood(log_semantic: Tensor, squared_distance: Tensor, sigma: Tensor) -> Tensor:
    """Eq. 6, the product of Eq. 4 and 5, of chosen pairs: ``exp(log p_sem - d^2 / 2 sigma^2)``; (B, U), (B, U), (B,) -> (B, U)."""
    return (log_semantic - 0.5 * squared_distance / (sigma**2)[:, None]).exp()


def dense_reconstruction(log_semantic: Tensor, pixels: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """Eq. 7, 8: minus the mean over pixels of the best likelihood over points, (B,).

    The gradient flows through the selected pair only, as that of a maximum does.
    """
    if not projections.requires_grad:  # the value alone needs no index
        return -best_log_likelihood(log_semantic, pixels, projections, sigma).exp().mean(-1)
    index = best_points(log_semantic, pixels, projections, sigma)
    chosen = projections.gather(1, index[..., None].expand(-1, -1, 2))
    log_chosen = log_semantic.expand(len(index), -1, -1).gather(2, index[..., None])[..., 0]
    return -selected_likelihood(log_chosen, ((pixels - chosen) ** 2).sum(-1), sigma).mean(-1)


def best_cells(log_semantic: Tensor, cells: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """The best cell of every keypoint (Eq. 9).

    log_semantic: (K, N);  cells: (K, N, 2) candidates of each keypoint;  projections: (B, K, 2);  sigma: (B,). Returns indices (B, K).
    """
    with torch.no_grad():
        distance2 = ((cells - projections[:, :, None]) ** 2).sum(-1)
        return (log_semantic - 0.5 * distance2 / (sigma**2)[:, None, None]).argmax(-1)


def sparse_reconstruction(log_semantic: Tensor, cells: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """Eq. 9: minus the mean over keypoints of the best likelihood over cells, (B,); arguments as of :func:`best_cells`."""
    index = best_cells(log_semantic, cells, projections, sigma)[..., None]
    batch = len(projections)
    log_chosen = log_semantic.expand(batch, -1, -1).gather(2, index)[..., 0]
    chosen = cells.expand(batch, -1, -1, -1).gather(2, index[..., None].expand(-1, -1, -1, 2))[:, :, 0]
    return -selected_likelihood(log_chosen, ((chosen - projections) ** 2).sum(-1), sigma).mean(-1)


def geometric_consistency(keypoints: Tensor, betas: BetaTable) -> Tensor:
    """Eq. 10: minus the mean log-likelihood of edge ratios, angles and tetrahedra, (B,); keypoints (B, K, 3)."""
    return geometric_loss(keypoints, betas)


def background(distance: Tensor, cap: Tensor) -> Tensor:
    """Eq. 11: mean over dense points of the distance outside the mask (B, P), capped at ``cap`` () against cut masks, (B,); in L."""
    return torch.minimum(distance, cap).mean(-1)


def depth_regularisation(keypoints: Tensor) -> Tensor:
    """Eq. 12: ``(mean_k z_k - c)^2`` with c = 1, which fixes the free scale, (B,)."""
    return (keypoints[..., 2].mean(-1) - 1) ** 2


@dataclass(frozen=True)
class DistanceField:
    """Distance to the mask, exactly 0 inside it.

    distance: (H, H) in L; offset: (H, H, 2) from each node to the nearest mask point, in L (zero inside);
    origin: (2,) normalised position of node (0, 0); spacing: float, between nodes, in L.
    """

    distance: Tensor
    offset: Tensor
    origin: Tensor
    spacing: float

    def sample(self, points: Tensor) -> Tensor:
        """Distance at points (..., 2), bilinear; beyond the field the distance to its edge is added."""
        reach = 0.5 * (len(self.distance) - 1) * self.spacing  # from the middle of the field to its edge
        place = (points - self.origin) / reach - 1
        inside = place.clamp(-1, 1)
        grid = inside.view(1, -1, 1, 2)
        value = torch.nn.functional.grid_sample(self.distance[None, None], grid, padding_mode="border", align_corners=True)
        return torch.add(value.view(points.shape[:-1]), (place - inside).abs().sum(-1), alpha=reach)


def terms(
    dense: tuple[Tensor, Tensor, Tensor],
    sparse: tuple[Tensor, Tensor, Tensor],
    keypoints: Tensor,
    betas: BetaTable,
    distance: Tensor | None,
    scale: Tensor,
) -> dict[str, Tensor]:
    """The terms {name: (B,)} of Eq. 13 by which solutions of every solver are compared, and which are reported.

    dense, sparse: arguments of Eq. 7, 8 and of Eq. 9 but for sigma;  keypoints (B, K, 3), betas: of Eq. 10;
    distance: (B, P) of the cloud to the mask, None without one;  scale: () object scale in L.
    Image lengths are in object scales, so that energies of large and small objects compare.
    """
    sigma = (SIGMA * scale).expand(len(keypoints))
    outside = torch.zeros_like(dense[2][..., 0]) if distance is None else distance
    return {
        "dense": dense_reconstruction(*dense, sigma),
        "sparse": sparse_reconstruction(*sparse, sigma),
        "geometry": geometric_consistency(keypoints, betas),
        "background": background(outside, BACKGROUND_CAP * scale) / scale,
        "depth": depth_regularisation(keypoints),
    }


def total(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Eq. 13: the weighted sum of the terms; both dictionaries by name."""
    first, *others = (weights[name] * value for name, value in terms.items())
    return sum(others, first)
