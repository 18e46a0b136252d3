"""Parameters of the nodes: the file that the launch file reads says what the node does without it."""

from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import yaml  # noqa: E402

from semalign3d_ros.parameters import AlignParameters  # noqa: E402


def test_the_parameter_file_holds_the_defaults():
    path = Path(__file__).parents[2] / "config" / "align.yaml"
    written = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    defaults = {item.name: item.default for item in fields(AlignParameters)}
    assert written == {name: defaults[name] for name in written}
