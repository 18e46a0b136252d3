"""Recordings for rerun hold what was found."""

import importlib.util
from pathlib import Path

import pytest

from semalign3d_core import load_pipeline

COFFEE, CUP = Path(__file__).parents[1] / "examples" / "photographs" / "coffee.jpg", (172, 18, 408, 308)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed (extra rerun)")
def test_a_recording_holds_image_cloud_keypoints_and_pose(tmp_path):
    from semalign3d_core.export.rerun import RerunLog

    pipeline = load_pipeline("mug", device="cpu")
    found, missed = pipeline.process(COFFEE, box=CUP), pipeline.process(COFFEE)
    with RerunLog(tmp_path / "run.rrd") as log:
        log.add(found.evidence, found.alignment, 0.0)
        log.add(missed.evidence, missed.alignment, 0.1)
    content = (tmp_path / "run.rrd").read_bytes()
    assert content[:3] == b"RRF"
    for entity in (b"/camera/image/keypoints", b"/cloud", b"/keypoints", b"/object", b"/confidence"):
        assert entity in content, entity
