"""Where images come from: folders, video files, webcams, recorded bags.

Each source has ``moments(start)``, which yields :class:`Moment` as often as it is called, ``roles``, the topics of its messages, and
``epoch``, the time of its beginning in nanoseconds, or None where it has no time of its own.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, SemAlign3DError
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES, displayed_rgb, list_images, open_picture
from semalign3d_ros.conversions import BadMessage, array_to_image, compressed_to_rgb, image_to_rgb
from semalign3d_ros.sources.bag import Bag
from semalign3d_ros.sources.moments import Calibration, Moment, Problem
from semalign3d_ros.sources.parameters import ImageSourceParameters

FOLDER_RATE = 10.0  # images per second where nothing says how fast
JPEG_QUALITY = 95
BAG_FILES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")  # of a recording without its metadata.yaml
LEGAL = "a folder of images, an image, a video file, a rosbag2 (folder, .mcap or .db3, also .zstd), or the number of a webcam"


def open_source(parameters: ImageSourceParameters, problem: Problem) -> "Source":
    """The source that :class:`ImageSourceParameters` name.

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
    if (path / "metadata.yaml").is_file() or path.name.endswith(BAG_FILES):
        return Bag(path, parameters, camera, problem)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return Folder(path, camera, problem)
    return Video(path, camera)


class Folder:
    """The images of a folder in the order of their names, or one image."""

    epoch, period = None, 1 / FOLDER_RATE

    def __init__(self, path: Path, camera: Calibration, problem: Problem) -> None:
        self._files = list_images(path) if path.is_dir() else [path]
        self._camera, self._problem, self.roles = camera, problem, camera.roles

    def moments(self, start: float = 0.0) -> Iterator[Moment]:
        """The images from ``start`` (seconds) on."""
        first = math.ceil(start / self.period)
        for index, path in enumerate(self._files[first:], first):
            try:
                with open_picture(path) as picture:
                    rgb = displayed_rgb(picture)
            except SemAlign3DError as error:
                self._problem("image file: not readable", error)
                continue
            yield self._camera.moment(index * self.period, rgb)


class Video:
    """The pictures of a video file."""

    epoch = None

    def __init__(self, path: Path, camera: Calibration) -> None:
        self._path, self._camera, self.roles = path, camera, camera.roles
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.period = 1 / (rate if np.isfinite(rate) and rate > 0 else FOLDER_RATE)

    def moments(self, start: float = 0.0) -> Iterator[Moment]:
        """The pictures from ``start`` (seconds) on."""
        capture, index, first = self._open(), 0, math.ceil(start / self.period)
        while index < first and capture.grab():
            index += 1
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

    epoch = period = None

    def __init__(self, number: int, camera: Calibration) -> None:
        self._number, self._camera, self.roles = number, camera, camera.roles
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(f"webcam {number} cannot be opened; check the number (/dev/video{number}) and that you may read it")

    def moments(self, start: float = 0.0) -> Iterator[Moment]:
        """The pictures from now on."""
        while (picture := self._capture.read()[1]) is not None:
            yield self._camera.moment(None, picture[..., ::-1])
        raise InputError(f"webcam {self._number} gives no more pictures; was it unplugged?")


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


Source = Folder | Video | Webcam | Bag
