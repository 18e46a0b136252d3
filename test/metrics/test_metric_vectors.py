"""The parity vectors of metrics and data sets, as `test/conformance/run.py` checks them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
import checks_spherical_maps  # noqa: E402
import geoaware_data  # noqa: E402
import run  # noqa: E402
import sfnet_metrics  # noqa: E402

FILES = {
    "metrics": ["average_precision", "kap", "keypoint_padding", "nn_transfer", "pck", "pck_aggregate"],
    "geoaware": list(geoaware_data.CHECKS),
    "spherical_maps": list(checks_spherical_maps.CHECKS),
    "sfnet": list(sfnet_metrics.CHECKS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{folder}/{stem}" for folder, stems in FILES.items() for stem in stems])
def test_vector_file_is_reproduced(name):
    status, error, tolerance, detail = run.run_file(ROOT / "data" / "vectors" / f"{name}.npz", run.load_checks())
    assert status == "ok", f"{detail}: error {error}, tolerance {tolerance}"
