"""Hostile messages and calls for a live node: on every topic that it subscribes to, and every service of its own.

    python bench/fuzz_node.py [--messages 10000] [--seed 0] [--category bottle] [--compressed]

The topics, services, their types and the node's parameters are asked of the running node. Fields are filled at random: texts of any
length and alphabet, numbers that mean nothing, images whose sizes, encodings and bytes contradict each other. Now and then the node is
asked something that it must answer. In the end its parameters are set back, and it must say of a picture what it said before. Exit code 1
if it ended, did not answer, held 500 MB more than at the beginning at any moment, answered otherwise, or printed a traceback.
"""

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import numpy as np
from node_memory import resident_mebibytes
from PIL import Image as Picture
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from ros_graph import AlignSession
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool, Trigger

from semalign3d_core.datasets.synthetic import make_instance, orbit
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_ros.declared import descriptors
from semalign3d_ros.parameters import AlignParameters

SECONDS, MEBIBYTES = 2.0, 500.0
SAME = 0.5  # pixels by which an answer may differ afterwards
TEXTS = ("", "x", "bottle", "é" * 300, "a" * 255, "../../etc/passwd", "/dev/zero", "\n\t\x7f", "中文", "{}", "nan", "rgb8; jpeg")
ENCODINGS = ("rgb8", "bgr8", "mono8", "mono16", "16UC1", "32FC1", "yuv422", "yuv422_yuy2", "nv12", "bayer_rggb8", "rgba8", "rubbish")
SKIPPED = ("/parameter_events",)  # not the node's own


def message_class(name: str) -> type:
    """The class of ``package/msg/Name`` or ``package/srv/Name``."""
    package, kind, short = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), short)


def random_message(kind: type, rng: np.random.Generator, depth: int = 0):
    """A message of that class with anything in its fields; images are sometimes almost right."""
    message = kind()
    for name, field in kind.get_fields_and_field_types().items():
        if rng.random() < 0.8:
            with contextlib.suppress(AssertionError, OverflowError, TypeError, ValueError):  # not even a message
                setattr(message, name, _value(field, rng, depth))
    if kind.__name__ in ("Image", "CompressedImage") and rng.random() < 0.8:
        _almost_right(message, rng)
    return message


def _value(field, rng, depth):
    if field.startswith("sequence<") or field.endswith("]"):
        inner = field[9:-1].split(",")[0] if field.startswith("sequence<") else field[: field.index("[")]
        fixed = int(field[field.index("[") + 1 : -1]) if field.endswith("]") else None
        count = int(rng.choice([0, 1, 3, 40])) if fixed is None else fixed
        return [_value(inner, rng, depth + 1) for _ in range(count)]
    if "/" in field:
        return random_message(message_class(field.replace("/", "/msg/")), rng, depth + 1)
    if field.startswith(("string", "wstring")):
        return str(rng.choice(TEXTS)) if depth or rng.random() < 0.98 else "y" * 10_000_000  # one long text per message
    if field in ("float", "double"):
        return float(rng.choice([0.0, 1.0, -1.0, 1e39 if field == "double" else 1e38, float("nan"), float("inf"), 500.0, 1e-30]))
    if field == "boolean":
        return bool(rng.random() < 0.5)
    if field == "octet":
        return bytes([int(rng.integers(256))])
    bits = int("".join(filter(str.isdigit, field)))
    signed = not field.startswith("u")
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return int(np.clip(int(rng.choice([0, 1, 2, 3, 240, 241, 65535])) if rng.random() < 0.8 else most, least, most))


def _almost_right(message, rng):
    message.header.stamp.sec, message.header.stamp.nanosec = int(rng.integers(0, 3)), 0
    if hasattr(message, "encoding"):
        message.encoding = str(rng.choice(ENCODINGS))
        message.width, message.height = (int(rng.choice([1, 2, 7, 64, 239, 240])) for _ in range(2))
        message.step = message.width * int(rng.choice([1, 2, 3, 4, 0]))
        size = message.step * message.height if rng.random() < 0.8 else int(rng.integers(0, 1000))
        message.data = rng.bytes(size)
        return
    stream = io.BytesIO()
    pixels = rng.integers(0, 255, (int(rng.integers(1, 60)), int(rng.integers(1, 60)), 3), dtype=np.uint8)
    Picture.fromarray(pixels).save(stream, str(rng.choice(["PNG", "JPEG", "BMP"])))
    data = bytearray(stream.getvalue())
    for _ in range(int(rng.integers(0, 20))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    message.format, message.data = str(rng.choice(TEXTS)), bytes(data)


def inputs_of(listener, name: str = "align", namespace: str = "/semalign3d") -> tuple[dict[str, type], dict[str, type]]:
    """({topic: class} that the node subscribes to, {service: class} of its own)."""
    topics = {t: k[0] for t, k in listener.node.get_subscriber_names_and_types_by_node(name, namespace) if t not in SKIPPED}
    services = {s: k[0] for s, k in listener.node.get_service_names_and_types_by_node(name, namespace)}
    own = ("semalign3d_ros/srv", "std_srvs", "rcl_interfaces")  # the action is left to its client
    ours = {s: message_class(k) for s, k in services.items() if k.startswith(own)}
    return {t: message_class(k) for t, k in topics.items()}, ours


def attack(listener, node, messages: int, seed: int = 0) -> Counter:
    """Sends ``messages`` messages and, for every tenth, a call; returns {what was sent: how often}. AssertionError: the node gave way."""
    rng = np.random.default_rng(seed)
    known = listener.node.get_node_names_and_namespaces
    listener.wait(lambda: ("align", "/semalign3d") in known(), "waited for the node's name", node)
    own = ("set_category", "set_demonstration", "reset", "enable")  # which come after the services that every node has
    listener.wait(lambda: {*own} <= {s.rpartition("/")[2] for s in inputs_of(listener)[1]}, "waited for the node's services", node)
    listener.wait(lambda: all(inputs_of(listener)), "waited for the node's topics", node)
    topics, services = inputs_of(listener)
    publishers = {topic: listener.publisher(kind, topic) for topic, kind in topics.items()}
    clients = {name: listener.node.create_client(kind, name) for name, kind in services.items()}
    sent: Counter = Counter()
    start = resident_mebibytes(node.process.pid)
    for number in range(messages):
        topic = list(topics)[number % len(topics)]
        publishers[topic].publish(random_message(topics[topic], rng))
        sent[topic] += 1
        listener.executor.spin_once(timeout_sec=0)
        if number % 10 == 0:
            name = list(services)[int(rng.integers(len(services)))]
            request = random_message(services[name].Request, rng)
            for parameter in getattr(request, "parameters", ()):
                if rng.random() < 0.5:  # one that the node has
                    parameter.name = str(rng.choice(list(descriptors(AlignParameters))))
            clients[name].call_async(request)
            sent[name] += 1
        if number % 50 == 49 or number == messages - 1:
            began = time.monotonic()
            answer = listener.call(Trigger, "align/reset", Trigger.Request(), node)
            waited = time.monotonic() - began
            assert answer.success and waited < 10 * SECONDS, f"the node took {waited:.1f} s to answer after {number + 1} messages"
            grown = resident_mebibytes(node.process.pid) - start
            assert grown < MEBIBYTES, f"the node holds {grown:.0f} MiB more after {number + 1} messages"
            sent["slow answers (above 2 s)"] += waited > SECONDS
    return sent


class Question:
    """A picture that the node is asked about, with all its parameters as they are now."""

    def __init__(self, session: AlignSession, category: str) -> None:
        self._session = session
        self._picture = next(iter(orbit(make_instance(category, instance_range("test")[0]), 4, 240))).image
        self._infos = session.listener.publisher(CameraInfo, "camera_info")
        names = [name for name, one in descriptors(AlignParameters).items() if not one.read_only]
        values = self._call(GetParameters, "get_parameters", names=names).values
        self._parameters = [Parameter(name=name, value=value) for name, value in zip(names, values, strict=True)]

    def answer(self) -> np.ndarray:
        """Keypoints (K, 2) in pixels that the node finds with these parameters, in an image with a camera of its own."""
        result = self._call(SetParametersAtomically, "set_parameters_atomically", parameters=self._parameters).result
        assert result.successful, result.reason
        assert self._call(SetBool, "enable", data=True).success and self._call(Trigger, "reset").success
        side = float(len(self._picture))
        camera = [1.2 * side, 0.0, side / 2, 0.0, 1.2 * side, side / 2, 0.0, 0.0, 1.0]
        self._infos.publish(CameraInfo(width=int(side), height=int(side), k=camera))
        found = self._session.ask(self._picture)
        return np.array([[point.pixel.x, point.pixel.y] for point in found.keypoints])

    def _call(self, kind, name, **fields):
        return self._session.listener.call(kind, f"align/{name}", kind.Request(**fields), self._session.node)


def main() -> int:
    """Attacks a node and prints what was sent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--category", default="bottle")
    parser.add_argument("--compressed", action="store_true", help="images and depth come compressed")
    options = parser.parse_args()
    parameters, transport = [f"category:={options.category}"], "raw"
    if options.compressed:
        parameters, transport = [*parameters, "depth_transport:=compressedDepth"], "compressed"
    with tempfile.TemporaryDirectory() as folder, AlignSession(parameters, Path(folder) / "node.log", transport=transport) as session:
        question = Question(session, options.category)
        before = question.answer()
        sent = attack(session.listener, session.node, options.messages, options.seed)
        after = question.answer()
        output, process = session.node.output(), session.node.process.pid
        memory, peak = resident_mebibytes(process), resident_mebibytes(process, "VmHWM")
    for what, count in sorted(sent.items()):
        print(f"{what:60s} {count:6d}")
    same = before.shape == after.shape and np.abs(before - after).max() < SAME
    print(f"{options.messages} messages; node alive, {memory:.0f} MiB, {peak:.0f} MiB at most; {output.count('Traceback')} tracebacks")
    print(f"a picture's answer is {'the same as before' if same else 'another one than before'}")
    if "Traceback" in output:
        print(output[output.index("Traceback") :][:3000])
    return 0 if same and "Traceback" not in output else 1


if __name__ == "__main__":
    sys.exit(main())
