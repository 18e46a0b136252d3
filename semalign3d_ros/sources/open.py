"""Where images come from: folders, video files, webcams, recorded bags.

Each source yields :class:`Moment` and has ``roles``, the topics of its messages.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError, SemAlign3DError
from semalign3d_core.runtime.pictures import IMAGE_SUFFIXES, list_images
from semalign3d_ros.conversions import BadMessage, array_to_image, compressed_to_rgb, image_to_rgb
from semalign3d_ros.parameters import ImageSourceParameters
from semalign3d_ros.sources.bag import Bag
from semalign3d_ros.sources.moments import Calibration, Moment, Problem

FOLDER_RATE = 10.0  # images per second where nothing says how fast
JPEG_QUALITY = 95
BAG_FILES = (".mcap", ".db3")  # of a recording without its metadata.yaml
LEGAL = "a folder of images, an image, a video file, a rosbag2 (folder, .mcap or .db3), or the number of a webcam"


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
