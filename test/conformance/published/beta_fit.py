"""Beta fits of samples at hand; the product fits from sums of logarithms alone."""

import torch

from semalign3d_core.category.statistics.beta import fit_from_logs

CLAMP = 1e-8


def fit(samples, low=0.0):
    """Maximum-likelihood alpha and beta (...) of samples (..., S) in [low, 1], clamped a little inside; a row with a NaN gets (1, 1)."""
    u = (samples.double().clamp(low + CLAMP, 1 - CLAMP) - low) / (1 - low)
    return fit_from_logs(u.log().mean(-1), torch.log1p(-u).mean(-1))
