"""Simulated time: /clock of the source, places in a recording, and a node that measures by it."""

import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("semalign3d_ros.msg", reason="needs the built messages: make setup, . scripts/env.sh")

import numpy as np  # noqa: E402
from builtin_interfaces.msg import Time as Stamp  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rclpy.time import Time  # noqa: E402
from ros_graph import executable  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from standin import standin  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_ros.clock import NodeClock  # noqa: E402
from semalign3d_ros.conversions import array_to_image  # noqa: E402
from semalign3d_ros.msg import SemanticKeypoints  # noqa: E402

BEGIN, STEP, COUNT = 1_700_000_000, 200_000_000, 6  # of the recording: seconds, nanoseconds between images


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def write_recording(path, plugin="SQLITE3", compression=None, frames=False):
    """A bag of pictures whose stamps say their numbers; ``frames``: with /tf, and /tf_static once at the beginning."""
    rosbags = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags: pip install 'semalign3d[bags]'")
    from rosbags.typesys import Stores, get_typestore

    writer = rosbags.Writer(path / "bag", version=9, storage_plugin=getattr(rosbags.StoragePlugin, plugin))
    if compression:
        writer.set_compression(getattr(rosbags.CompressionMode, compression), rosbags.CompressionFormat.ZSTD)
    with writer:
        store = get_typestore(Stores.ROS2_JAZZY)
        topics = [writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store) for topic in ("/cam/color", "/cam/aligned_depth")]
        for number in range(COUNT):
            at = BEGIN * 10**9 + number * STEP
            header = Header(stamp=Stamp(sec=at // 10**9, nanosec=at % 10**9), frame_id="recorded")
            depth = array_to_image(np.full((8, 8), 1000 + number, np.uint16), "16UC1", header)
            writer.write(topics[1], at + 2 * STEP, serialize_message(depth))  # long after its image
            writer.write(topics[0], at, serialize_message(array_to_image(np.full((8, 8, 3), number, np.uint8), "rgb8", header)))
            if frames:
                write_frames(writer, at, header, first=number == 0)
    return path / "bag"


def write_frames(writer, at, header, first):
    from geometry_msgs.msg import TransformStamped
    from rosbags.typesys import Stores, get_typestore
    from tf2_msgs.msg import TFMessage

    known = {connection.topic: connection for connection in writer.connections}
    for topic, child in (("/tf", "base"), ("/tf_static", "camera")):
        if topic not in known:
            known[topic] = writer.add_connection(topic, "tf2_msgs/msg/TFMessage", typestore=get_typestore(Stores.ROS2_JAZZY))
        if first or topic == "/tf":
            one = TransformStamped(header=Header(stamp=header.stamp, frame_id="map"), child_frame_id=child)
            writer.write(known[topic], at, serialize_message(TFMessage(transforms=[one])))


@pytest.mark.parametrize(
    ("plugin", "compression", "alone"),
    [
        ("SQLITE3", "MESSAGE", "*.db3"),
        ("SQLITE3", "FILE", "*.zstd"),
        ("SQLITE3", "FILE", ""),
        ("MCAP", "STORAGE", "*.mcap"),
        ("MCAP", "FILE", "*.zstd"),
    ],
)  # fmt: skip
def test_compressed_recordings_are_read_whole_and_as_single_files(tmp_path, plugin, compression, alone):
    from semalign3d_ros.sources.open import open_source
    from semalign3d_ros.sources.parameters import ImageSourceParameters

    recording = write_recording(tmp_path, plugin, compression)
    if alone:
        (file,) = recording.glob(alone)
        recording = file.rename(tmp_path / file.name)
    source = open_source(ImageSourceParameters(source=str(recording)), lambda kind, text: None)
    moments = list(source.moments())
    assert source.epoch == BEGIN * 10**9 and [moment.time for moment in moments] == pytest.approx([0.2 * n for n in range(COUNT)])
    for number, moment in enumerate(moments):
        assert bytes(moment.messages["image"].data)[0] == number
        assert int.from_bytes(bytes(moment.messages["depth"].data)[:2], "little") == 1000 + number
    assert [bytes(m.messages["image"].data)[0] for m in source.moments(0.5)] == [3, 4, 5]


def test_a_broken_compressed_file_is_named(tmp_path):
    from semalign3d_core.runtime.errors import FileFormatError
    from semalign3d_ros.sources.open import open_source
    from semalign3d_ros.sources.parameters import ImageSourceParameters

    (file,) = write_recording(tmp_path, "MCAP", "FILE").glob("*.zstd")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FileFormatError, match=r"bag\S*zstd"):
        open_source(ImageSourceParameters(source=str(file)), lambda kind, text: None)


def test_a_recording_is_played_by_its_own_clock_from_any_place(listener, start, tmp_path):
    recording = write_recording(tmp_path)
    images, clock = listener.collect(Image, "image"), []
    listener.subscribe(Clock, "/clock", lambda message: clock.append((len(images), nanoseconds(message.clock) - BEGIN * 10**9)))
    node = start(executable("image_source_node"), [f"source:={recording}", "clock:=true", "loop:=true", "start:=0.5"])
    listener.wait(lambda: len(images) >= 5, "waited for images", node)
    assert [bytes(image.data)[0] for image in images[:5]] == [3, 4, 5, 3, 4]
    request = SetParameters.Request(parameters=[Parameter("start", value=0.15).to_parameter_msg()])
    assert listener.call(SetParameters, "image_source/set_parameters", request, node).results[0].successful
    before = len(images)
    listener.wait(lambda: any(bytes(image.data)[0] == 1 for image in images[before:]), "waited for the other place", node)
    assert node.stop() == 0
    shown = [seconds for _, seconds in clock]
    assert min(shown) >= STEP and max(shown) <= (COUNT - 1) * STEP
    between = [seconds for number, seconds in clock if number == 1]  # after the first image
    assert between == sorted(between) and len(set(between)) >= 3 and min(between) >= 3 * STEP
    assert all(nanoseconds(image.header.stamp) >= BEGIN * 10**9 for image in images)


def test_the_clock_only_goes_forward_and_tells_when_the_time_goes_back():
    import rclpy

    context, restarts = rclpy.Context(), []
    rclpy.init(context=context)
    node = rclpy.create_node("simulated", context=context, parameter_overrides=[Parameter("use_sim_time", value=True)])
    clock = NodeClock(node, lambda: restarts.append(1))

    def at(seconds):
        node.get_clock().set_ros_time_override(Time(seconds=seconds, clock_type=node.get_clock().clock_type))
        return clock()

    first = at(100.0)
    assert at(100.4) - first == pytest.approx(0.4, abs=1e-6)
    time.sleep(0.05)
    assert clock() - first == pytest.approx(0.4, abs=1e-6), "the seconds of the machine do not count"
    before = at(130.0)
    assert before - first == pytest.approx(30.0, abs=1e-6) and not restarts
    again = at(10.0)
    assert restarts == [1] and again >= before
    assert at(10.5) - again == pytest.approx(0.5, abs=1e-6)
    assert clock.condition() == {}
    time.sleep(1.2)
    assert "stands still" in "".join(clock.condition())
    assert 0.1 < clock() - again - 0.5 < 1.2, "an image does not wait for ever"
    clock.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_patience_and_latency_are_those_of_the_simulated_clock(world, listener, start):
    answers, values = listener.collect(SemanticKeypoints, "keypoints"), {}
    listener.subscribe(DiagnosticArray, "/diagnostics", lambda message: values.update({v.key: v.value for v in message.status[0].values}))
    node = start(standin("align_node"), [*world.parameters, "use_sim_time:=true", "patience:=2.0"])
    images, depths = listener.publisher(Image, "image"), listener.publisher(Image, "depth")
    clock = listener.publisher(Clock, "/clock")
    listener.wait(lambda: images.get_subscription_count() and depths.get_subscription_count(), "waited for the node", node)
    listener.wait(lambda: "condition: clock: silent" in values, "waited for diagnostics", node)
    now = [1000.0]

    def let_pass(simulated, seconds):
        """Simulated seconds pass while those of the machine do."""
        begin, before = time.monotonic(), now[0]
        while (passed := time.monotonic() - begin) < seconds:
            now[0] = before + simulated * passed / seconds
            clock.publish(Clock(clock=Time(seconds=now[0]).to_msg()))
            listener.executor.spin_once(timeout_sec=0.02)

    let_pass(0.2, 1.0)
    sent = Header(stamp=Time(seconds=now[0]).to_msg(), frame_id="camera")
    images.publish(array_to_image(world.pictures[1], "rgb8", sent))
    let_pass(0.3, 3.0)
    assert not answers, "the patience of the machine's clock has passed, that of the simulation has not"
    let_pass(3.0, 0.5)
    end = time.monotonic() + 60
    while not answers and time.monotonic() < end:
        let_pass(0.01, 0.2)
    assert answers and answers[0].header == sent
    assert 2.0 <= answers[0].latency.sec + 1e-9 * answers[0].latency.nanosec < 10.0
    listener.wait(lambda: float(values.get("latency since its stamp in ms", "nan")) >= 2000, "waited for diagnostics", node)
    assert float(values["latency since its stamp in ms"]) < 10_000 and values["clock"] == "simulated"
    assert node.stop() == 0
