"""The Beta distribution: density, mode, variance, maximum-likelihood fits of many at once, and a category's table of them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

DENSITY_CLAMP = 1e-6
LARGEST = 1e6  # alpha + beta of the narrowest distribution
ITERATIONS = 60  # of Newton's method; most fits need ten


@dataclass(frozen=True)
class BetaTable:
    """Beta distributions of the geometric features of a category (paper section 3.1, Eq. 10).

    edge1, edge2:  (E, 2) int64, keypoints (a, b) and (c, d) of every kept edge pair
    edge_beta:     (E, 4) alpha, beta of the length ratio on (0, 1), then alpha, beta of the cosine on (-1, 1)
    triangle:      (T, 3) int64, vertex: (T,) int64, keypoints of every kept triangle + fourth vertex
    tet_beta:      (T, 6) alpha, beta of the three signed cosines in the triangle's frame, on (-1, 1)
    """

    edge1: Tensor
    edge2: Tensor
    edge_beta: Tensor
    triangle: Tensor
    vertex: Tensor
    tet_beta: Tensor

    @classmethod
    def empty(cls) -> "BetaTable":
        """A table without features."""
        pair, number = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        return cls(pair, pair, torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int64), number, torch.zeros(0, 6))

    @cached_property
    def log_normalisers(self) -> tuple[Tensor, Tensor]:
        """(E, 2) and (T, 3): :func:`log_normaliser` of the Betas."""
        edge, tet = (log_normaliser(*table.unflatten(1, (-1, 2)).unbind(-1)) for table in (self.edge_beta, self.tet_beta))
        return edge, tet


def log_density(x: Tensor, alpha: Tensor, beta: Tensor, low: float = 0.0, constant: Tensor | None = None) -> Tensor:
    """Log-density of Beta(alpha, beta) for ``x`` in [low, 1], without the Jacobian of the map to [0, 1].

    Arguments are clamped to [1e-6, 1 - 1e-6] after the map, so nothing is infinite (and clamped values have no gradient).
    constant: :func:`log_normaliser` of the parameters, if it is at hand.
    """
    u = (x if low == 0 else (x - low) / (1 - low)).clamp(DENSITY_CLAMP, 1 - DENSITY_CLAMP)
    constant = log_normaliser(alpha, beta) if constant is None else constant
    return torch.addcmul(torch.addcmul(constant, alpha - 1, u.log()), beta - 1, (1 - u).log())


def log_normaliser(alpha: Tensor, beta: Tensor) -> Tensor:
    """What the log-density of Beta(alpha, beta) has besides the powers: minus the log of the Beta function."""
    return torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)


def mode(alpha: Tensor, beta: Tensor) -> Tensor:
    """Mode on [0, 1]; 0 or 1 where the density is monotone, 0.5 for the uniform, 0 where both ends are infinite."""
    inside = (alpha > 1) & (beta > 1)
    result = torch.where(inside, (alpha - 1) / torch.where(inside, alpha + beta - 2, torch.ones_like(alpha)), torch.zeros_like(alpha))
    result = torch.where((alpha > 1) & (beta <= 1), torch.ones_like(result), result)
    return torch.where((alpha == 1) & (beta == 1), torch.full_like(result, 0.5), result)


def variance(alpha: Tensor, beta: Tensor) -> Tensor:
    """Variance on [0, 1]."""
    total = alpha + beta
    return alpha * beta / (total * total * (total + 1))


def fit_from_logs(mean_log: Tensor, mean_log_complement: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood alpha, beta from the means of log x and log(1 - x): the sufficient statistics of the Beta.

    All fits run together in float64 by Newton's method; the log-likelihood is concave, and a step that would leave the quadrant is
    shortened. Non-finite statistics give (1, 1), the uniform distribution; data without spread give the narrowest distribution of
    ``LARGEST`` pseudo-counts.
    """
    shape = mean_log.shape
    log_x, log_y = mean_log.double().reshape(-1), mean_log_complement.double().reshape(-1)
    valid = torch.isfinite(log_x) & torch.isfinite(log_y)
    parameters = torch.ones(len(log_x), 2, dtype=torch.float64, device=log_x.device)
    active = valid.nonzero()[:, 0]
    target = torch.stack([log_x, log_y], -1)
    parameters[active] = _start(target[active])
    for _ in range(ITERATIONS):
        if not len(active):
            break
        updated = _newton_step(parameters[active], target[active])
        moved = ((updated - parameters[active]).abs() > 1e-11 * parameters[active]).any(-1) & (updated.sum(-1) < LARGEST)
        parameters[active] = updated
        active = active[moved]
    excess = (parameters.sum(-1, keepdim=True) / LARGEST).clamp(min=1)
    parameters = parameters / excess
    return parameters[:, 0].reshape(shape), parameters[:, 1].reshape(shape)


def _start(target: Tensor) -> Tensor:
    # Johnson and Kotz's start from the geometric means; rounding can make the gap vanish for data without spread.
    geometric = target.exp()
    gap = (1 - geometric.sum(-1, keepdim=True)).clamp(min=0.5 / LARGEST)
    return 0.5 + geometric / (2 * gap)


def _newton_step(parameters: Tensor, target: Tensor) -> Tensor:
    total = parameters.sum(-1, keepdim=True)
    gradient = torch.digamma(total) - torch.digamma(parameters) + target
    own, shared = torch.special.polygamma(1, parameters), torch.special.polygamma(1, total)[..., 0]
    # Hessian = shared 1 1^T - diag(own); solved in closed form (Sherman-Morrison).
    scaled = gradient / own
    step = scaled + shared[:, None] * scaled.sum(-1, keepdim=True) / (1 - shared * (1 / own).sum(-1)).clamp(min=1e-300)[:, None] / own
    return torch.maximum(torch.minimum(parameters + step, 4 * parameters), parameters / 4)
