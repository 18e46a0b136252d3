"""Depth images that fit the colour image: as they are, scaled, or carried over from another camera."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, Image

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.registration import register_depth
from semalign3d_core.geometry.rotations import rotation_from_quaternion
from semalign3d_core.perception.evidence import DepthMap
from semalign3d_core.runtime.errors import InputError
from semalign3d_ros.conversions import BadMessage, depth_values, seconds
from semalign3d_ros.inputs.calibration import calibration_from_info

Lookup = Callable[[str, str, float], np.ndarray]
LARGEST_DIFFERENCE = 2.0  # pixels by which focal length and centre of two cameras may differ that count as one
RANGE = (0.05, 50.0)  # metres, in which most of what a camera sees lies
ROUNDING = 1.0  # pixels by which a scaled depth image may differ from the shape of the image


def transform_of(text: str) -> np.ndarray | None:
    """The (4, 4) transform that ``x y z qx qy qz qw`` spell; None for an empty text. Raises :class:`InputError` for anything else."""
    if not text.strip():
        return None
    try:
        values = np.array([float(part) for part in text.replace(",", " ").split()])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (7,) or not np.isfinite(values).all() or not np.linalg.norm(values[3:]) > 0:
        raise InputError(f"depth_extrinsics is {text!r}, expected seven numbers x y z qx qy qz qw")
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation_from_quaternion(torch.from_numpy(values[3:])).numpy(), values[:3]
    return transform


class DepthReader:
    """Turns depth messages into :class:`DepthMap` of the image.

    unit: metres per unit; 0: by the encoding;  transform: (4, 4) from the depth camera's optical frame to the colour camera's, or None
    trusted: depth images count as registered whatever their frame is called
    lookup: (target frame, source frame, stamp) -> the (4, 4) transform that TF knows; asked where ``transform`` is None
    """

    def __init__(self, unit: float = 0.0, transform: np.ndarray | None = None, trusted: bool = False, lookup: Lookup | None = None) -> None:
        self.unit, self.transform, self.trusted, self._lookup = unit, transform, trusted, lookup

    def read(
        self, message: Image, colour: Image, height: int, width: int, camera: PinholeCamera | None, info: CameraInfo | None
    ) -> DepthMap:
        """The depth of an image of ``height x width`` pixels, whose message is ``colour`` and whose camera is ``camera`` if that is known.

        info: CameraInfo of the depth image, or None
        Raises :class:`BadMessage` where depth is not registered and cannot be, or its numbers cannot be metres.
        """
        values = depth_values(message, self.unit)
        _check_range(values, message.encoding, self.unit)
        frames = message.header.frame_id, colour.header.frame_id
        same = self.trusted or "" in frames or frames[0] == frames[1]
        transform, why = self.transform, ""
        if transform is None and not same:
            transform, why = self._of_tf(frames, message)
        elif transform is None and _differs(info, values, camera) and not self.trusted:
            transform = np.eye(4)
        if transform is not None or not same:
            values = self._registered(values, frames, camera, info, transform, why)
        return DepthMap(torch.from_numpy(_of_size(values, height, width, info)), "metric")

    def _of_tf(self, frames, message):
        """(transform, "") or (None, why there is none)."""
        if self._lookup is None:
            return None, ""
        try:
            return self._lookup(frames[1], frames[0], seconds(message.header.stamp)), ""
        except InputError as error:
            return None, f"; {error}"

    def _registered(self, values, frames, camera, info, transform, why):
        missing = [
            name
            for name, value in (
                (f"the extrinsics (TF, or the parameter depth_extrinsics{why})", transform),
                ("the CameraInfo of the images (topic camera_info)", camera),
                ("the CameraInfo of the depth images (topic depth_camera_info)", info),
            )
            if value is None
        ]
        if missing:
            raise BadMessage(
                "not registered",
                f"depth is of the frame {frames[0]!r}, the image of {frames[1]!r}; to carry it over, {' and '.join(missing)} is missing; "
                "or publish depth that is aligned to the image (depth_registered:=true if it is and only its frame is wrong)",
            )
        try:
            source = calibration_from_info(info, *values.shape)
        except InputError as error:
            raise BadMessage("not registered", f"the CameraInfo of the depth images cannot be used: {error}") from error
        if source.lens is not None:
            raise BadMessage("not registered", "the depth images have lens distortion; rectify them before")
        registered = register_depth(torch.from_numpy(values), source.camera, camera, transform)
        if not torch.isfinite(registered).any():
            raise BadMessage("not registered", "no depth falls into the image with these extrinsics; check them")
        return registered.numpy()


def _differs(info, values, camera):
    """Whether the depth images say that they are of another pinhole camera than the images."""
    if info is None or camera is None or not any(info.k):
        return False
    try:
        own = calibration_from_info(info, *values.shape).camera.resized(camera.height, camera.width)
    except InputError:
        return False
    return float((own.matrix_pixels() - camera.matrix_pixels()).abs().max()) > LARGEST_DIFFERENCE


def _check_range(values, encoding, unit):
    middle = float(np.nanmedian(values))
    if not RANGE[0] <= middle <= RANGE[1]:
        how = f"{unit} m per unit" if unit else "the unit that ROS has for it"
        text = f"the median depth of {encoding} with {how} is {middle:.4g} m, expected {RANGE[0]} to {RANGE[1]}; set depth_unit"
        raise BadMessage("implausible depth", text)


def _of_size(values, height, width, info):
    """Values (h, w) at the nearest pixels of an image of the same shape; the CameraInfo says that they see the same."""
    if values.shape == (height, width):
        return values
    if info is None or abs(values.shape[0] * width / values.shape[1] - height) > ROUNDING:
        sizes = f"{values.shape[1]} x {values.shape[0]} pixels, the image {width} x {height}"
        text = f"the depth image has {sizes}; register it to the image, or publish its CameraInfo (topic depth_camera_info)"
        raise BadMessage("another size than the image", text)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
