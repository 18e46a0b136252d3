"""What real cameras do to the node: remapped, late, silent, best effort, distorted, unregistered. Real processes over real DDS."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, QoSReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402
from standin import standin  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
from semalign3d_core.geometry.distortion import LensDistortion, Undistortion  # noqa: E402
from semalign3d_ros.conversions import array_to_image  # noqa: E402
from semalign3d_ros.inputs.calibration import camera_to_info  # noqa: E402
from semalign3d_ros.msg import SemanticKeypoints  # noqa: E402

METRIC, RELATIVE = SemanticKeypoints.SCALE_METRIC, SemanticKeypoints.SCALE_RELATIVE
REMAPPED = {"image": "/cam/color/image_raw", "camera_info": "/cam/color/camera_info", "depth": "/cam/depth/image_raw", "mask": "/seg/mask"}
RULES = [f"{name}:={topic}" for name, topic in REMAPPED.items()]
BEST_EFFORT = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class Rig:
    """A camera with depth and mask on remapped topics, and the node that listens to it."""

    def __init__(self, world, listener, start, parameters=(), qos=10, topics=REMAPPED):
        self.world, self.listener, self.sent = world, listener, 0
        types = {"image": Image, "camera_info": CameraInfo, "depth": Image, "mask": Image}
        self.keypoints = listener.collect(SemanticKeypoints, "keypoints")
        self.diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
        plain = [p for p in world.parameters if not p.startswith("qos_overrides")]
        self.node = start(standin("align_node"), [*plain, *parameters], [f"{name}:={topic}" for name, topic in topics.items()])
        self.publishers, self._types, self._topics, self._qos = {}, types, topics, qos
        self.advertise("image")

    def advertise(self, *roles):
        for role in roles:
            self.publishers[role] = self.listener.node.create_publisher(self._types[role], self._topics[role], self._qos)

        def ready():
            heard = all(publisher.get_subscription_count() for publisher in self.publishers.values())
            return heard and self.listener.node.count_publishers("keypoints")

        self.listener.wait(ready, "waited for the node's subscriptions", self.node)
        self.pause(0.3)  # the node's own discovery of the publishers

    def pause(self, seconds):
        end = self.listener.node.get_clock().now().nanoseconds + seconds * 1e9
        while self.listener.node.get_clock().now().nanoseconds < end:
            self.listener.executor.spin_once(timeout_sec=0.01)

    def header(self, frame="camera_optical"):
        self.sent += 1
        return Header(stamp=self.listener.node.get_clock().now().to_msg(), frame_id=frame)

    def image(self, number=2, header=None):
        message = array_to_image(self.world.pictures[number], "rgb8", header or self.header())
        self.publishers["image"].publish(message)
        return message.header

    def millimetres(self, number=2):
        inverse = self.world.truth[number].evidence.depth.values.numpy()
        return np.round(400 / inverse).astype(np.uint16)

    def answer(self, header):
        self.listener.wait(lambda: any(m.header == header for m in self.keypoints), "waited for keypoints", self.node)
        return next(m for m in self.keypoints if m.header == header)

    def set(self, name, value):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.listener.call(SetParameters, "align/set_parameters", request, self.node).results[0]
        assert result.successful, result.reason

    def values(self):
        own = [status for array in self.diagnostics for status in array.status if status.name.endswith("align")]
        return {value.key: value.value for value in own[-1].values} if own else {}

    def wait_for_problem(self, kind):
        self.listener.wait(lambda: f"problem: {kind}" in self.values(), f"waited for the problem {kind}", self.node)


@pytest.fixture
def rig(world, listener, start):
    def make(*arguments, **options):
        return Rig(world, listener, start, *arguments, **options)

    return make


def test_depth_of_a_remapped_topic_is_waited_for(rig):
    camera = rig(["patience:=30.0"])
    camera.advertise("depth", "mask")
    for number in range(3):
        sent = camera.image()
        camera.pause(0.06)
        camera.publishers["depth"].publish(array_to_image(camera.millimetres(), "16UC1", sent))
        camera.publishers["mask"].publish(array_to_image(np.full((240, 240), 255, np.uint8), "mono8", sent))
        assert camera.answer(sent).scale_kind == METRIC, f"image {number}"
    assert camera.node.stop() == 0


def test_a_silent_partner_is_named_and_images_go_on(rig):
    camera = rig(["patience:=0.5"])
    camera.advertise("depth")
    period, begin = 1 / 30, camera.listener.node.get_clock().now().nanoseconds
    while "condition: depth: silent" not in camera.values():
        camera.image()
        camera.pause(period)
        assert camera.listener.node.get_clock().now().nanoseconds - begin < 60e9, camera.node.output()
    assert len(camera.keypoints) >= 2  # also while it was still waited for
    missed = camera.values()["problem: depth: none for the image"]
    assert camera.answer(camera.image()).scale_kind == RELATIVE
    camera.pause(1.5)  # until the next diagnostics
    assert camera.values()["problem: depth: none for the image"] == missed, "no longer waited for"


def test_images_arrive_whatever_reliability_the_camera_offers(rig):
    camera = rig(qos=10)
    camera.answer(camera.image())
    # a reliable camera is replaced by one that offers best effort only
    camera.listener.node.destroy_publisher(camera.publishers.pop("image"))
    camera._qos = BEST_EFFORT
    camera.advertise("image")
    camera.listener.wait(lambda: camera.values().get("reliability of images") == "best_effort", "waited for the change", camera.node)
    camera.answer(camera.image())


def test_images_are_received_reliably_by_default_and_losses_are_named(rig):
    camera = rig()
    large = np.zeros((480, 640, 3), np.uint8)
    large[:8, :8] = 8
    for _ in range(13):
        message = array_to_image(large, "rgb8", camera.header())
        camera.publishers["image"].publish(message)
        camera.pause(0.1)
    camera.listener.wait(lambda: camera.values().get("images received") == "13", "waited for all images", camera.node)
    assert camera.values()["images lost on the way"] == "0"


def test_what_looks_metric_is_published_only_in_metres(rig, world):
    camera = rig(["patience:=30.0"])
    received = {topic: camera.listener.collect(kind, topic) for topic, kind in (("pose", PoseStamped), ("points", PointCloud2), ("markers", MarkerArray))}  # fmt: skip  # noqa: E501
    camera.listener.wait(lambda: all(camera.listener.node.count_publishers(topic) for topic in received), "waited for topics", camera.node)
    camera.pause(0.3)
    message = camera.answer(camera.image())
    assert message.found and message.scale_kind == RELATIVE
    camera.wait_for_problem("scale: not known")
    assert not any(received.values())
    camera.advertise("depth")
    sent = camera.image()
    camera.publishers["depth"].publish(array_to_image(camera.millimetres(), "16UC1", sent))
    assert camera.answer(sent).scale_kind == METRIC
    camera.listener.wait(lambda: all(received.values()), "waited for all outputs", camera.node)
    assert all(messages[0].header == sent for topic, messages in received.items() if topic != "markers")


def test_up_to_scale_only_on_request_and_in_a_frame_of_its_own(rig):
    camera = rig(["relative_outputs:=true"])
    poses = camera.listener.collect(PoseStamped, "pose")
    camera.listener.wait(lambda: camera.listener.node.count_publishers("pose"), "waited for the topic", camera.node)
    camera.pause(0.3)
    camera.answer(camera.image())
    camera.listener.wait(lambda: poses, "waited for a pose", camera.node)
    assert poses[0].header.frame_id == "camera_optical_up_to_scale"


def test_a_known_diameter_gives_metres_and_depth_that_contradicts_it_is_named(rig):
    camera = rig(["patience:=30.0", "diameter:=0.25"])
    message = camera.answer(camera.image())
    positions = np.array([[k.position.x, k.position.y, k.position.z] for k in message.keypoints])
    assert message.scale_kind == METRIC
    assert max(np.linalg.norm(a - b) for a in positions for b in positions) == pytest.approx(0.25, rel=1e-3)
    camera.advertise("depth")
    sent = camera.image()
    camera.publishers["depth"].publish(array_to_image(camera.millimetres() * 3, "16UC1", sent))
    assert camera.answer(sent).scale_kind == RELATIVE
    camera.wait_for_problem("depth: contradicts the diameter")


def test_depth_of_another_camera_is_refused_or_carried_over(rig, world):
    camera = rig(["patience:=30.0"])
    camera.advertise("camera_info", "depth")
    truth = world.truth[2].evidence.camera
    calibrated = PinholeCamera.from_pixels(truth.matrix_pixels(), 240, 240)
    camera.publishers["camera_info"].publish(camera_to_info(calibrated, camera.header()))
    camera.pause(0.2)

    def ask():
        sent = camera.image()
        foreign = Header(stamp=sent.stamp, frame_id="depth_optical")
        depth = cv2.resize(camera.millimetres(), (480, 480), interpolation=cv2.INTER_NEAREST)
        camera.publishers["depth"].publish(array_to_image(depth, "16UC1", foreign))
        return camera.answer(sent)

    aligned = camera.image()
    camera.publishers["depth"].publish(array_to_image(camera.millimetres(), "16UC1", aligned))
    expected = camera.answer(aligned)
    assert expected.scale_kind == METRIC
    assert ask().scale_kind == RELATIVE
    camera.wait_for_problem("depth: not registered")
    infos = camera.listener.publisher(CameraInfo, "/cam/depth/camera_info")
    camera.listener.wait(infos.get_subscription_count, "waited for the subscription beside depth", camera.node)
    infos.publish(camera_to_info(calibrated.resized(480, 480), Header(frame_id="depth_optical")))
    camera.set("depth_extrinsics", "0 0 0 0 0 0 1")
    camera.pause(0.2)
    message = ask()
    assert message.scale_kind == METRIC and message.scale == pytest.approx(expected.scale, rel=0.02)


def test_a_wrong_calibration_is_named_and_distortion_is_taken_out(rig, world):
    camera = rig(["patience:=30.0"])
    camera.advertise("camera_info")
    truth = PinholeCamera.from_pixels(world.truth[2].evidence.camera.matrix_pixels(), 240, 240)
    info = camera_to_info(truth, camera.header())
    camera.publishers["camera_info"].publish(info)
    camera.pause(0.2)
    flat = np.full((240, 240, 3), 16, np.uint8)  # by which the stand-in knows the second picture, also undistorted

    def ask():
        sent = camera.header()
        camera.publishers["image"].publish(array_to_image(flat, "rgb8", sent))
        return camera.answer(sent)

    plain = ask()
    info.d = [-0.35, 0.0, 0.0, 0.0, 0.0]
    camera.publishers["camera_info"].publish(info)
    camera.pause(0.2)
    distorted = ask()
    pixels = np.array([[k.pixel.x, k.pixel.y] for k in plain.keypoints])
    expected = Undistortion(truth, LensDistortion.of("plumb_bob", info.d)).to_distorted(pixels)
    np.testing.assert_allclose([[k.pixel.x, k.pixel.y] for k in distorted.keypoints], expected, atol=1e-2)
    assert np.abs(expected - pixels).max() > 1
    info.d = [-9.0, 0.0, 0.0, 0.0, 0.0]
    camera.publishers["camera_info"].publish(info)
    camera.pause(0.2)
    camera.answer(camera.image())
    camera.wait_for_problem("camera_info: distortion not usable")
