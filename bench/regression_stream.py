"""What bench/regression.py asks the node.

``regression_stream.py TREE WORLD`` starts the node of the checkout TREE, sends it images of the data set WORLD over DDS and prints its
answers as JSON: a moving image with warm start and a demonstration, then images with camera, depth and mask.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from PIL import Image
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from semalign3d_ros.msg import Correspondences, SemanticKeypoints

DEADLINE = 180  # seconds; nothing waits for it unless something is broken


class Stream:
    """Starts the node align and asks it image by image; answers are plain numbers."""

    def __init__(self, tree: Path, log: Path, parameters: list[str], partners: tuple[str, ...] = ()) -> None:
        rclpy.init()
        self.node, self.received = rclpy.create_node("regression", namespace="semalign3d"), defaultdict(dict)
        for kind, topic in ((SemanticKeypoints, "keypoints"), (Correspondences, "correspondences"), (PoseStamped, "pose")):
            self.node.create_subscription(kind, topic, lambda message, topic=topic: self._store(topic, message), 20)
        kinds = {"image": ImageMessage, "camera_info": CameraInfo, "depth": ImageMessage, "mask": ImageMessage}
        self.publishers = {topic: self.node.create_publisher(kinds[topic], topic, 10) for topic in ("image", *partners)}
        reliable = [f"qos_overrides./semalign3d/{topic}.subscription.reliability:=reliable" for topic in kinds]
        arguments = [part for parameter in [*parameters, *reliable, "threads:=1", "patience:=60.0"] for part in ("-p", parameter)]
        command = [sys.executable, str(tree / "scripts" / "align_node"), "--ros-args", *arguments]
        self.log = log
        with open(log, "w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        self.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()), "subscriptions")
        self.wait(lambda: all(self.node.count_publishers(topic) for topic in ("keypoints", "correspondences", "pose")), "publishers")
        time.sleep(2)  # the node, too, must have found all publishers

    def _store(self, topic: str, message: Any) -> None:
        self.received[message.header.stamp.sec][topic] = _plain(message)

    def ask(self, number: int, messages: dict[str, Any]) -> dict:
        """Sends the messages {topic: message} of one moment and returns {topic: answer}."""
        for topic, message in messages.items():
            message.header.frame_id, message.header.stamp.sec = "camera", number  # seconds apart: nothing fits to two images
            self.publishers[topic].publish(message)
        found = self.received[number]
        self.wait(lambda: "keypoints" in found, f"the answer to image {number}")
        self.spin_until(lambda: "pose" in found, 5)  # there is none where the object was not found
        return found

    def close(self) -> None:
        """Ends the node."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        rclpy.shutdown()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Lets messages arrive until ``condition()``; raises with the node's output if that does not come true."""
        self.spin_until(condition, DEADLINE)
        if not condition():
            self.process.kill()
            raise RuntimeError(f"waited in vain for {what}:\n{self.log.read_text()}")

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Lets messages arrive until ``condition()``, for at most so long and while the node lives."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end and self.process.poll() is None:
            rclpy.spin_once(self.node, timeout_sec=0.02)


def _plain(message: object) -> object:
    """A ROS message as JSON."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: _plain(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if isinstance(message, (list, tuple, np.ndarray)):
        return [_plain(value) for value in message]
    return message.item() if isinstance(message, np.generic) else message


def moving_image(tree: Path, world: Path, folder: Path) -> dict:
    """Answers to an image that moves, then to another one: warm start and correspondences to a demonstration."""
    images = sorted((world / "JPEGImages" / "chair").glob("test_*.jpg"))
    demonstration = folder / "demonstration.yaml"
    demonstration.write_text(f"image: {images[2].resolve()}\npoints:\n  here: [120, 128]\n  there: [140, 150]\n")
    parameters = ["category:=chair", "warm_start:=true", f"demonstration:={demonstration}"]
    frames = [np.roll(np.array(Image.open(images[0])), 3 * step, axis=1) for step in range(4)] + [np.array(Image.open(images[3]))]
    stream, found = Stream(tree, folder / "moving.log", parameters), {}
    for number, rgb in enumerate(frames, 1):
        answer = stream.ask(number, {"image": _image_message(rgb, "rgb8")})
        stream.wait(lambda answer=answer: "correspondences" in answer, f"correspondences of image {number}")
        found[str(number)] = dict(answer)
    stream.close()
    return found


def with_partners(tree: Path, world: Path, folder: Path) -> dict:
    """Answers to images with camera, depth and mask."""
    images = sorted((world / "JPEGImages" / "mug").glob("test_*.jpg"))
    stream = Stream(tree, folder / "partners.log", ["category:=mug"], ("camera_info", "depth", "mask"))
    found = {str(number): dict(stream.ask(number, _moment(world, images[number]))) for number in range(1, 4)}
    stream.close()
    return found


def _moment(world: Path, path: Path) -> dict:
    rgb, name = np.array(Image.open(path)), f"{path.parent.name}/{path.stem}"
    height, width = rgb.shape[:2]
    inverse = np.load(world / "Depth" / f"{name}.npz")["depth"]
    depth = (1 / inverse.clip(0.1, None)).astype(np.float32)  # any depth will do, the numbers only have to stay the same
    mask = (np.array(Image.open(world / "Segmentation" / f"{name}.png")) > 0).astype(np.uint8) * 255
    info = CameraInfo(height=height, width=width, k=[1.2 * width, 0, width / 2, 0, 1.2 * width, height / 2, 0, 0, 1])
    # image comes last: what belongs to it is there
    return {
        "camera_info": info,
        "depth": _image_message(depth, "32FC1"),
        "mask": _image_message(mask, "mono8"),
        "image": _image_message(rgb, "rgb8"),
    }


def _image_message(array: np.ndarray, encoding: str) -> ImageMessage:
    height, width = array.shape[:2]
    return ImageMessage(height=height, width=width, encoding=encoding, step=array.nbytes // height, data=array.tobytes())


def main(tree: Path, world: Path) -> None:
    """Prints all answers."""
    with tempfile.TemporaryDirectory() as folder:
        parts = {"moving image": moving_image, "camera, depth and mask": with_partners}
        print(json.dumps({name: part(tree, world, Path(folder)) for name, part in parts.items()}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
