"""Sensor messages to arrays and back, as pure functions. A message that cannot be used raises :class:`BadMessage`."""

import array
import io
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image as Picture
from PIL import UnidentifiedImageError
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import DepthMap
from semalign3d_core.runtime.errors import InputError

# encoding -> (type, channels)
ENCODINGS = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "8UC3": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "8UC4": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "8UC1": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
    "yuv422": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),
}
# encoding of a colour or grey image -> function from its array to RGB; types without colour order are BGR, as OpenCV has it
TO_RGB = {
    "rgb8": lambda a: a,
    "bgr8": lambda a: a[..., ::-1],
    "8UC3": lambda a: a[..., ::-1],
    "rgba8": lambda a: a[..., :3],
    "bgra8": lambda a: a[..., 2::-1],
    "8UC4": lambda a: a[..., 2::-1],
    "mono8": lambda a: a.repeat(3, axis=2),
    "8UC1": lambda a: a.repeat(3, axis=2),
    "mono16": lambda a: (a / 257).round().astype(np.uint8).repeat(3, axis=2),
    "yuv422": lambda a: cv2.cvtColor(a, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": lambda a: cv2.cvtColor(a, cv2.COLOR_YUV2RGB_YUY2),
}
DEPTH_ENCODINGS = {"16UC1": 0.001, "mono16": 0.001, "32FC1": 1.0}  # metres per unit
MASK_ENCODINGS = ("mono8", "8UC1")


class BadMessage(InputError):
    """A message that cannot be used; ``kind`` names the kind of problem in a few words, for counting."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def image_to_array(message: Image, allowed: tuple[str, ...] = tuple(ENCODINGS)) -> np.ndarray:
    """The pixels of an Image, (h, w, channels), native byte order; padding at the end of rows is taken off."""
    if message.encoding not in allowed:
        raise BadMessage("unsupported encoding", f"encoding {message.encoding!r} cannot be used here; publish one of {', '.join(allowed)}")
    dtype, channels = ENCODINGS[message.encoding]
    height, width, row = message.height, message.width, message.width * channels * np.dtype(dtype).itemsize
    if height == 0 or width == 0:
        raise BadMessage("empty image", f"the image is empty ({width} x {height} pixels); check the driver")
    if message.step < row or len(message.data) < message.step * (height - 1) + row:
        raise BadMessage(
            "truncated image",
            f"{width} x {height} pixels of {message.encoding} need a step of at least {row} bytes and as many rows, "
            f"found a step of {message.step} and {len(message.data)} bytes; check the driver",
        )
    rows = np.ndarray((height, row), np.uint8, memoryview(message.data), strides=(message.step, 1))
    order: Literal[">", "<"] = ">" if message.is_bigendian else "<"
    pixels = np.ascontiguousarray(rows).view(np.dtype(dtype).newbyteorder(order)).reshape(height, width, channels)
    return pixels.astype(dtype, copy=False)


def image_to_rgb(message: Image) -> np.ndarray:
    """An Image of any colour or grey encoding as (h, w, 3) uint8 RGB."""
    pixels = image_to_array(message, tuple(TO_RGB))
    return np.ascontiguousarray(TO_RGB[message.encoding](pixels))


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """A CompressedImage (JPEG, PNG) as (h, w, 3) uint8 RGB."""
    try:
        return np.array(Picture.open(io.BytesIO(bytes(message.data))).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Picture.DecompressionBombError) as error:
        text = f"compressed image of format {message.format!r} cannot be decoded ({error}); publish whole JPEG or PNG files"
        raise BadMessage("undecodable image", text) from error


def depth_from_image(message: Image, height: int, width: int) -> DepthMap:
    """A depth Image (16UC1 in millimetres, 32FC1 in metres) as metric :class:`DepthMap`; 0, negative and infinite become NaN.

    It must be registered to the image of ``height x width`` pixels.
    """
    values = image_to_array(message, tuple(DEPTH_ENCODINGS))[..., 0].astype(np.float32) * np.float32(DEPTH_ENCODINGS[message.encoding])
    _check_size("depth image", values, height, width)
    valid = np.isfinite(values) & (values > 0)
    if not valid.any():
        raise BadMessage("no valid depth", "the depth image holds no valid depth (all 0, NaN or infinite); check the sensor")
    return DepthMap(torch.from_numpy(np.where(valid, values, np.float32(np.nan))), "metric")


def mask_from_image(message: Image, height: int, width: int) -> torch.Tensor:
    """A mask Image (mono8) of an image of ``height x width`` pixels as (h, w) bool tensor: everything above 0 is object."""
    values = image_to_array(message, MASK_ENCODINGS)[..., 0]
    _check_size("mask", values, height, width)
    return torch.from_numpy(values > 0)


def _check_size(what, values, height, width):
    if values.shape != (height, width):
        sizes = f"{values.shape[1]} x {values.shape[0]} pixels, the image {width} x {height}"
        raise BadMessage("another size than the image", f"the {what} has {sizes}; register it to the image")


def camera_from_info(message: CameraInfo, height: int, width: int) -> PinholeCamera:
    """The :class:`PinholeCamera` of a CameraInfo, for the image of ``height x width`` pixels that it came with.

    Region of interest and binning are taken into account. Raises :class:`BadMessage` for an uncalibrated or broken
    CameraInfo and for one of another image size.
    """
    matrix = np.array(message.k, dtype=np.float64)
    if not np.isfinite(matrix).all() or matrix[0] <= 0 or matrix[4] <= 0:
        text = f"K is {matrix.tolist()}, expected finite numbers and positive focal lengths; calibrate the camera"
        raise BadMessage("not calibrated", text)
    if message.height == 0 or message.width == 0:
        text = f"width and height are {message.width} and {message.height}, expected {width} and {height}; fill them in"
        raise BadMessage("no image size", text)
    camera = PinholeCamera.from_pixels(torch.from_numpy(matrix), message.height, message.width)
    roi = message.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.height, roi.width)
    if message.binning_x > 1 or message.binning_y > 1:
        camera = camera.resized(camera.height // max(message.binning_y, 1), camera.width // max(message.binning_x, 1))
    if (camera.height, camera.width) != (height, width):
        text = f"it describes {camera.width} x {camera.height} pixels, the image has {width} x {height}; scale it with the image"
        raise BadMessage("another size than the image", text)
    return camera


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """An array (h, w) or (h, w, channels) as Image of that encoding."""
    dtype, channels = ENCODINGS[encoding]
    pixels = np.ascontiguousarray(pixels, dtype=np.dtype(dtype).newbyteorder("<"))
    height, width = pixels.shape[:2]
    data = array.array("B")
    data.frombytes(pixels.data.cast("B"))
    step = width * channels * np.dtype(dtype).itemsize
    return Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=data)


def camera_to_info(camera: PinholeCamera, header: Header) -> CameraInfo:
    """A :class:`PinholeCamera` as CameraInfo without distortion."""
    matrix = camera.matrix_pixels().double()
    projection = torch.cat([matrix, torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    return CameraInfo(
        header=header, height=camera.height, width=camera.width, distortion_model="plumb_bob", d=[0.0] * 5,
        k=matrix.flatten().tolist(), r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], p=projection.flatten().tolist(),
    )  # fmt: skip
