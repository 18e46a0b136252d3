"""Recorded bags as a source of images."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingDependencyError
from semalign3d_ros.conversions import BadMessage, decompress_depth, seconds
from semalign3d_ros.inputs.transforms import TF, TF_STATIC, tf_messages
from semalign3d_ros.sources.moments import Calibration, Moment, Problem
from semalign3d_ros.sources.parameters import ImageSourceParameters

IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CAMERA_TYPE = "sensor_msgs/msg/CameraInfo"
STANDING = ("camera_info", "depth_camera_info", TF_STATIC)  # what was said once and counts until it is said anew
ALIGNED = ("aligned", "registered")  # how drivers call the topics of depth that belongs to the colour images
SAME = 0.02  # seconds between the stamps of an image and of its depth image
WAITING = 8  # images that wait for their depth image
ZSTD, ZSTD_MAGIC = ".zstd", b"\x28\xb5\x2f\xfd"


class Bag:
    """Images, and if there are any CameraInfo, depth images and TF, of a recorded rosbag2 (sqlite3 or mcap, also compressed).

    epoch: when the recording began, in nanoseconds
    """

    period = None

    def __init__(self, path: Path, parameters: ImageSourceParameters, camera: Calibration, problem: Problem) -> None:
        self._path, self._camera, self._problem = path, camera, problem
        self._file = _unpacked(path)
        with self._open() as reader:
            topics = {connection.topic: connection.msgtype for connection in reader.connections}
            self.epoch: int | None = reader.start_time
        self._roles = {topic: role for role, topic in self._choose(parameters, topics).items() if topic}
        self.roles = camera.roles | set(self._roles.values())
        types = {**IMAGE_TYPES, CAMERA_TYPE: CameraInfo, "tf2_msgs/msg/TFMessage": tf_messages()}
        self._types = {topic: types[topics[topic]] for topic in self._roles}

    def moments(self, start: float = 0.0) -> Iterator[Moment]:
        """Every image with the CameraInfo before it, the depth image of its stamp, and the transforms until the next image.

        start: seconds after the beginning of the recording
        """
        standing: dict[str, Any] = {}  # role -> message
        moving: list[Any] = []  # transforms since the moment before
        fixed: list[Any] = []  # static transforms
        told = 0  # of them
        depths: dict[float, Any] = {}
        waiting = deque[tuple[int, dict[str, Any]]]()

        def moment() -> Moment:
            nonlocal told
            time, messages = waiting.popleft()
            transforms = {}
            if moving:
                transforms[TF] = tf_messages()(transforms=list(moving))
                moving.clear()
            if len(fixed) > told:
                transforms[TF_STATIC], told = tf_messages()(transforms=list(fixed)), len(fixed)
            return self._moment(time, {**transforms, **standing, **messages}, depths)  # a CameraInfo may follow its image

        for role, time, message in self._recorded(start):
            if role == TF_STATIC:
                fixed += message.transforms
            elif role in STANDING:
                standing[role] = message
            elif role == TF:
                moving += message.transforms
            elif role == "depth":
                depths[seconds(message.header.stamp)] = message
            else:
                while waiting and (_complete(waiting[0][1], depths, self.roles) or len(waiting) > WAITING):
                    yield moment()
                waiting.append((time, {**standing, "image": message}))
        while waiting:
            yield moment()

    def _recorded(self, start):
        """(role, time, message) in the order of the recording; before it what still counts at the start."""
        with self._open() as reader:
            begin = reader.start_time + round(start * 1e9)
            wanted = [connection for connection in reader.connections if connection.topic in self._roles]
            standing = [connection for connection in wanted if self._roles[connection.topic] in STANDING]
            if standing and begin > reader.start_time:
                yield from self._read(reader.messages(connections=standing, stop=begin))
            yield from self._read(reader.messages(connections=wanted, start=begin))

    def _read(self, messages):
        for connection, time, data in messages:
            if data[:4] == ZSTD_MAGIC:  # of a file alone nothing else says that its messages are compressed
                data = _zstd().decompress(data)
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
        return Moment((time - self.epoch) * 1e-9, self._with_camera(messages))

    def _with_camera(self, messages):
        info = None if "camera_info" in messages or not isinstance(messages["image"], Image) else self._camera.info
        found = info and info(messages["image"].height, messages["image"].width)
        return {"camera_info": found, **messages} if found else messages

    def _choose(self, parameters, topics):
        """{role: topic, or nothing}; raises :class:`InputError` where a topic that is asked for is not there."""
        images = [topic for topic, kind in topics.items() if kind in IMAGE_TYPES and topic != parameters.depth_topic]
        colour = [topic for topic in images if "depth" not in topic] or images
        image = self._asked(parameters.image_topic, colour, topics, "image")
        if not image:
            raise InputError(f"{self._path} holds no images; its topics are {', '.join(topics)}")
        aligned = [topic for topic in images if topic != image and "depth" in topic and any(word in topic for word in ALIGNED)]
        depth = "" if parameters.depth_topic == "none" else self._asked(parameters.depth_topic, aligned, topics, "depth image")
        infos = [topic for topic, kind in topics.items() if kind == CAMERA_TYPE]
        nearest = sorted(infos, key=lambda topic: -len(_common(topic, image)))  # the one of the same camera
        beside = f"{depth.rpartition('/')[0]}/camera_info"
        transforms = tf_messages() is not None
        return {
            "image": image,
            "camera_info": self._asked(parameters.camera_topic, nearest, topics, "CameraInfo"),
            "depth": depth,
            "depth_camera_info": beside if depth and beside in infos and beside != parameters.camera_topic else "",
            TF: TF if transforms and TF in topics else "",
            TF_STATIC: TF_STATIC if transforms and TF_STATIC in topics else "",
        }

    def _asked(self, asked, candidates, topics, what):
        if asked and asked not in topics:
            raise InputError(f"{self._path} holds no {what} topic {asked}; its topics are {', '.join(topics)}")
        return asked or next(iter(candidates), "")

    def _open(self):
        from rosbags.rosbag2 import Reader, ReaderError

        try:
            return Reader(self._file if isinstance(self._file, Path) else next(Path(self._file.name).iterdir()))
        except ReaderError as error:
            raise FileFormatError(f"{self._path} is not a readable rosbag2 ({error}); reindex or record it again") from error


def _unpacked(path: Path) -> "Path | TemporaryDirectory[str]":
    """The path; of a single compressed file, a folder with what is in it."""
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("reading bags needs rosbags: pip install 'semalign3d[bags]'") from error
    if path.suffix != ZSTD:
        return path
    folder = TemporaryDirectory(prefix="semalign3d_bag_")
    try:
        with _zstd().open(path, "rb") as packed, (Path(folder.name) / path.stem).open("wb") as unpacked:
            while block := packed.read(2**20):
                unpacked.write(block)
    except (_zstd().ZstdError, EOFError) as error:
        raise FileFormatError(f"{path} is not a whole file compressed with zstd ({error}); copy it again") from error
    return folder


def _zstd() -> Any:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        from backports import zstd
    return zstd


def _complete(messages, depths, roles):
    return "depth" not in roles or _nearest(depths, messages["image"]) is not None


def _nearest(depths, image):
    """The stamp of the depth image of an image, or None."""
    at = seconds(image.header.stamp)
    best = min(depths, key=lambda stamp: abs(stamp - at), default=None)
    return best if best is not None and abs(best - at) <= SAME else None


def _common(first, second):
    count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return first[:count]
