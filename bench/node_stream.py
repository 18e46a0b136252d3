"""A camera of 640 x 480 at 30 Hz over the default transport: does the node starve, fall behind, or grow?

    python bench/node_stream.py [--seconds 600]
    python bench/node_stream.py --frames 100000 --rate 150 --size 120 160     # a soak

A process align with the shipped model gets images from another process without any setting. Printed: images sent, received and lost,
answers, the largest pause between them, whether their stamps rise (newest frame wins), the growth of resident memory after the first
fifth, and the CPU time of receiving an image.
"""

import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 101)))

import numpy as np
import tyro
from diagnostic_msgs.msg import DiagnosticArray
from node_memory import resident_mebibytes
from ros_graph import Listener, NodeProcess, executable
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from semalign3d_core.datasets.synthetic import make_instance, orbit
from semalign3d_core.datasets.synthetic.writer import instance_range
from semalign3d_ros.conversions import array_to_image
from semalign3d_ros.msg import SemanticKeypoints


@dataclass
class Options:
    """Options of the benchmark."""

    seconds: float = 600.0
    """How long images are sent."""
    frames: int = 0
    """How many are sent, instead of a time."""
    rate: float = 30.0
    """Images per second."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the images in pixels."""
    category: str = "bottle"
    """Category to look for."""


def main(options):
    instance = make_instance(options.category, instance_range("test")[0])
    pictures = [r.image for r in orbit(instance, 180, options.size)]  # six seconds of video: an object that moves smoothly
    messages = [array_to_image(picture, "rgb8", Header(frame_id="camera")) for picture in pictures]
    sent, answers, memory, values = [], [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        node = NodeProcess(executable("align_node"), [f"category:={options.category}", "threads:=1"], Path(folder) / "node.log")
        listener = Listener("camera")
        images = listener.publisher(Image, "image")
        listener.subscribe(SemanticKeypoints, "keypoints", lambda m: answers.append((time.monotonic(), m)))
        listener.subscribe(DiagnosticArray, "/diagnostics", lambda m: values.update({v.key: v.value for v in m.status[0].values}))
        listener.wait(lambda: images.get_subscription_count() and listener.node.count_publishers("keypoints"), "waited for the node", node)
        begin, busy = time.monotonic(), -receiving_seconds(node.process.pid)
        while len(sent) < options.frames or not options.frames and time.monotonic() < begin + options.seconds:
            message = messages[len(sent) % len(messages)]
            message.header.stamp = listener.node.get_clock().now().to_msg()
            sent.append(time.monotonic())
            images.publish(message)
            if len(sent) % int(10 * options.rate) == 0:
                memory.append(resident_mebibytes(node.process.pid))
            listener.executor.spin_once(timeout_sec=0)
            while time.monotonic() < begin + len(sent) / options.rate:
                listener.executor.spin_once(timeout_sec=0.002)
        busy += receiving_seconds(node.process.pid)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            listener.executor.spin_once(timeout_sec=0.02)
        node.stop()
        listener.close()
    report(options, sent, answers, memory, values)
    print(f"receiving an image takes {1000 * busy / len(sent):.1f} ms of CPU time")
    return 0


def receiving_seconds(pid):
    """CPU seconds of the thread in which a node receives its messages: the first one."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(options, sent, answers, memory, values):
    stamps = np.array([m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for _, m in answers])
    took = 1000 * np.array([m.latency.sec + 1e-9 * m.latency.nanosec for _, m in answers])
    received, lost = values.get("images received"), values.get("images lost on the way")
    print(f"sent {len(sent)} in {sent[-1] - sent[0]:.0f} s, received {received}, lost on the way {lost}")
    pause = max(np.diff([at for at, _ in answers]), default=0)
    print(f"answers {len(answers)}, {len(answers) / (sent[-1] - sent[0]):.1f} Hz, largest pause {pause:.2f} s")
    rise = bool((np.diff(stamps) > 0).all())
    print(f"latency median {np.median(took):.0f} ms, 99 % {np.quantile(took, 0.99):.0f} ms; stamps rise: {rise}")
    if len(memory) >= 2:
        settled = memory[max(len(memory) // 5 - 1, 0)]
        growth = 100 * (memory[-1] / settled - 1)
        print(f"resident memory {settled:.0f} MiB after the first fifth, {memory[-1]:.0f} MiB at the end ({growth:+.1f} %)")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
