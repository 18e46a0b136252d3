"""The node align over real DDS: a process of its own, messages checked by value against the library's result."""

import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rcl_interfaces.srv import GetParameters, SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_graph import DEADLINE, Listener, NodeProcess, executable, other_domain  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2  # noqa: E402
from standin import standin  # noqa: E402  (also registers the backbone, for the library's side of the comparison)
from std_msgs.msg import Header  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
from semalign3d_core.learned.spherical_maps.inference import TrainedMapper  # noqa: E402
from semalign3d_core.learned.spherical_maps.network import SphericalMaps  # noqa: E402
from semalign3d_core.learned.spherical_maps.storage import MapperFacts, save_spherical_maps  # noqa: E402
from semalign3d_core.perception.evidence import DepthMap, ImageInput  # noqa: E402
from semalign3d_core.pipeline import PipelineConfig, create_pipeline  # noqa: E402
from semalign3d_core.visualization.overlay import draw_alignment  # noqa: E402
from semalign3d_core.visualization.sphere import on_sphere  # noqa: E402
from semalign3d_ros.conversions import array_to_image, image_to_array  # noqa: E402
from semalign3d_ros.inputs.calibration import camera_to_info  # noqa: E402
from semalign3d_ros.msg import Correspondences, SemanticKeypoints  # noqa: E402
from semalign3d_ros.srv import SetCategory  # noqa: E402


def library(world, **changes):
    config = {"category": str(world.model_path), "backbone": f"standin:{world.folder}", "masks": "none"}
    return create_pipeline(PipelineConfig(**{**config, **changes}))


def header(number=0):
    return Header(stamp=Time(sec=100 + number, nanosec=7), frame_id="camera_optical")


class Camera:
    """Publishes pictures to the node and waits for the answer to each."""

    def __init__(self, listener, node, transport=Image, topic="image"):
        self.listener, self.node, self.sent = listener, node, 0
        self.keypoints = listener.collect(SemanticKeypoints, "keypoints")
        self.images = listener.publisher(transport, topic)
        listener.wait(lambda: self.images.get_subscription_count() > 0 and self.keypoints_connected(), "waited for the node's topics", node)

    def keypoints_connected(self):
        return self.listener.node.count_publishers("keypoints") > 0

    def send(self, message):
        self.sent += 1
        message.header = header(self.sent)
        self.images.publish(message)
        return message.header

    def ask(self, picture, encoding="rgb8"):
        return self.answer(self.send(array_to_image(picture, encoding, Header())))

    def answer(self, sent):
        self.listener.wait(lambda: any(m.header == sent for m in self.keypoints), "waited for keypoints", self.node)
        return next(m for m in self.keypoints if m.header == sent)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums depend on the number of threads in their last digits; the nodes under test run with one, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def camera(world, listener, start):
    """A node of this test's own."""
    return Camera(listener, start(standin("align_node"), world.parameters))


@pytest.fixture(scope="module")
def shared_node(world, tmp_path_factory):
    """One node for all tests that leave no trace in it."""
    log = tmp_path_factory.mktemp("shared") / "node.log"
    node = NodeProcess(standin("align_node"), world.parameters, log, domain=other_domain())
    yield node
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output()


@pytest.fixture
def shared(shared_node):
    listener = Listener("listener", other_domain())
    yield Camera(listener, shared_node)
    listener.close()


def assert_same(message, alignment):
    """Every number of the message is that of the library's alignment."""
    camera = alignment.camera
    assert message.category == alignment.category and message.model_hash == alignment.model_hash and message.found == alignment.found
    assert [k.name for k in message.keypoints] == list(alignment.keypoint_names)
    assert [k.index for k in message.keypoints] == list(range(len(alignment.keypoint_names)))
    for got, expected in (
        ([[k.pixel.x, k.pixel.y] for k in message.keypoints], alignment.keypoints_2d),
        ([[k.position.x, k.position.y, k.position.z] for k in message.keypoints], alignment.keypoints_3d),
        ([k.confidence for k in message.keypoints], alignment.keypoint_confidence),
        ([k.visible for k in message.keypoints], alignment.visible),
        ([message.confidence], torch.tensor([alignment.confidence])),
        ([message.scale], torch.tensor([alignment.scale])),
        (message.focal_length, camera.focal * camera.longer_side),
        ([getattr(message.pose.position, axis) for axis in "xyz"], alignment.translation),
        (rotation_of(message.pose.orientation), alignment.rotation),
    ):
        np.testing.assert_allclose(np.asarray(got, dtype=float), np.asarray(expected, dtype=float), rtol=1e-5, atol=1e-5)


def rotation_of(q):
    """Rotation matrix of a quaternion message, written out here so that the node's own conversion is not trusted."""
    x, y, z, w = q.x, q.y, q.z, q.w
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]


def test_node_and_library_agree_on_every_picture_and_carry_the_header_on(world, shared):
    pipeline = library(world)
    for picture, truth in zip(world.pictures, world.truth, strict=True):
        message = shared.ask(picture)
        assert_same(message, pipeline.process(ImageInput(picture)).alignment)
        assert message.header.frame_id == "camera_optical" and message.model_hash == world.model_hash
        assert message.scale_kind == SemanticKeypoints.SCALE_RELATIVE
        assert 0 < message.latency.sec + 1e-9 * message.latency.nanosec < 60
        found = np.array([[k.pixel.x, k.pixel.y] for k in message.keypoints])
        error = np.linalg.norm(found - truth.keypoints.numpy(), axis=1)
        assert (error[truth.visible.numpy()] < 0.1 * 240).mean() >= 0.8  # and both are right


@pytest.mark.parametrize("encoding", ["bgr8", "rgba8", "bgra8"])
def test_colour_orders_and_row_padding_do_not_matter(world, shared, encoding):
    picture = world.pictures[1]
    order = {"bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 0], "bgra8": [2, 1, 0, 0]}[encoding]
    message = array_to_image(picture[..., order], encoding, Header())
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(240, -1)
    message.step += 16
    message.data = np.pad(rows, ((0, 0), (0, 16)), constant_values=99).tobytes()
    assert_same(shared.answer(shared.send(message)), library(world).process(ImageInput(picture)).alignment)


def test_camera_info_and_depth_give_metres(world, listener, start):
    camera = Camera(listener, start(standin("align_node"), [*world.parameters, "patience:=30.0"]))  # also on a busy machine
    truth, number = world.truth[2], 2
    calibrated = PinholeCamera.from_pixels(truth.evidence.camera.matrix_pixels(), 240, 240)
    depth = (truth.evidence.depth.values.numpy() ** -1 * 0.4).astype(np.float32)  # any unit of length: these are the metres
    millimetres = np.round(depth * 1000).astype(np.uint16)
    infos, depths = listener.publisher(CameraInfo, "camera_info"), listener.publisher(Image, "depth")
    listener.wait(lambda: infos.get_subscription_count() and depths.get_subscription_count(), "waited for subscriptions", camera.node)
    for attempt in range(1, 6):  # the node may see an image before it has discovered that there is a topic depth
        infos.publish(camera_to_info(calibrated, header(attempt)))
        sent = camera.send(array_to_image(world.pictures[number], "rgb8", Header()))
        depths.publish(array_to_image(millimetres, "16UC1", sent))
        message = camera.answer(sent)
        if message.scale_kind == SemanticKeypoints.SCALE_METRIC and message.focal_length[0] == pytest.approx(calibrated.focal[0] * 240):
            break
    expected = library(world).process(
        ImageInput(world.pictures[number]),
        camera=calibrated,
        depth=DepthMap(torch.from_numpy(millimetres.astype(np.float32) * np.float32(0.001)), "metric"),
    )
    assert_same(message, expected.alignment)
    assert message.scale_kind == SemanticKeypoints.SCALE_METRIC
    np.testing.assert_allclose(message.focal_length, (calibrated.focal * 240).numpy(), rtol=1e-5)


def test_correspondences_to_the_demonstration(world, listener, start):
    demonstration = world.write_demonstration()
    node = start(standin("align_node"), [*world.parameters, f"demonstration:={demonstration}"])
    received = listener.collect(Correspondences, "correspondences")
    camera = Camera(listener, node)
    message = camera.ask(world.pictures[3])
    listener.wait(lambda: received, "waited for correspondences", node)
    pipeline = library(world, demonstration=str(demonstration))
    matches = pipeline.process(ImageInput(world.pictures[3])).matches
    assert received[0].header == message.header and received[0].demonstration.endswith("demonstration.png")
    assert [c.label for c in received[0].correspondences] == list(pipeline.demonstration.labels)
    np.testing.assert_allclose([[c.pixel.x, c.pixel.y] for c in received[0].correspondences], matches.points, rtol=1e-5)
    positions = [[c.position.x, c.position.y, c.position.z] for c in received[0].correspondences]
    np.testing.assert_allclose(positions, matches.points_3d, rtol=1e-5)
    np.testing.assert_allclose([c.confidence for c in received[0].correspondences], matches.confidence, rtol=1e-5)
    np.testing.assert_allclose(
        [[c.demonstration_pixel.x, c.demonstration_pixel.y] for c in received[0].correspondences], pipeline.demonstration.points, rtol=1e-6
    )
    assert [c.visible for c in received[0].correspondences] == matches.visible.tolist()
    assert node.stop() == 0


def test_pictures_clouds_markers_and_pose_for_those_who_listen(world, listener, start):
    shared = Camera(listener, start(standin("align_node"), [*world.parameters, "diameter:=0.12"]))
    topics = {"overlay": Image, "points": PointCloud2, "markers": MarkerArray, "pose": PoseStamped}
    received = {topic: listener.collect(kind, topic) for topic, kind in topics.items()}
    listener.wait(lambda: all(listener.node.count_publishers(topic) for topic in topics), "waited for topics", shared.node)

    def all_there():
        if not all(received.values()):
            shared.ask(world.pictures[1])
        return all(received.values())

    listener.wait(all_there, "waited for all outputs", shared.node)
    alignment = library(world, diameter=0.12).process(ImageInput(world.pictures[1])).alignment
    assert alignment.scale_kind == "metric"
    np.testing.assert_array_equal(image_to_array(received["overlay"][0]), draw_alignment(world.pictures[1], alignment))
    cloud = np.frombuffer(bytes(received["points"][0].data), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(cloud, alignment.cloud_3d, rtol=1e-5)
    texts = [m.text for m in received["markers"][0].markers if m.text]
    assert texts == list(alignment.keypoint_names)
    np.testing.assert_allclose(rotation_of(received["pose"][0].pose.orientation), alignment.rotation, atol=1e-5)


def test_the_overlay_shows_the_object_on_the_sphere_of_a_mapper(world, listener, start, tmp_path):
    backbone, path = library(world).backbone, tmp_path / "mapper.safetensors"
    torch.manual_seed(0)
    save_spherical_maps(SphericalMaps(backbone.channels, 1), path, MapperFacts(backbone.name, False, ("ball",)))
    node = start(standin("align_node"), [*world.parameters, f"mapper:={path}"])
    overlays, camera = listener.collect(Image, "overlay"), Camera(listener, node)
    listener.wait(lambda: listener.node.count_publishers("overlay"), "waited for the topic", node)

    def shown():
        if not overlays:
            camera.ask(world.pictures[1])
        return overlays

    listener.wait(shown, "waited for the overlay", node)
    result = library(world, mapper=str(path)).process(ImageInput(world.pictures[1]))
    expected = draw_alignment(on_sphere(TrainedMapper(path), result.evidence), result.alignment)
    np.testing.assert_array_equal(image_to_array(overlays[0]), expected)
    assert (expected != draw_alignment(world.pictures[1], result.alignment)).mean() > 0.02
    assert node.stop() == 0


def test_a_recording_for_rerun_holds_every_image(world, listener, start, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed (extra rerun)")
    node = start(standin("align_node"), [*world.parameters, f"rerun:={tmp_path / 'run.rrd'}"])
    camera = Camera(listener, node)
    for picture in world.pictures[:2]:
        camera.ask(picture)
    assert node.stop() == 0
    content = (tmp_path / "run.rrd").read_bytes()
    assert content[:3] == b"RRF" and all(entity in content for entity in (b"/camera/image/keypoints", b"/cloud", b"/object"))


def test_compressed_images(world, listener, start):
    node = start(standin("align_node"), [*world.parameters, "image_transport:=compressed", "qos_overrides./semalign3d/image/compressed.subscription.reliability:=reliable"])  # fmt: skip  # noqa: E501
    camera = Camera(listener, node, CompressedImage, "image/compressed")
    data = cv2.imencode(".png", world.pictures[2][..., ::-1])[1].tobytes()
    message = camera.answer(camera.send(CompressedImage(format="png", data=data)))
    assert_same(message, library(world).process(ImageInput(world.pictures[2])).alignment)
    camera.send(CompressedImage(format="jpeg", data=b"\xff\xd8 not a picture"))
    listener.wait(lambda: "image: undecodable image" in node.output(), "waited for the log", node)
    camera.answer(camera.send(CompressedImage(format="png", data=data)))  # still alive
    assert node.stop() == 0


def test_malformed_input_is_counted_logged_once_and_survived(world, listener, start):
    camera = Camera(listener, start(standin("align_node"), [*world.parameters, "patience:=30.0"]))
    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")

    def counts():
        own = [status for array in diagnostics for status in array.status if status.name == "semalign3d/align"]
        return {value.key: value.value for value in own[-1].values} if own else {}

    rubbish = [
        (Image(height=0, width=0, encoding="rgb8"), "empty image"),
        (array_to_image(np.ones((24, 32), np.float32), "32FC1", Header()), "unsupported encoding"),
        (Image(height=480, width=640, encoding="rgb8", step=1920, data=bytes(5)), "truncated image"),
    ]
    for message, kind in rubbish:
        camera.send(message)
        listener.wait(lambda kind=kind: f"image: {kind}:" in camera.node.output(), f"waited for the log line of {kind}", camera.node)
        camera.send(message)
        listener.wait(lambda kind=kind: counts().get(f"problem: image: {kind}") == "2", f"waited for {kind} to be counted", camera.node)
    # Advertised only now: partners that stay silent while images come are no longer waited for.
    publishers = [listener.publisher(kind, topic) for topic, kind in {"camera_info": CameraInfo, "depth": Image, "mask": Image}.items()]
    listener.wait(lambda: all(one.get_subscription_count() for one in publishers), "waited for subscriptions", camera.node)
    infos, depths, masks = publishers
    for number in range(2):
        infos.publish(CameraInfo(header=header(), k=[float("nan")] * 9, height=240, width=240))
        sent = camera.send(array_to_image(world.pictures[number], "rgb8", Header()))
        depths.publish(array_to_image(np.ones((10, 10), np.float32), "32FC1", sent))
        masks.publish(array_to_image(np.ones((10, 10), np.float32), "32FC1", sent))
        assert_same(camera.answer(sent), library(world).process(ImageInput(world.pictures[number])).alignment)

    expected = {
        "problem: camera_info: not calibrated": "2",
        "problem: depth: another size than the image": "2",
        "problem: mask: unsupported encoding": "2",
    }
    listener.wait(lambda: expected.items() <= counts().items() and counts()["images processed"] == "2", "waited for counts", camera.node)
    problems = {key.removeprefix("problem: ") for key in counts() if key.startswith("problem: ")}
    assert len(problems) == 6, problems
    for kind in problems:
        assert camera.node.output().count(f"{kind}:") == 1, "one log line per kind of problem"
    assert camera.node.stop(signal.SIGTERM) == 0 and "Traceback" not in camera.node.output()


def test_services_change_the_category_and_refuse_a_wrong_one(world, shared):
    listener = shared.listener
    assert listener.call(Trigger, "align/reset", Trigger.Request(), shared.node).success
    wrong = listener.call(SetCategory, "align/set_category", SetCategory.Request(category="unicorn"), shared.node)
    assert not wrong.success and "unicorn" in wrong.message
    shared.ask(world.pictures[0])  # the old one stays
    for hostile in (str(world.model_path), "../chair", "x" * 255, "chair.safetensors", "\n", "\\chair"):
        refused = listener.call(SetCategory, "align/set_category", SetCategory.Request(category=hostile), shared.node)
        assert not refused.success and len(refused.message) < 1000
    right = listener.call(SetCategory, "align/set_category", SetCategory.Request(category="chair"), shared.node)
    assert right.success, right.message
    shared.ask(world.pictures[1])


def test_parameters_services_and_messages_agree_about_what_is_in_force(world, listener, start, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(world.model_path.read_bytes())
    demonstration = world.write_demonstration()
    node = start(standin("align_node"), [*world.parameters, f"demonstration:={demonstration}", "allow_model_paths:=true"])
    camera, received = Camera(listener, node), listener.collect(Correspondences, "correspondences")

    def get(*names):
        request = GetParameters.Request(names=list(names))
        return [value.string_value for value in listener.call(GetParameters, "align/get_parameters", request, node).values]

    def change(name, value):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return listener.call(SetParameters, "align/set_parameters", request, node).results[0]

    assert listener.call(SetCategory, "align/set_category", SetCategory.Request(category=str(copy)), node).success
    assert get("category", "demonstration") == [str(copy), ""]
    camera.ask(world.pictures[0])
    assert not received
    assert change("demonstration", str(demonstration)).successful
    assert not change("demonstration", str(tmp_path / "none.yaml")).successful
    camera.ask(world.pictures[1])
    listener.wait(lambda: received, "waited for correspondences", node)
    refused = change("category", "unicorn")
    assert not refused.successful and "unicorn" in refused.reason and get("category") == [str(copy)]
    assert "patience is 99" in change("patience", 99.0).reason or "range" in change("patience", 99.0).reason
    assert "read-only" in change("image_transport", "compressed").reason
    assert change("diameter", 0.2).successful
    assert camera.ask(world.pictures[1]).scale_kind == SemanticKeypoints.SCALE_METRIC
    assert node.stop() == 0


def test_images_that_come_too_fast_are_answered_by_the_motion_of_the_object(world, listener, start):
    camera = Camera(listener, start(standin("align_node"), [*world.parameters, "warm_start:=true", "predict:=true"]))
    picture = array_to_image(world.pictures[1], "rgb8", Header())

    def send():
        camera.sent += 1
        picture.header = Header(stamp=Time(sec=100 + camera.sent // 30, nanosec=33_000_000 * (camera.sent % 30)), frame_id="camera")
        camera.images.publish(picture)
        return picture.header

    looked = [camera.answer(send()) for _ in range(2)][-1]
    assert looked.found and not looked.predicted
    for _ in range(20):  # until an image reaches the node while it looks at another; those that its queue drops have no answer
        last = camera.answer([send() for _ in range(10)][-1])
        if any(m.predicted for m in camera.keypoints):
            break
    assert not last.predicted and any(m.predicted for m in camera.keypoints)
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in camera.keypoints]
    assert stamps == sorted(set(stamps))
    for message in camera.keypoints[2:]:
        assert message.found and message.object_id == looked.object_id and len(message.keypoints) == len(looked.keypoints)
        pixels, expected = ([[k.pixel.x, k.pixel.y] for k in m.keypoints] for m in (message, looked))
        np.testing.assert_allclose(pixels, expected, atol=12)  # looks differ by 4, which counts as motion
        assert not message.predicted or np.isnan(message.pose_covariance).all()


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        (["category:=unicorn"], "no model of category 'unicorn'"),
        (["category:=/nowhere/unicorn.safetensors"], "/nowhere/unicorn.safetensors does not exist"),
        (["demonstration:=/nowhere.yaml"], "/nowhere.yaml does not exist"),
        (["preset:=wonderful"], "unknown align preset 'wonderful'"),
        (["image_transport:=pigeon"], "choose one of raw, compressed"),
        (["warm_start:=7"], "warm_start must be bool"),
        (["patience:=-1.0"], "patience is -1.0, expected 0.0 to 60.0"),
        (["depth_extrinsics:=1 2"], "expected seven numbers"),
    ],
)
def test_the_node_refuses_to_start_without_a_traceback_and_says_what_to_do(world, start, parameters, named):
    name = parameters[0].partition(":=")[0]
    node = start(standin("align_node"), [p for p in world.parameters if not p.startswith(f"{name}:=")] + parameters)
    assert node.process.wait(DEADLINE) == 1
    assert named in node.output() and "Traceback" not in node.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_the_node_is_starting_end_it_with_exit_code_0(world, start, number):
    moments = [(executable, 0.0), (executable, 0.4), (standin, 0.2), (standin, 0.8), (standin, 1.5)]  # while importing ... while running
    for command, seconds in moments:
        node = start(command("align_node"), world.parameters if command is standin else [])  # the plain program has no stand-in
        while node.process.poll() is None and not catches_termination(node.process.pid):
            time.sleep(0.01)
        time.sleep(seconds)
        assert node.stop(number) == 0, f"{seconds} s after the start:\n{node.output()}"
        assert "Traceback" not in node.output()


def catches_termination(process_id):
    """Whether the program has taken over SIGTERM (Python itself does not): from then on a clean exit is ours to provide."""
    caught = next(line for line in Path(f"/proc/{process_id}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_the_shipped_executable_names_a_missing_build(start, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")  # the sources alone, without what colcon built
    node = start(executable("align_node"))
    assert node.process.wait(DEADLINE) == 1
    assert "colcon build" in node.output() and "Traceback" not in node.output()
