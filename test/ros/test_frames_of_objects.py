"""Frames made of keypoints."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from semalign3d_core.runtime.errors import SemAlign3DError  # noqa: E402
from semalign3d_ros.outputs.frames import pose_of, read_grasps  # noqa: E402

TEXT = "side:\n  origin: [a, b]\n  axis: [a, b]\n  approach: [a, c]\ntop:\n  origin: c\n  axis: [a, c]\n  approach: [a, missing]\n"


def test_a_grasp_frame_lies_where_its_keypoints_say(tmp_path):
    (tmp_path / "grasps.yaml").write_text(TEXT)
    side, top = read_grasps(str(tmp_path / "grasps.yaml"))
    keypoints = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.2, 1.0], [0.1, 0.1, 1.0]])
    alignment = SimpleNamespace(keypoint_names=("a", "b", "c"), keypoints_3d=keypoints)
    rotation, origin = side.pose(alignment)
    np.testing.assert_allclose(origin, [0, 0.1, 1.0], atol=1e-6)
    np.testing.assert_allclose(rotation, np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), atol=1e-6)  # x along b - a, z towards c
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert top.pose(alignment) is None  # one of its keypoints is not of this category
    pose = pose_of(rotation, origin)
    assert pose.position.y == pytest.approx(0.1) and pose.orientation.w == pytest.approx(0.5)
    keypoints[2] = torch.nan
    assert side.pose(alignment) is None
    assert read_grasps("") == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- a", "mapping"),
        ("g: {origin: a}", "exactly the keys"),
        ("g: {origin: 3, axis: [a, b], approach: [a, b]}", "names of keypoints"),
        ("g: [", "YAML"),
    ],  # fmt: skip  # noqa: E501
)
def test_a_wrong_file_is_named(tmp_path, text, named):
    path = tmp_path / "grasps.yaml"
    path.write_text(text)
    with pytest.raises(SemAlign3DError, match=named):
        read_grasps(str(path))
    with pytest.raises(SemAlign3DError, match="does not exist"):
        read_grasps(str(tmp_path / "none.yaml"))
