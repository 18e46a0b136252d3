"""TF and vision_msgs over real DDS. Their messages are not on PyPI: where they are missing, the first test builds them for the others."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Quaternion, Transform, TransformStamped, Vector3  # noqa: E402
from rclpy.qos import QoSDurabilityPolicy, QoSProfile  # noqa: E402
from ros_graph import executable  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402
from standard_messages import build  # noqa: E402
from standin import standin  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
from semalign3d_ros.conversions import array_to_image  # noqa: E402
from semalign3d_ros.inputs.calibration import camera_to_info  # noqa: E402
from semalign3d_ros.msg import SemanticKeypoints  # noqa: E402

ROOT = Path(__file__).parents[2]
THERE = find_spec("tf2_msgs") is not None and find_spec("vision_msgs") is not None
needs_messages = pytest.mark.skipif(not THERE, reason="tf2_msgs and vision_msgs: run by test_with_messages_that_are_built_for_it")
METRIC, RELATIVE = SemanticKeypoints.SCALE_METRIC, SemanticKeypoints.SCALE_RELATIVE
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


@pytest.mark.slow
@pytest.mark.skipif(THERE, reason="tf2_msgs and vision_msgs are installed: the other tests run by themselves")
def test_with_messages_that_are_built_for_it():
    setup = build(ROOT / "build" / "standard_messages")
    command = f". '{setup}' && exec '{sys.executable}' -m pytest -q -rs -p no:cacheprovider '{__file__}'"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0 and " passed" in ran.stdout, ran.stdout[-6000:] + ran.stderr[-2000:]


def transform(parent, child, stamp, position, rotation):
    x, y, z, w = rotation.as_quat()
    moved = Transform(translation=Vector3(**dict(zip("xyz", map(float, position), strict=True))), rotation=Quaternion(x=x, y=y, z=z, w=w))
    return TransformStamped(header=Header(stamp=stamp, frame_id=parent), child_frame_id=child, transform=moved)


class Robot:
    """A camera with depth on a moving robot, the node, and everything that it publishes."""

    def __init__(self, world, listener, start, parameters=()):
        from tf2_msgs.msg import TFMessage
        from vision_msgs.msg import Detection2DArray, Detection3DArray

        self.world, self.listener, self.message = world, listener, TFMessage
        kinds = {"keypoints": SemanticKeypoints, "pose": PoseStamped, "pose_with_covariance": PoseWithCovarianceStamped}
        kinds |= {"points": PointCloud2, "detections_3d": Detection3DArray, "/diagnostics": DiagnosticArray, "/tf": TFMessage}
        self.got = {topic: listener.collect(kind, topic) for topic, kind in kinds.items()}
        self.node = start(standin("align_node"), [*world.parameters, "patience:=5.0", *parameters])
        inputs = {"image": Image, "camera_info": CameraInfo, "depth": Image, "detections": Detection2DArray}
        self.topics, self.publishers = inputs, {}
        self.tf, self.static = listener.publisher(TFMessage, "/tf"), listener.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self.advertise("image")
        outputs = [topic for topic in self.got if topic != "/diagnostics"]
        listener.wait(lambda: all(listener.node.count_publishers(topic) for topic in outputs), "waited for topics", self.node)
        listener.wait(lambda: self.tf.get_subscription_count() > 1 and self.static.get_subscription_count(), "waited for TF", self.node)
        self.pause(0.3)

    def advertise(self, *roles):
        for role in roles:
            self.publishers[role] = self.listener.publisher(self.topics[role], role)
        self.listener.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()), "waited for inputs", self.node)
        self.pause(0.3)

    def pause(self, seconds):
        for _ in range(int(seconds / 0.02)):
            self.listener.executor.spin_once(timeout_sec=0.02)

    def now(self):
        return self.listener.node.get_clock().now().to_msg()

    def send(self, stamp, depth_frame="camera"):
        header = Header(stamp=stamp, frame_id="camera")
        millimetres = np.round(400 / self.world.truth[2].evidence.depth.values.numpy()).astype(np.uint16)
        depth = array_to_image(millimetres, "16UC1", Header(stamp=stamp, frame_id=depth_frame))
        self.publishers["depth"].publish(depth)
        self.publishers["image"].publish(array_to_image(self.world.pictures[2], "rgb8", header))
        return header

    def answer(self, header):
        self.listener.wait(lambda: any(m.header == header for m in self.got["keypoints"]), "waited for keypoints", self.node)
        return next(m for m in self.got["keypoints"] if m.header == header)

    def of(self, topic, stamp):
        self.listener.wait(lambda: any(m.header.stamp == stamp for m in self.got[topic]), f"waited for {topic}", self.node)
        return next(m for m in self.got[topic] if m.header.stamp == stamp)

    def values(self):
        own = [status for array in self.got["/diagnostics"] for status in array.status if status.name.endswith("align")]
        return {value.key: value.value for value in own[-1].values} if own else {}


def numbers(point):
    return np.array([point.x, point.y, point.z])


@needs_messages
def test_results_come_in_another_frame_at_the_stamp_of_the_image(world, listener, start):
    robot = Robot(world, listener, start, ["target_frame:=map", "tf_keypoints:=all"])
    robot.advertise("depth")
    missing = robot.send(robot.now())
    assert robot.answer(missing).scale_kind == METRIC
    listener.wait(lambda: "problem: target_frame: frame not known" in robot.values(), "waited for the problem", robot.node)
    assert not robot.got["pose"] and not robot.got["points"], "nothing in another frame than the one that was asked for"
    arm = Rotation.from_euler("xyz", [-90, 0, -90], degrees=True)
    robot.static.publish(robot.message(transforms=[transform("base", "camera", robot.now(), (0, 0, 1), arm)]))
    sent = robot.send(robot.now())
    begin, turns = sent.stamp, [Rotation.from_euler("z", degrees, degrees=True) for degrees in (10, 50)]
    before = type(begin)(sec=begin.sec - 1, nanosec=begin.nanosec)
    robot.tf.publish(robot.message(transforms=[transform("map", "base", before, (1, 0, 0), turns[0])]))
    robot.pause(0.5)  # the image is waiting for TF of its time
    after = type(begin)(sec=begin.sec + 1, nanosec=begin.nanosec)
    robot.tf.publish(robot.message(transforms=[transform("map", "base", after, (3, 0, 0), turns[1])]))
    seen = robot.answer(sent)
    pose, spread = robot.of("pose", sent.stamp), robot.of("pose_with_covariance", sent.stamp)
    base = Rotation.from_euler("z", 30, degrees=True)
    expected = base.apply(arm.apply(numbers(seen.pose.position)) + [0, 0, 1]) + [2, 0, 0]
    np.testing.assert_allclose(numbers(pose.pose.position), expected, atol=1e-4)
    assert pose.header.frame_id == spread.header.frame_id == robot.of("points", sent.stamp).header.frame_id == "map"
    both = np.kron(np.eye(2), (base * arm).as_matrix())
    np.testing.assert_allclose(
        spread.pose.covariance, (both @ seen.pose_covariance.reshape(6, 6) @ both.T).reshape(-1), rtol=1e-3, atol=1e-9
    )
    assert seen.header.frame_id == "camera"  # its pixels belong to the camera
    (box,) = robot.of("detections_3d", sent.stamp).detections
    assert box.header.frame_id == "map" and box.results[0].hypothesis.class_id == "chair"
    np.testing.assert_allclose(numbers(box.results[0].pose.pose.position), expected, atol=1e-4)
    assert np.linalg.norm(numbers(box.bbox.center.position) - expected) < np.linalg.norm(numbers(box.bbox.size))

    def frames():
        return [one for message in robot.got["/tf"] for one in message.transforms if one.header == sent]

    listener.wait(frames, "waited for the frames", robot.node)
    name = f"chair_{seen.object_id}"
    places = {one.child_frame_id: numbers(one.transform.translation) for one in frames()}
    np.testing.assert_allclose(places[name], numbers(seen.pose.position), atol=1e-6)
    for keypoint in seen.keypoints:
        if np.isfinite(numbers(keypoint.position)).all():
            np.testing.assert_allclose(places[f"{name}/{keypoint.name}"], numbers(keypoint.position), atol=1e-6)
    assert robot.node.stop() == 0 and "Traceback" not in robot.node.output()


@needs_messages
def test_depth_of_another_camera_is_carried_over_by_tf(world, listener, start):
    robot = Robot(world, listener, start, ["up_frame:=world"])
    robot.advertise("depth", "camera_info")
    camera = PinholeCamera.from_pixels(world.truth[2].evidence.camera.matrix_pixels(), 240, 240)
    infos = listener.publisher(CameraInfo, "depth_camera_info")
    listener.wait(infos.get_subscription_count, "waited for the depth camera's info", robot.node)
    robot.publishers["camera_info"].publish(camera_to_info(camera, Header(frame_id="camera")))
    infos.publish(camera_to_info(camera, Header(frame_id="depth_camera")))
    robot.pause(0.3)
    assert robot.answer(robot.send(robot.now(), "depth_camera")).scale_kind == RELATIVE
    kinds = ("problem: depth: not registered", "problem: up_frame: frame not known")
    listener.wait(lambda: all(kind in robot.values() for kind in kinds), "waited for the problems", robot.node)
    texts = [status.message for array in robot.got["/diagnostics"] for status in array.status]
    assert any("TF does not know 'depth_camera'" in text for text in texts)
    place = transform("camera", "depth_camera", robot.now(), (0.01, 0, 0), Rotation.identity())
    level = transform("world", "camera", robot.now(), (0, 0, 1), Rotation.from_euler("x", -90, degrees=True))
    robot.static.publish(robot.message(transforms=[place, level]))
    robot.pause(0.3)
    unknown = robot.values()["problem: up_frame: frame not known"]
    assert robot.answer(robot.send(robot.now(), "depth_camera")).scale_kind == METRIC
    robot.pause(1.5)  # until the next diagnostics
    assert robot.values()["problem: up_frame: frame not known"] == unknown
    assert robot.node.stop() == 0


@needs_messages
def test_boxes_of_a_detector_are_the_objects(world, listener, start):
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    robot = Robot(world, listener, start)
    robot.advertise("depth", "detections")
    truth = world.truth[2].keypoints[world.truth[2].visible].numpy()
    low, high = truth.min(0) - 8, truth.max(0) + 8

    def detections(header, name):
        one = Detection2D(header=header)
        one.bbox.center.position.x, one.bbox.center.position.y = map(float, (low + high) / 2)
        one.bbox.size_x, one.bbox.size_y = map(float, high - low)
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = name, 0.9
        one.results = [hypothesis]
        return Detection2DArray(header=header, detections=[one])

    sent = robot.send(robot.now())
    robot.publishers["detections"].publish(detections(sent, "chair"))
    assert robot.answer(sent).found
    empty = robot.send(robot.now())
    robot.publishers["detections"].publish(Detection2DArray(header=empty))
    assert not robot.answer(empty).found, "the detector has looked and found nothing"
    broken = robot.send(robot.now())
    message = detections(broken, "chair")
    message.detections[0].bbox.size_x = float("nan")
    robot.publishers["detections"].publish(message)
    robot.answer(broken)
    listener.wait(lambda: "problem: detections: broken box" in robot.values(), "waited for the problem", robot.node)
    assert robot.node.stop() == 0


@needs_messages
def test_the_frames_of_a_recording_are_played_with_its_images(listener, start, tmp_path):
    from test_sim_time import BEGIN, STEP, write_recording
    from tf2_msgs.msg import TFMessage

    recording = write_recording(tmp_path, frames=True)
    moving, images = listener.collect(TFMessage, "/tf"), listener.collect(Image, "image")
    fixed = []
    listener.node.create_subscription(TFMessage, "/tf_static", fixed.append, LATCHED)
    node = start(executable("image_source_node"), [f"source:={recording}", "start:=0.3", "subscribers:=1"])
    listener.wait(lambda: len(images) >= 4 and node.process.poll() is not None, "waited for the end", node)
    listener.wait(lambda: fixed, "waited for /tf_static")
    stamps = [one.header.stamp.sec * 10**9 + one.header.stamp.nanosec for message in moving for one in message.transforms]
    assert stamps == [BEGIN * 10**9 + number * STEP for number in range(2, 6)]
    assert [one.child_frame_id for one in fixed[-1].transforms] == ["camera"]
