"""One frame of messages as values of the core: image, camera, depth and mask, without lens distortion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, CompressedImage

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.distortion import Undistortion
from semalign3d_core.perception.evidence import DepthMap, ImageInput
from semalign3d_core.perception.look import Box
from semalign3d_core.runtime.errors import InputError
from semalign3d_ros.conversions import BadMessage, compressed_to_rgb, decompress_depth, image_to_rgb, mask_values
from semalign3d_ros.inputs.calibration import Calibration, calibration_from_info, is_rectified
from semalign3d_ros.inputs.depth import DepthReader
from semalign3d_ros.inputs.detections import boxes_of
from semalign3d_ros.inputs.synchroniser import Frame

Problem = Callable[[str, object], None]  # told the kind and the text of what cannot be used


@dataclass(frozen=True)
class SensorFrame:
    """What a frame of messages says, without lens distortion.

    image: :class:`ImageInput`;  camera, depth: where they are known;  labels: (h, w) int32 of the mask, 0 is background, or None
    boxes: ((x0, y0, x1, y1) in pixels, name of the category) of a detector's objects, or None where no detector looked
    up: (3,) unit vector against gravity in the frame of the camera, or None
    undistortion: how the picture was undistorted, or None where it needed that not
    """

    image: ImageInput
    camera: PinholeCamera | None = None
    depth: DepthMap | None = None
    labels: np.ndarray | None = None
    undistortion: Undistortion | None = None
    boxes: list[tuple[Box, str]] | None = None
    up: np.ndarray | None = None

    def received(self, pixels: torch.Tensor) -> torch.Tensor:
        """Where pixels (N, 2) of :attr:`image` are in the picture that was received."""
        if self.undistortion is None:
            return pixels
        return torch.from_numpy(self.undistortion.to_distorted(pixels.double().numpy())).to(pixels)


class FrameDecoder:
    """Decodes frames.

    topics: full names by role;  rectified: yes, no or auto;  problem: told what cannot be used of the partners of an image
    """

    def __init__(self, topics: dict[str, str], depth: DepthReader, rectified: str, problem: Problem) -> None:
        self.topics, self.depth, self._problem = topics, depth, problem
        self.rectified = is_rectified(topics["image"]) if rectified == "auto" else rectified == "yes"
        self._undistortion: Undistortion | None = None  # of the last camera: its maps are costly

    def decode(self, frame: Frame) -> SensorFrame:
        """Raises :class:`BadMessage` where the image itself cannot be used; a partner that cannot be is named and left out."""
        message = frame.image
        rgb = compressed_to_rgb(message) if isinstance(message, CompressedImage) else image_to_rgb(message)
        height, width = rgb.shape[:2]
        calibration = self._partner(frame, "camera_info", lambda info: self._calibration(info, height, width))
        camera = None if calibration is None else calibration.camera
        info = frame.partners.get("depth_camera_info")
        depth = self._partner(frame, "depth", lambda image: self.depth.read(_raw(image), message, height, width, camera, info))
        labels = self._partner(frame, "mask", lambda image: _mask(image, height, width))
        boxes = self._partner(frame, "detections", lambda message: boxes_of(message, height, width))
        name = self.topics["image"]
        if calibration is None or calibration.lens is None:
            return SensorFrame(ImageInput(rgb, name), camera, depth, labels, boxes=boxes)
        lens = self._undistortion
        assert lens is not None
        if depth is not None:
            depth = DepthMap(torch.from_numpy(lens.labels(depth.values.numpy(), float("nan"))), depth.kind)
        if labels is not None:
            labels = lens.labels(labels.astype(np.float32)).astype(np.int32)
        if boxes is not None:
            boxes = [(lens.box(box), category) for box, category in boxes]
        return SensorFrame(ImageInput(lens.picture(rgb), name), camera, depth, labels, lens, boxes)

    def _calibration(self, info: CameraInfo, height: int, width: int) -> Calibration:
        found = calibration_from_info(info, height, width, self.rectified)
        if found.lens is not None and not self._knows(found):
            try:
                self._undistortion = Undistortion(found.camera, found.lens)
            except InputError as error:
                raise BadMessage("distortion not usable", str(error)) from error
        return found

    def _knows(self, found: Calibration) -> bool:
        if self._undistortion is None or self._undistortion.lens != found.lens:
            return False
        known, camera = self._undistortion.camera, found.camera
        same_size = (known.height, known.width) == (camera.height, camera.width)
        return same_size and torch.equal(known.matrix_pixels(), camera.matrix_pixels())

    def _partner(self, frame: Frame, topic: str, convert: Callable[[Any], Any]) -> Any:
        """The converted partner of an image, or None when there is none or it cannot be used."""
        if topic not in frame.partners:
            return None
        try:
            return convert(frame.partners[topic])
        except BadMessage as error:
            self._problem(f"{topic}: {error.kind}", f"{self.topics[topic]}: {error}; going on without")
            return None


def _raw(message):
    return decompress_depth(message) if isinstance(message, CompressedImage) else message


def _mask(message, height, width):
    values = mask_values(message)
    if values.shape != (height, width):
        sizes = f"{values.shape[1]} x {values.shape[0]} pixels, the image {width} x {height}"
        raise BadMessage("another size than the image", f"the mask has {sizes}; register it to the image")
    return values
