"""The node image_source: real files in, messages over DDS out, checked by value."""

import signal

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from ros_graph import DEADLINE, executable  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
from semalign3d_ros.conversions import array_to_image, compressed_to_rgb, image_to_rgb  # noqa: E402
from semalign3d_ros.inputs.calibration import calibration_from_info, camera_to_info  # noqa: E402
from semalign3d_ros.msg import SemanticKeypoints  # noqa: E402
from semalign3d_ros.sources.open import open_source  # noqa: E402
from semalign3d_ros.sources.parameters import ImageSourceParameters  # noqa: E402


def pictures(count=4, height=48, width=64):
    """Smooth pictures that survive lossy compression, told apart by their brightness."""
    ramp = np.linspace(0, 90, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    return [np.uint8(np.broadcast_to(ramp, (height, width, 3)) + 30 * number + np.array([0, 10, 20])) for number in range(count)]


def play(listener, start, parameters, transport=Image, topic="image"):
    """(images, infos) that a source published, and its process, after it ended by itself."""
    images, infos = listener.collect(transport, topic), listener.collect(CameraInfo, "camera_info")
    node = start(executable("image_source_node"), ["rate:=50.0", *parameters])
    listener.wait(lambda: node.process.poll() is not None, "waited for the end of the source")
    for _ in range(20):
        listener.executor.spin_once(timeout_sec=0.02)
    return images, infos, node


def test_a_folder_is_published_in_order_with_camera_info(listener, start, tmp_path):
    made = pictures()
    for number, rgb in enumerate(made):
        cv2.imwrite(str(tmp_path / f"{number}.{'png' if number % 2 else 'jpg'}"), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    (tmp_path / "1a.jpg").write_bytes(b"\xff\xd8 broken")
    (tmp_path / "notes.txt").write_text("not an image")
    images, infos, node = play(listener, start, [f"source:={tmp_path}", "focal_length:=80.0", "frame_id:=eye"])
    assert node.process.returncode == 0 and "1a.jpg" in node.output() and "Traceback" not in node.output()
    assert len(images) == len(infos) == 4
    for number, (image, info) in enumerate(zip(images, infos, strict=True)):
        assert np.abs(image_to_rgb(image).astype(int) - made[number]).mean() < (2 if number % 2 == 0 else 1e-9)
        assert image.header == info.header and image.header.frame_id == "eye" and image.header.stamp.sec > 0
        np.testing.assert_allclose(calibration_from_info(info, 48, 64).camera.matrix_pixels()[[0, 1], [0, 1]], [80, 80], rtol=1e-6)


def test_a_video_is_published_picture_by_picture_compressed_on_request(listener, start, tmp_path):
    made = pictures(6)
    writer = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for rgb in made:
        writer.write(rgb[..., ::-1])
    writer.release()
    parameters = [f"source:={tmp_path / 'video.avi'}", "image_transport:=compressed"]
    images, infos, node = play(listener, start, parameters, CompressedImage, "image/compressed")
    assert node.process.returncode == 0 and not infos
    assert len(images) == 6
    for image, rgb in zip(images, made, strict=True):
        assert np.abs(compressed_to_rgb(image).astype(int) - rgb).mean() < 6


def write_bag(path, plugin, depth_late=False):
    rosbags = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags: pip install 'semalign3d[bags]'")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    camera = PinholeCamera.from_pixels(np.array([70.0, 0, 31, 0, 71, 24, 0, 0, 1]), 48, 64)
    with rosbags.Writer(path, version=9, storage_plugin=getattr(rosbags.StoragePlugin, plugin)) as writer:

        def connection(topic, kind):
            return writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=store)

        depth, image, info = connection("/cam/depth", "Image"), connection("/cam/color", "Image"), connection("/cam/info", "CameraInfo")
        for number, rgb in enumerate(pictures(3)):
            header = Header(stamp=Time(sec=5, nanosec=number * 10**7), frame_id="recorded")
            at = number * 10**7
            writer.write(info, at, serialize_message(camera_to_info(camera, header)))
            writer.write(
                depth,
                at + (2 * 10**7 + 1 if depth_late else 0),
                serialize_message(array_to_image(np.full((48, 64), 1000 + number, np.uint16), "16UC1", header)),
            )
            writer.write(image, at, serialize_message(array_to_image(rgb[..., ::-1], "bgr8", header)))


@pytest.mark.parametrize("plugin", ["SQLITE3", "MCAP"])
def test_a_recorded_bag_is_published_as_it_was_recorded(listener, start, tmp_path, plugin):
    write_bag(tmp_path / "bag", plugin)
    depths = listener.collect(Image, "depth")
    images, infos, node = play(listener, start, [f"source:={tmp_path / 'bag'}", "depth_topic:=/cam/depth"])
    assert node.process.returncode == 0, node.output()
    assert len(images) == len(infos) == len(depths) == 3
    for number, (image, info, depth) in enumerate(zip(images, infos, depths, strict=True)):
        assert image.encoding == "bgr8" and image.header.frame_id == "recorded" and image.header.stamp.nanosec == number * 10**7
        np.testing.assert_array_equal(image_to_rgb(image), pictures(3)[number])
        assert info.header == depth.header == image.header and info.k[0] == 70
        assert np.frombuffer(bytes(depth.data), np.uint16)[0] == 1000 + number


@pytest.mark.parametrize(("plugin", "suffix"), [("SQLITE3", "db3"), ("MCAP", "mcap")])
def test_a_single_file_of_a_recording_is_read_and_depth_belongs_to_its_image(tmp_path, plugin, suffix):
    write_bag(tmp_path / "bag", plugin, depth_late=True)
    (file,) = (tmp_path / "bag").glob(f"*.{suffix}")
    moved = file.rename(tmp_path / f"alone.{suffix}")
    parameters = ImageSourceParameters(source=str(moved), image_topic="/cam/color", depth_topic="/cam/depth")
    moments = list(open_source(parameters, lambda kind, text: None).moments())
    assert len(moments) == 3
    for number, moment in enumerate(moments):
        assert moment.messages["depth"].header == moment.messages["image"].header
        assert np.frombuffer(bytes(moment.messages["depth"].data), np.uint16)[0] == 1000 + number


def test_a_loop_goes_on_until_a_signal_comes(listener, start, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), pictures(1)[0])
    images = listener.collect(Image, "image")
    node = start(executable("image_source_node"), [f"source:={tmp_path}", "rate:=50.0", "loop:=true"])
    listener.wait(lambda: len(images) >= 5, "waited for images", node)
    assert node.stop(signal.SIGTERM) == 0 and "Traceback" not in node.output()


def test_the_next_image_waits_for_the_answer(listener, start, tmp_path):
    for number, rgb in enumerate(pictures(3)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rgb)
    images, answers = listener.collect(Image, "image"), listener.publisher(SemanticKeypoints, "keypoints")
    node = start(executable("image_source_node"), [f"source:={tmp_path}", "rate:=1000.0", "wait_for:=keypoints"])
    for number in range(3):
        listener.wait(lambda count=number + 1: len(images) >= count and answers.get_subscription_count(), "waited for an image", node)
        for _ in range(10):
            listener.executor.spin_once(timeout_sec=0.02)
        assert len(images) == number + 1, "an image came without an answer to the one before"
        answers.publish(SemanticKeypoints(header=images[number].header))
    listener.wait(lambda: node.process.poll() is not None, "waited for the end")
    assert node.process.returncode == 0


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ([], "the parameter source is empty"),
        (["source:=/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["source:='99'"], "webcam 99 cannot be opened"),
        (["source:={file}"], "is not a video that OpenCV can read"),
        (["source:={folder}", "camera:={file}"], "is not a camera calibration"),
    ],
)
def test_a_source_that_cannot_be_used_ends_with_a_message(start, tmp_path, parameters, named):
    (tmp_path / "file.bin").write_bytes(b"nothing of the kind")
    cv2.imwrite(str(tmp_path / "a.png"), pictures(1)[0])
    parameters = [p.format(file=tmp_path / "file.bin", folder=tmp_path) for p in parameters]
    node = start(executable("image_source_node"), parameters)
    assert node.process.wait(DEADLINE) == 1
    assert named in node.output() and "Traceback" not in node.output()
