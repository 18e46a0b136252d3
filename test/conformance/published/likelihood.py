"""Semantic and spatial likelihoods (Eq. 4-6) as published, in logs: what the product computes in other forms is compared with them."""

import math

import torch
from torch import Tensor

LEAST_SD = 1e-9
REPAIRED_SD = 1e-13


def presence_p_value(similarity: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Two-sided p-value ``2 (1 - Phi(|S - mu| / s))`` of the presence certainty; 1 at the mean, NaN stays NaN.

    A standard deviation that is NaN or below 1e-9 is taken as 1e-13 (a point seen once).
    """
    sd = torch.where(sd >= LEAST_SD, sd, torch.full_like(sd, REPAIRED_SD))
    return torch.special.erfc((similarity - mean).abs() / sd / math.sqrt(2))


def log_normal_density(distance: Tensor, sigma: Tensor) -> Tensor:
    """Log-density of a normal distribution at ``distance`` from its mean."""
    return log_spatial(distance, sigma) - 0.5 * torch.log(2 * math.pi * sigma * sigma)


def log_spatial(distance: Tensor, sigma: Tensor) -> Tensor:
    """Log of the normal density divided by its own maximum: ``-(d / sigma)^2 / 2``."""
    return -0.5 * (distance / sigma) ** 2


def combined_log_likelihood(log_semantic: Tensor, pixels: Tensor, projections: Tensor, sigma: Tensor) -> Tensor:
    """Log of Eq. 6, the product of Eq. 4 and 5: log_semantic (N, J), pixels (N, 2), projections (..., J, 2), sigma (...) -> (..., N, J)."""
    distance = (pixels[:, None] - projections[..., None, :, :]).norm(dim=-1)
    return log_semantic + log_spatial(distance, sigma[..., None, None])
