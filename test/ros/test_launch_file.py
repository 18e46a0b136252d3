"""The launch file, where a ROS installation is."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("launch_ros", reason="needs launch_ros, which only comes with a ROS installation")


def test_the_launch_file_starts_the_node_with_the_category():
    path = ROOT / "launch" / "align.launch.py"
    spec = importlib.util.spec_from_file_location("align_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {argument.name for argument in module.generate_launch_description().get_launch_arguments()}
    assert {"category", "demonstration", "image", "camera_info", "depth", "source"} <= names
