"""Objects of two categories cross in a rendered video before the running node with the shipped models."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")
pytest.importorskip("embreex", reason="renders: pip install 'semalign3d[synth]'")

from node_crossing import main  # noqa: E402


@pytest.mark.slow
def test_every_object_keeps_its_number(capfd):
    assert main(frames=9) == 0
    found = [int(line.split(" of ")[0].split()[-1]) for line in capfd.readouterr().out.splitlines() if " frames, numbers " in line]
    assert len(found) == 3 and min(found) >= 5
