"""Parity vectors of the features, run as the conformance runner does."""

from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[2]
VECTORS = HERE / "data" / "vectors" / "geoaware"

from geoaware_features import CHECKS  # noqa: E402  (needs the path above)


@pytest.mark.slow
@pytest.mark.parametrize("stem", sorted(CHECKS))
def test_parity(stem):
    with np.load(VECTORS / f"{stem}.npz", allow_pickle=False) as stored:
        results = list(CHECKS[stem](dict(stored), VECTORS / f"{stem}.npz"))
    assert results
    for label, error, tolerance in results:
        assert error <= tolerance, f"{label}: {error} > {tolerance}"
