"""CameraInfo to the core's camera and back: which matrix counts, and how it follows the size of the image."""

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.distortion import LensDistortion
from semalign3d_core.runtime.errors import InputError
from semalign3d_ros.conversions import BadMessage, camera_info

FOCAL = (0.1, 50.0)  # in longer sides of the image, that a camera may have
ASPECT = 4.0  # largest ratio between the two focal lengths
OFF_CENTRE = 1.0  # image sides by which the principal point may lie outside of the image
ROUNDING = 1.0  # pixels by which the sizes of image and calibration may differ after scaling


@dataclass(frozen=True)
class Calibration:
    """The :class:`PinholeCamera` of an image, and the :class:`LensDistortion` that its picture has, or None."""

    camera: PinholeCamera
    lens: LensDistortion | None


def is_rectified(topic: str) -> bool:
    """Whether the images of a topic are rectified, by the names that image_proc and its kin give: image_rect, image_rect_color."""
    return "rect" in topic.rstrip("/").removesuffix("/compressed").rsplit("/", 1)[-1].split("_")


def calibration_from_info(message: CameraInfo, height: int, width: int, rectified: bool = False) -> Calibration:
    """The :class:`Calibration` of the image of ``height x width`` pixels that a CameraInfo came with.

    A rectified image has the camera matrix P and no distortion, any other one K and D. Region of interest and binning count; an image
    that was scaled afterwards has the camera scaled with it.
    Raises :class:`BadMessage` for an uncalibrated, implausible or foreign CameraInfo.
    """
    values, name = (message.p, "P") if rectified else (message.k, "K")
    matrix = np.array(values, dtype=np.float64).reshape(3, -1)[:, :3]
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        text = f"{name} is {matrix.flatten().tolist()}, expected finite numbers and positive focal lengths; calibrate the camera"
        raise BadMessage("not calibrated", text)
    if message.height == 0 or message.width == 0:
        text = f"width and height are {message.width} and {message.height}, expected {width} and {height}; fill them in"
        raise BadMessage("no image size", text)
    _check_plausible(matrix, name, message)
    camera = _of_size(_cut(PinholeCamera.from_pixels(matrix, message.height, message.width), message), height, width)
    try:
        lens = None if rectified else LensDistortion.of(message.distortion_model, message.d)
    except InputError as error:
        raise BadMessage("distortion not usable", str(error)) from error
    return Calibration(camera, lens)


def _check_plausible(matrix, name, message):
    sides = np.array([message.width, message.height])
    focal, principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    low, high = (limit * sides.max() for limit in FOCAL)
    stray = (principal < -OFF_CENTRE * sides) | (principal > (1 + OFF_CENTRE) * sides)
    if not (low <= focal.min() and focal.max() <= high and focal.max() <= ASPECT * focal.min()) or stray.any():
        raise BadMessage(
            "implausible calibration",
            f"{name} has the focal lengths {focal.tolist()} and the principal point {principal.tolist()}, which no camera of "
            f"{message.width} x {message.height} pixels has; calibrate it again",
        )


def _cut(camera, message):
    """The camera of the part that the driver reads out."""
    roi = message.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.height, roi.width)
    if message.binning_x > 1 or message.binning_y > 1:
        camera = camera.resized(camera.height // max(message.binning_y, 1), camera.width // max(message.binning_x, 1))
    return camera


def _of_size(camera, height, width):
    """The camera of the image scaled to a size of the same proportions."""
    if (camera.height, camera.width) == (height, width):
        return camera
    expected = camera.height * width / camera.width, camera.width * height / camera.height
    if abs(expected[0] - height) > ROUNDING and abs(expected[1] - width) > ROUNDING:
        text = f"it describes {camera.width} x {camera.height} pixels, the image has {width} x {height}, which is another shape"
        raise BadMessage("another size than the image", f"{text}; publish the CameraInfo of this image")
    return camera.resized(height, width)


def camera_to_info(camera: PinholeCamera, header: Header) -> CameraInfo:
    """A :class:`PinholeCamera` as CameraInfo without distortion."""
    return camera_info(camera.matrix_pixels().double().numpy(), camera.height, camera.width, header)
