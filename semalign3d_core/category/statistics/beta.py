"""The Beta distribution: mode, variance, and maximum-likelihood fits of many at once."""

import torch
from torch import Tensor

LARGEST = 1e6  # alpha + beta of the narrowest distribution
ITERATIONS = 60  # of Newton's method; most fits need ten


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
