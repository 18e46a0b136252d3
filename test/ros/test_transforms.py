"""The tree of frames that TF tells of, and results in another frame."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from semalign3d_ros.inputs.transforms import FRAMES, HISTORY, NoTransform, TransformTree  # noqa: E402
from semalign3d_ros.outputs.frames import Place  # noqa: E402

STILL = (0.0, 0.0, 0.0, 1.0)


def turned(axis, degrees):
    return tuple(Rotation.from_euler(axis, degrees, degrees=True).as_quat())


def matrix(place):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_quat(place[3:]).as_matrix(), place[:3]
    return result


@pytest.fixture
def robot():
    """map <- base (moves along x and turns about z) <- arm <- camera; map <- table."""
    tree = TransformTree()
    for number in range(11):
        tree.put("map", "base", 100 + number / 10, (number / 10, 0, 0, *turned("z", 9 * number)), False, now=number / 10)
    tree.put("base", "arm", 0.0, (0, 0, 0.5, *turned("y", 30)), True)
    tree.put("/arm", "camera", 0.0, (0.1, 0, 0, *turned("x", -90)), True)
    tree.put("map", "table", 0.0, (2, 1, 0, *STILL), True)
    return tree


def test_frames_are_where_they_were_at_the_moment_of_the_image(robot):
    arm, camera = matrix((0, 0, 0.5, *turned("y", 30))), matrix((0.1, 0, 0, *turned("x", -90)))
    base = matrix((0.55, 0, 0, *turned("z", 49.5)))  # half way between two messages
    np.testing.assert_allclose(robot.lookup("map", "camera", 100.55), base @ arm @ camera, atol=1e-9)
    table = matrix((2, 1, 0, *STILL))
    np.testing.assert_allclose(robot.lookup("table", "camera", 100.55), np.linalg.inv(table) @ base @ arm @ camera, atol=1e-9)
    np.testing.assert_allclose(robot.lookup("camera", "map", 100.55), np.linalg.inv(base @ arm @ camera), atol=1e-9)
    np.testing.assert_allclose(robot.lookup("camera", "arm", 5.0), np.linalg.inv(camera), atol=1e-9)  # static at any time
    np.testing.assert_allclose(robot.lookup("camera", "camera", 5.0), np.eye(4))
    newest = matrix((1.0, 0, 0, *turned("z", 90)))
    np.testing.assert_allclose(robot.lookup("map", "base", 0), newest, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "time", "kind", "named"),
    [
        ("kitchen", 100.5, "frame not known", "'kitchen'"),
        ("map", 99.9, "not at this time", "'base' in 'map' from 100.000 to 101.000 s, which begins 0.100 s after the image"),
        ("map", 101.25, "not at this time", "ends 0.250 s before the image"),
    ],
)
def test_what_is_missing_is_named(robot, target, time, kind, named):
    with pytest.raises(NoTransform) as caught:
        robot.lookup(target, "camera", time)
    assert caught.value.kind == kind and named in str(caught.value)


def test_only_what_may_still_come_is_waited_for(robot):
    def late(time, now):
        with pytest.raises(NoTransform) as caught:
            robot.lookup("map", "camera", time, now, patience=0.5)
        return caught.value.late

    assert late(101.05, now=1.1) and not late(101.05, now=2.0) and not late(99.0, now=1.1)


def test_two_trees_and_loops_are_no_way(robot):
    robot.put("island", "hut", 100.0, (0, 0, 0, *STILL), False)
    with pytest.raises(NoTransform, match="no way between them"):
        robot.lookup("hut", "camera", 100.0)
    robot.put("camera", "map", 0.0, (0, 0, 0, *STILL), True)
    with pytest.raises(NoTransform, match="no way between them"):
        robot.lookup("hut", "camera", 100.0)


@pytest.mark.parametrize(
    ("parent", "child", "place"),
    [("a", "a", (0, 0, 0, *STILL)), ("", "a", (0, 0, 0, *STILL)), ("a", "b", (np.nan, 0, 0, *STILL)), ("a", "b", (0, 0, 0, 0, 0, 0, 0))],
)
def test_broken_transforms_are_refused(parent, child, place):
    with pytest.raises(NoTransform, match="quaternion of length 1"):
        TransformTree().put(parent, child, 0.0, place, False)


def test_memory_is_bounded_and_a_recording_may_begin_again(robot):
    for number in range(3000):
        robot.put("map", "base", 200 + number / 10, (0, 0, 0, *STILL), False, now=number)
        robot.put("map", f"thing {number}", 200.0, (0, 0, 0, *STILL), False, now=number)
    assert len(robot._frames) <= FRAMES and len(robot._frames["base"].places) <= 10 * HISTORY + 1
    assert robot.lookup("arm", "camera", 0).shape == (4, 4)  # static frames stay
    robot.put("map", "base", 100.0, (7, 0, 0, *STILL), False)  # long before
    assert robot.lookup("map", "base", 100.0)[0, 3] == 7
    robot.forget()
    with pytest.raises(NoTransform):
        robot.lookup("map", "base", 100.0)


def test_a_place_that_is_told_again_replaces_the_one_before():
    tree = TransformTree()
    for number in range(50):
        tree.put("map", "base", 7.0, (number, 0, 0, *STILL), False)
    assert len(tree._frames["base"].places) == 1 and tree.lookup("map", "base", 7.0)[0, 3] == 49


def test_results_move_to_another_frame_with_their_covariances(monkeypatch):
    turn, shift = Rotation.from_euler("xyz", [20, -40, 70], degrees=True).as_matrix(), np.array([1.0, 2, 3])
    place = Place("map", np.block([[turn, shift[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]))
    monkeypatch.setattr("semalign3d_ros.outputs.frames.replace", lambda old, **new: SimpleNamespace(**{**vars(old), **new}))
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(5, 3, generator=generator)
    alignment = SimpleNamespace(rotation=torch.eye(3), translation=points[0], keypoints_3d=points, cloud_3d=points * 2)
    moved = place.alignment(alignment)
    np.testing.assert_allclose(moved.keypoints_3d, points.numpy() @ turn.T + shift, atol=1e-5)
    np.testing.assert_allclose(moved.rotation, turn, atol=1e-6)
    samples = torch.randn(4000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    uncertainty = SimpleNamespace(pose=torch.cov(samples.T), positions=torch.cov(samples[:, :3].T)[None])
    both = np.kron(np.eye(2), turn)
    found = place.uncertainty(uncertainty)
    np.testing.assert_allclose(found.pose, np.cov(samples.numpy() @ both.T, rowvar=False), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.positions[0], found.pose[:3, :3], rtol=1e-3, atol=1e-3)
    assert Place("camera").alignment(alignment) is alignment and place.uncertainty(None) is None
