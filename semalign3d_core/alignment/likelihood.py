"""Semantic and spatial likelihoods (Eq. 4-6), in logs. N cells or pixels, J points, C channels."""

import math

import torch

LEAST_SD = 1e-9
REPAIRED_SD = 1e-13


def similarity_map(features, values):
    """``S_j(p) = <f_j, F(p)>`` of all points and cells as one matrix product: (J, C), (C, N) -> (J, N)."""
    return features @ values


def presence_p_value(similarity, mean, sd):
    """Two-sided p-value ``2 (1 - Phi(|S - mu| / s))`` of the presence certainty; 1 at the mean, NaN stays NaN.

    A standard deviation that is NaN or below 1e-9 is taken as 1e-13 (a point seen once).
    """
    sd = torch.where(sd >= LEAST_SD, sd, torch.full_like(sd, REPAIRED_SD))
    return torch.special.erfc((similarity - mean).abs() / sd / math.sqrt(2))


def log_normal_density(distance, sigma):
    """Log-density of a normal distribution at ``distance`` from its mean."""
    return log_spatial(distance, sigma) - 0.5 * torch.log(2 * math.pi * sigma * sigma)


def log_spatial(distance, sigma):
    """Log of the normal density divided by its own maximum: ``-(d / sigma)^2 / 2``."""
    return -0.5 * (distance / sigma) ** 2


def semantic_log_likelihood(similarity, mean, sd, floor):
    """``log p_sem`` (Eq. 4), one-sided: 0 where ``S_j >= mu_j``.

    similarity: (J, N); mean, sd: (J,); floor: least s_j. A two-sided likelihood would punish the best match.
    """
    sd = sd.nan_to_num(nan=0.0).clamp(min=floor)[:, None]
    below = ((similarity - mean[:, None]) / sd).clamp(max=0)
    return -0.5 * below * below


def spatial_log_likelihood(pixels, projections, sigma):
    """``log p_spat`` (Eq. 5): pixels (N, 2), projections (..., J, 2), sigma (...) -> (..., N, J)."""
    distance2 = ((pixels[:, None] - projections[..., None, :, :]) ** 2).sum(-1)
    return -0.5 * distance2 / sigma[..., None, None] ** 2


def combined_log_likelihood(log_semantic, pixels, projections, sigma):
    """Log of Eq. 6, the product of Eq. 4 and 5: log_semantic (N, J) -> (..., N, J)."""
    return log_semantic + spatial_log_likelihood(pixels, projections, sigma)
