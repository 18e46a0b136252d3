"""Recorded bags as a source of images."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingDependencyError
from semalign3d_ros.conversions import BadMessage, decompress_depth
from semalign3d_ros.parameters import ImageSourceParameters
from semalign3d_ros.sources.moments import Calibration, Moment, Problem

IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CAMERA_TYPE = "sensor_msgs/msg/CameraInfo"
SAME = 0.02  # seconds between the stamps of an image and of its depth image
WAITING = 8  # images that wait for their depth image


class Bag:
    """Images, and if there are any CameraInfo and depth images, of a recorded rosbag2 (sqlite3 or mcap)."""

    period = None

    def __init__(self, path: Path, parameters: ImageSourceParameters, camera: Calibration, problem: Problem) -> None:
        self._path, self._camera, self._problem = path, camera, problem
        with self._open() as reader:
            topics = {connection.topic: connection.msgtype for connection in reader.connections}
        images = [topic for topic, kind in topics.items() if kind in IMAGE_TYPES and topic != parameters.depth_topic]
        colour = [topic for topic in images if "depth" not in topic] or images
        self._image = self._choose(parameters.image_topic, colour, topics, "image")
        if not self._image:
            raise InputError(f"{path} holds no images; its topics are {', '.join(topics)}")
        beside = [topic for topic, kind in topics.items() if kind == CAMERA_TYPE]
        beside.sort(key=lambda topic: -len(_common(topic, self._image)))  # the one of the same camera
        self._roles = {
            self._image: "image",
            self._choose(parameters.camera_topic, beside, topics, "CameraInfo"): "camera_info",
            self._choose(parameters.depth_topic, [], topics, "depth image"): "depth",
        }
        self.roles = camera.roles | {role for topic, role in self._roles.items() if topic}
        self._types = {topic: IMAGE_TYPES.get(topics[topic], CameraInfo) for topic in self._roles if topic}

    def __iter__(self) -> Iterator[Moment]:
        """Every image with the CameraInfo before it and the depth image of its stamp, which may have been recorded later."""
        start, info, depths, waiting = None, None, {}, deque[tuple[int, dict[str, Any]]]()
        with_depth = "depth" in self.roles
        for role, time, message in self._recorded():
            if role == "camera_info":
                info = message
            elif role == "depth":
                depths[_seconds(message)] = message
            else:
                start = time if start is None else start
                waiting.append((time - start, {"image": message} if info is None else {"camera_info": info, "image": message}))
            while waiting and (not with_depth or len(waiting) > WAITING or _nearest(depths, waiting[0][1]["image"]) is not None):
                yield self._moment(*waiting.popleft(), depths)
        for time, messages in waiting:
            yield self._moment(time, messages, depths)

    def _recorded(self):
        """(role, time, message) in the order of the recording."""
        with self._open() as reader:
            wanted = [connection for connection in reader.connections if connection.topic in self._types]
            for connection, time, data in reader.messages(connections=wanted):
                role, message = self._roles[connection.topic], deserialize_message(bytes(data), self._types[connection.topic])
                if role == "depth" and isinstance(message, CompressedImage):
                    try:
                        message = decompress_depth(message)
                    except BadMessage as error:
                        self._problem(f"depth: {error.kind}", f"{connection.topic}: {error}; going on without")
                        continue
                yield role, time, message

    def _moment(self, time, messages, depths):
        stamp = _nearest(depths, messages["image"])
        if stamp is not None:
            messages = {"depth": depths[stamp], **messages}
            for older in [other for other in depths if other <= stamp]:
                del depths[older]
        return Moment(time * 1e-9, self._with_camera(messages))

    def _with_camera(self, messages):
        info = None if "camera_info" in messages or not isinstance(messages["image"], Image) else self._camera.info
        found = info and info(messages["image"].height, messages["image"].width)
        return {"camera_info": found, **messages} if found else messages

    def _choose(self, asked, candidates, topics, what):
        if asked and asked not in topics:
            raise InputError(f"{self._path} holds no {what} topic {asked}; its topics are {', '.join(topics)}")
        return asked or next(iter(candidates), "")

    def _open(self):
        try:
            from rosbags.rosbag2 import Reader, ReaderError
        except ImportError as error:
            raise MissingDependencyError("reading bags needs rosbags: pip install 'semalign3d[bags]'") from error
        try:
            return Reader(self._path)
        except ReaderError as error:
            raise FileFormatError(f"{self._path} is not a readable rosbag2 ({error}); reindex or record it again") from error


def _nearest(depths, image):
    """The stamp of the depth image of an image, or None."""
    at = _seconds(image)
    best = min(depths, key=lambda stamp: abs(stamp - at), default=None)
    return best if best is not None and abs(best - at) <= SAME else None


def _seconds(message):
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def _common(first, second):
    count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return first[:count]
