"""The Beta distribution: density, mode, variance, and maximum-likelihood fits of many at once."""

import torch

DENSITY_CLAMP = 1e-6
FIT_CLAMP = 1e-8
LARGEST = 1e6


def log_density(x, alpha, beta, low=0.0, constant=None):
    """Log-density of Beta(alpha, beta) for ``x`` in [low, 1], without the Jacobian of the map to [0, 1].

    Arguments are clamped to [1e-6, 1 - 1e-6] after the map, so nothing is infinite (and clamped values have no gradient).
    constant: :func:`log_normaliser` of the parameters, if it is at hand.
    """
    u = (x if low == 0 else (x - low) / (1 - low)).clamp(DENSITY_CLAMP, 1 - DENSITY_CLAMP)
    constant = log_normaliser(alpha, beta) if constant is None else constant
    return torch.addcmul(torch.addcmul(constant, alpha - 1, u.log()), beta - 1, (1 - u).log())


def log_normaliser(alpha, beta):
    """What the log-density of Beta(alpha, beta) has besides the powers: minus the log of the Beta function."""
    return torch.lgamma(alpha + beta) - torch.lgamma(alpha) - torch.lgamma(beta)


def mode(alpha, beta):
    """Mode on [0, 1]; 0 or 1 where the density is monotone, 0.5 for the uniform, 0 where both ends are infinite."""
    inside = (alpha > 1) & (beta > 1)
    result = torch.where(inside, (alpha - 1) / torch.where(inside, alpha + beta - 2, torch.ones_like(alpha)), torch.zeros_like(alpha))
    result = torch.where((alpha > 1) & (beta <= 1), torch.ones_like(result), result)
    return torch.where((alpha == 1) & (beta == 1), torch.full_like(result, 0.5), result)


def variance(alpha, beta):
    """Variance on [0, 1]."""
    total = alpha + beta
    return alpha * beta / (total * total * (total + 1))


def fit(samples, low=0.0, clamp=FIT_CLAMP):
    """Maximum-likelihood alpha and beta of samples (..., S) in [low, 1] with location and scale fixed.

    Samples are clamped ``clamp`` inside the interval. A row with a NaN gets (1, 1), the uniform distribution; a row
    without spread gets the narrowest distribution of ``LARGEST`` pseudo-counts. Returns float64 (...), (...).
    """
    samples = samples.double().clamp(low + clamp, 1 - clamp)
    u = (samples - low) / (1 - low)
    return fit_from_logs(u.log().mean(-1), torch.log1p(-u).mean(-1))


def fit_from_logs(mean_log, mean_log_complement, iterations=60):
    """Maximum-likelihood alpha, beta from the means of log x and log(1 - x): the sufficient statistics of the Beta.

    Newton's method on all fits together in float64; the log-likelihood is concave, and a step that would leave the
    quadrant is shortened. Non-finite statistics give (1, 1).
    """
    shape = mean_log.shape
    log_x, log_y = mean_log.double().reshape(-1), mean_log_complement.double().reshape(-1)
    valid = torch.isfinite(log_x) & torch.isfinite(log_y)
    parameters = torch.ones(len(log_x), 2, dtype=torch.float64, device=log_x.device)
    active = valid.nonzero()[:, 0]
    target = torch.stack([log_x, log_y], -1)
    parameters[active] = _start(target[active])
    for _ in range(iterations):
        if not len(active):
            break
        updated = _newton_step(parameters[active], target[active])
        moved = ((updated - parameters[active]).abs() > 1e-11 * parameters[active]).any(-1) & (updated.sum(-1) < LARGEST)
        parameters[active] = updated
        active = active[moved]
    excess = (parameters.sum(-1, keepdim=True) / LARGEST).clamp(min=1)
    parameters = parameters / excess
    return parameters[:, 0].reshape(shape), parameters[:, 1].reshape(shape)


def _start(target):
    # Johnson and Kotz's start from the geometric means; rounding can make the gap vanish for data without spread.
    geometric = target.exp()
    gap = (1 - geometric.sum(-1, keepdim=True)).clamp(min=0.5 / LARGEST)
    return 0.5 + geometric / (2 * gap)


def _newton_step(parameters, target):
    total = parameters.sum(-1, keepdim=True)
    gradient = torch.digamma(total) - torch.digamma(parameters) + target
    own, shared = _trigamma(parameters), _trigamma(total)[..., 0]
    # Hessian = shared 1 1^T - diag(own); solved in closed form (Sherman-Morrison).
    scaled = gradient / own
    step = scaled + shared[:, None] * scaled.sum(-1, keepdim=True) / (1 - shared * (1 / own).sum(-1)).clamp(min=1e-300)[:, None] / own
    return torch.maximum(torch.minimum(parameters + step, 4 * parameters), parameters / 4)


def _trigamma(x):
    return torch.special.polygamma(1, x)
