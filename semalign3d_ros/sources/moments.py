"""What a source of images yields, and the calibration that goes with its images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_ros.conversions import array_to_image, camera_info

Problem = Callable[[str, object], None]  # told the kind and the text of what cannot be used


@dataclass(frozen=True)
class Moment:
    """What is published together: seconds since the beginning of the source (None: now), and messages by topic (image last)."""

    time: float | None
    messages: dict[str, Any]


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
        matrix = np.array([[self._focal_length, 0, width / 2], [0, self._focal_length, height / 2], [0, 0, 1]])
        return camera_info(matrix, height, width, Header())

    def moment(self, time: float | None, rgb: np.ndarray) -> Moment:
        """A picture with its CameraInfo."""
        info = self.info(*rgb.shape[:2])
        messages = {} if info is None else {"camera_info": info}
        return Moment(time, messages | {"image": array_to_image(rgb, "rgb8", Header())})


def _read_calibration(path):
    try:
        values = yaml.safe_load(path.read_text())
        matrix, size = np.array(values["camera_matrix"]["data"], dtype=float), (int(values["image_height"]), int(values["image_width"]))
        info = camera_info(matrix.reshape(3, 3), *size, Header())
        if not np.isfinite(matrix).all() or min(info.k[0], info.k[4]) <= 0:
            raise ValueError("the focal lengths of camera_matrix are not positive numbers")
        info.distortion_model = str(values.get("distortion_model", "plumb_bob"))
        info.d = [float(v) for v in values.get("distortion_coefficients", {}).get("data", info.d)]
    except FileNotFoundError:
        raise MissingFileError(f"camera calibration {path} does not exist") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        expected = "expected image_width, image_height and camera_matrix: {data: [9 numbers]}, as camera_calibration writes them"
        raise FileFormatError(f"{path} is not a camera calibration ({type(error).__name__}: {error}); {expected}") from error
    return info
