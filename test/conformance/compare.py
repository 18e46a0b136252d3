"""How arrays are compared with parity vectors: one number, the largest excess, against one tolerance."""

import numpy as np
import torch


def difference(label, actual, expected, atol=1e-5, rtol=1e-4):
    """(label, error, tolerance): error = max |actual - expected| / (1 + rtol/atol |expected|), tolerance = atol.

    NaN and infinity must stand at the same places; shapes must agree.
    """
    actual = np.asarray(actual.detach().cpu() if isinstance(actual, torch.Tensor) else actual, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    if actual.shape != expected.shape:
        return f"{label}: shape {actual.shape} != {expected.shape}", np.inf, atol
    special = ~np.isfinite(expected)
    if not np.array_equal(np.nan_to_num(actual[special], nan=7.0), np.nan_to_num(expected[special], nan=7.0)):
        return f"{label}: NaN or infinity differ", np.inf, atol
    if special.all():
        return label, 0.0, atol
    actual, expected = actual[~special], expected[~special]
    return label, float(np.max(np.abs(actual - expected) / (1 + rtol / atol * np.abs(expected)))), atol


def exact(label, actual, expected):
    """(label, number of differing entries, 0)."""
    actual = np.asarray(actual.detach().cpu() if isinstance(actual, torch.Tensor) else actual)
    expected = np.asarray(expected)
    if actual.shape != expected.shape:
        return f"{label}: shape {actual.shape} != {expected.shape}", np.inf, 0
    return label, int((actual.astype(np.float64) != expected.astype(np.float64)).sum()), 0
