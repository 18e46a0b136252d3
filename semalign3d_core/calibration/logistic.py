"""Logistic regression on a few statistics, and how well it separates right from wrong."""

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

ITERATIONS = 30
RIDGE = 10.0  # pull towards the prior, in (standardised weights)^2; worth a handful of images
BIAS_RIDGE = 3.0  # the same of the bias


def fit_logistic(table: Tensor, labels: Tensor, prior: Tensor, ridge: float = RIDGE, bias_ridge: float = BIAS_RIDGE) -> list[float]:
    """Bias and weights [b, w_1 ... w_S] (floats) of P(label) = sigmoid(b + w x), pulled towards a prior.

    table: (N, S) float64; labels: (N,) bool; prior: (S + 1,). Newton's method on standardised statistics; with no
    sample the prior is returned. ridge, bias_ridge: strength of the pull.
    """
    if not len(table):
        return prior.tolist()
    mean, sd = table.mean(0), table.std(0, unbiased=False).clamp(min=1e-3)
    design = torch.cat([torch.ones_like(table[:, :1]), (table - mean) / sd], 1)
    start = torch.cat([(prior[0] + prior[1:] @ mean).clamp(-4, 4)[None], (prior[1:] * sd).clamp(-3, 3)])
    weights, target = start.clone(), labels.to(table)
    pull = torch.full_like(start, ridge)
    pull[0] = bias_ridge
    for _ in range(ITERATIONS):
        probability = torch.sigmoid(design @ weights)
        gradient = design.T @ (target - probability) - pull * (weights - start)
        curvature = design.T @ (design * (probability * (1 - probability))[:, None]) + pull.diag()
        weights = weights + torch.linalg.solve(curvature, gradient).clamp(-2, 2)
    slopes = weights[1:] / sd
    return [float(weights[0] - slopes @ mean), *slopes.tolist()]


def area_under_roc(scores: Tensor, labels: Tensor) -> float:
    """Probability that a positive scores higher than a negative (ties count half); NaN without both kinds."""
    positive, negative = scores[labels].numpy(), scores[~labels].numpy()
    if not len(positive) or not len(negative):
        return float("nan")
    return float(mannwhitneyu(positive, negative, method="asymptotic").statistic / (len(positive) * len(negative)))
