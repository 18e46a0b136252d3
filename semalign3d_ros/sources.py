"""Where images come from: folders, video files, webcams, recorded bags.

Each source yields :class:`Moment` and has ``roles``, the topics of its messages.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError, SemAlign3DError
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES, list_images
from semalign3d_ros.conversions import BadMessage, array_to_image, compressed_to_rgb, decompress_depth, image_to_rgb
from semalign3d_ros.inputs.calibration import camera_to_info
from semalign3d_ros.parameters import ImageSourceParameters

IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CAMERA_TYPE = "sensor_msgs/msg/CameraInfo"
FOLDER_RATE = 10.0  # images per second where nothing says how fast
JPEG_QUALITY = 95
BAG_FILES = (".mcap", ".db3")  # of a recording without its metadata.yaml
SAME = 0.02  # seconds between the stamps of an image and of its depth image
WAITING = 8  # images that wait for their depth image
LEGAL = "a folder of images, an image, a video file, a rosbag2 (folder, .mcap or .db3), or the number of a webcam"

Problem = Callable[[str, object], None]  # told the kind and the text of what cannot be used


@dataclass(frozen=True)
class Moment:
    """What is published together: seconds since the first image (None: now), and messages by topic (image last)."""

    time: float | None
    messages: dict[str, Any]


def open_source(parameters: ImageSourceParameters, problem: Problem) -> "Source":
    """The source that :class:`ImageSourceParameters` name, an iterable of :class:`Moment` that can be iterated again.

    ``problem(kind, text)`` is told of single images that cannot be read; they are left out.
    """
    source, camera = parameters.source, Calibration(parameters.camera, parameters.focal_length)
    path = Path(source)
    if not source:
        raise InputError(f"the parameter source is empty; give {LEGAL}")
    if source.isdigit():
        return Webcam(int(source), camera)
    if not path.exists():
        raise MissingFileError(f"source {source} does not exist; give {LEGAL}")
    if (path / "metadata.yaml").is_file() or path.suffix in BAG_FILES:
        return Bag(path, parameters, camera, problem)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return Folder(path, camera, problem)
    return Video(path, camera)


class Calibration:
    """CameraInfo for images: from a file as camera_calibration writes it, from a focal length in pixels, or none."""

    def __init__(self, path: str = "", focal_length: float = 0.0) -> None:
        self._info, self._focal_length, self._path = None, focal_length, path
        if path:
            self._info = _read_calibration(Path(path))

    @property
    def roles(self) -> set[str]:
        """Topics of the messages of a :meth:`moment`."""
        return {"image", "camera_info"} if self._info is not None or self._focal_length > 0 else {"image"}

    def info(self, height: int, width: int) -> CameraInfo | None:
        """The CameraInfo of an image, or None; raises :class:`InputError` for a calibration of another image size."""
        if self._info is not None and (self._info.height, self._info.width) != (height, width):
            sizes = f"{self._info.width} x {self._info.height} pixels, the images have {width} x {height}"
            raise InputError(f"{self._path} is for {sizes}; calibrate at that size")
        if self._info is not None or self._focal_length <= 0:
            return self._info
        return camera_to_info(PinholeCamera.centred(self._focal_length / max(height, width), height, width), Header())

    def moment(self, time: float | None, rgb: np.ndarray) -> Moment:
        """A picture with its CameraInfo."""
        info = self.info(*rgb.shape[:2])
        messages = {} if info is None else {"camera_info": info}
        return Moment(time, messages | {"image": array_to_image(rgb, "rgb8", Header())})


class Folder:
    """The images of a folder in the order of their names, or one image."""

    period = 1 / FOLDER_RATE

    def __init__(self, path: Path, camera: Calibration, problem: Problem) -> None:
        self._files = list_images(path) if path.is_dir() else [path]
        self._camera, self._problem, self.roles = camera, problem, camera.roles

    def __iter__(self) -> Iterator[Moment]:
        for index, path in enumerate(self._files):
            try:
                rgb = read_image(path).rgb
            except SemAlign3DError as error:
                self._problem("image file: not readable", error)
                continue
            yield self._camera.moment(index * self.period, rgb)


class Video:
    """The pictures of a video file."""

    def __init__(self, path: Path, camera: Calibration) -> None:
        self._path, self._camera, self.roles = path, camera, camera.roles
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.period = 1 / (rate if np.isfinite(rate) and rate > 0 else FOLDER_RATE)

    def __iter__(self) -> Iterator[Moment]:
        capture = self._open()
        index = 0
        while (picture := capture.read()[1]) is not None:
            yield self._camera.moment(index * self.period, picture[..., ::-1])
            index += 1
        capture.release()
        if index == 0:
            raise FileFormatError(f"{self._path} holds no picture that can be decoded; convert it, for example to MP4")

    def _open(self):
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise FileFormatError(f"{self._path} is not a video that OpenCV can read; convert it, for example to MP4, or give {LEGAL}")
        return capture


class Webcam:
    """The pictures of a webcam as they come."""

    period = None

    def __init__(self, number: int, camera: Calibration) -> None:
        self._number, self._camera, self.roles = number, camera, camera.roles
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(f"webcam {number} cannot be opened; check the number (/dev/video{number}) and that you may read it")

    def __iter__(self) -> Iterator[Moment]:
        while (picture := self._capture.read()[1]) is not None:
            yield self._camera.moment(None, picture[..., ::-1])
        raise InputError(f"webcam {self._number} gives no more pictures; was it unplugged?")


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


def as_transport(message: Image | CompressedImage, transport: str) -> Image | CompressedImage:
    """An image message as ``raw`` Image or ``compressed`` CompressedImage (JPEG); unchanged where it is that already."""
    if transport == "raw":
        return message if isinstance(message, Image) else array_to_image(compressed_to_rgb(message), "rgb8", message.header)
    if isinstance(message, CompressedImage):
        return message
    done, data = cv2.imencode(".jpg", image_to_rgb(message)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise BadMessage("not compressible", f"an image of {message.width} x {message.height} pixels cannot be written as JPEG")
    return CompressedImage(header=message.header, format="jpeg", data=data.tobytes())


def _common(first, second):
    count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return first[:count]


def _read_calibration(path):
    try:
        values = yaml.safe_load(path.read_text())
        matrix, size = np.array(values["camera_matrix"]["data"], dtype=float), (int(values["image_height"]), int(values["image_width"]))
        info = camera_to_info(PinholeCamera.from_pixels(matrix, *size), Header())
        info.distortion_model = str(values.get("distortion_model", "plumb_bob"))
        info.d = [float(v) for v in values.get("distortion_coefficients", {}).get("data", info.d)]
    except FileNotFoundError:
        raise MissingFileError(f"camera calibration {path} does not exist") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        expected = "expected image_width, image_height and camera_matrix: {data: [9 numbers]}, as camera_calibration writes them"
        raise FileFormatError(f"{path} is not a camera calibration ({type(error).__name__}: {error}); {expected}") from error
    return info


Source = Folder | Video | Webcam | Bag
