"""Pixels of sensor messages to arrays and back, as pure functions. A message that cannot be used raises :class:`BadMessage`."""

import array
import struct
from typing import Any, Literal

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import shown
from semalign3d_core.runtime.limits import check_picture
from semalign3d_core.runtime.pictures import picture_of_bytes

# encoding -> (type, channels); the two-plane ones have further rows below
ENCODINGS = {
    **{name: (np.uint8, 3) for name in ("rgb8", "bgr8", "8UC3")},
    **{name: (np.uint8, 4) for name in ("rgba8", "bgra8", "8UC4")},
    **{name: (np.uint16, 3) for name in ("rgb16", "bgr16", "16UC3")},
    **{name: (np.uint16, 4) for name in ("rgba16", "bgra16", "16UC4")},
    **{name: (np.uint8, 1) for name in ("mono8", "8UC1")},
    **{name: (np.uint16, 1) for name in ("mono16", "16UC1")},
    "32SC1": (np.int32, 1),
    "32FC1": (np.float32, 1),
    **{name: (np.uint8, 2) for name in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")},
    **{name: (np.uint8, 1) for name in ("nv12", "nv21")},
    **{f"bayer_{order}{bits}": (kind, 1) for order in ("rggb", "bggr", "gbrg", "grbg") for bits, kind in ((8, np.uint8), (16, np.uint16))},
}
HALF_ROWS = ("nv12", "nv21")  # half as many rows of colour follow below those of brightness
# OpenCV names a mosaic by the second row, from its second pixel on.
MOSAICS = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}


def _eight_bits(pixels):
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _turned(code):
    return lambda pixels: cv2.cvtColor(pixels, code)


# encoding of a colour or grey image -> function from its array to RGB; types without colour order are BGR, as OpenCV has it
TO_RGB = {
    **{name: lambda a: a for name in ("rgb8", "rgb16")},
    **{name: lambda a: a[..., ::-1] for name in ("bgr8", "8UC3", "bgr16", "16UC3")},
    **{name: lambda a: a[..., :3] for name in ("rgba8", "rgba16")},
    **{name: lambda a: a[..., 2::-1] for name in ("bgra8", "8UC4", "bgra16", "16UC4")},
    **{name: lambda a: a.repeat(3, axis=2) for name in ("mono8", "8UC1", "mono16")},
    **{name: _turned(cv2.COLOR_YUV2RGB_UYVY) for name in ("yuv422", "uyvy")},
    **{name: _turned(cv2.COLOR_YUV2RGB_YUY2) for name in ("yuv422_yuy2", "yuyv")},
    "nv12": _turned(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _turned(cv2.COLOR_YUV2RGB_NV21),
    **{f"bayer_{order}{bits}": _turned(code) for order, code in MOSAICS.items() for bits in (8, 16)},
}
DEPTH_ENCODINGS = {"16UC1": 0.001, "mono16": 0.001, "32FC1": 1.0}  # metres per unit, as ROS has it (REP 118)
NO_DEPTH = 65535  # what sensors write besides 0 where they measured nothing
MASK_ENCODINGS = ("mono8", "8UC1", "mono16", "16UC1", "32SC1")
DEPTH_HEADER = struct.Struct("<iff")  # compressedDepth: format, and the two numbers that inverse depths were quantised with


class BadMessage(InputError):
    """A message that cannot be used; ``kind`` names the kind of problem in a few words, for counting."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def image_to_array(message: Image, allowed: tuple[str, ...] = tuple(ENCODINGS)) -> np.ndarray:
    """The pixels of an Image, (h, w, channels), native byte order; padding at the end of rows is taken off."""
    if message.encoding not in allowed:
        text = f"encoding {shown(message.encoding)!r} cannot be used here; publish one of {', '.join(allowed)}"
        raise BadMessage("unsupported encoding", text)
    dtype, channels = ENCODINGS[message.encoding]
    height, width, row = message.height, message.width, message.width * channels * np.dtype(dtype).itemsize
    if height == 0 or width == 0:
        raise BadMessage("empty image", f"the image is empty ({width} x {height} pixels); check the driver")
    try:
        check_picture(width, height, "the image")
    except InputError as error:
        raise BadMessage("too large an image", str(error)) from error
    if message.encoding in HALF_ROWS:
        height += height // 2
    if message.step < row or len(message.data) < message.step * (height - 1) + row:
        raise BadMessage(
            "truncated image",
            f"{width} x {message.height} pixels of {message.encoding} need a step of at least {row} bytes and as many rows, "
            f"found a step of {message.step} and {len(message.data)} bytes; check the driver",
        )
    rows = np.ndarray((height, row), np.uint8, memoryview(message.data), strides=(message.step, 1))
    order: Literal[">", "<"] = ">" if message.is_bigendian else "<"
    pixels = np.ascontiguousarray(rows).view(np.dtype(dtype).newbyteorder(order)).reshape(height, width, channels)
    return pixels.astype(dtype, copy=False)


def image_to_rgb(message: Image) -> np.ndarray:
    """An Image of any colour or grey encoding as (h, w, 3) uint8 RGB."""
    pixels = image_to_array(message, tuple(TO_RGB))
    try:
        return np.ascontiguousarray(_eight_bits(TO_RGB[message.encoding](pixels)))
    except cv2.error as error:
        size = f"{message.width} x {message.height}"
        raise BadMessage("impossible size", f"{message.encoding} cannot have {size} pixels ({error.err}); check the driver") from error


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """A CompressedImage (JPEG, PNG) as (h, w, 3) uint8 RGB; 16 bits become 8."""
    if "compressedDepth" in message.format:
        raise BadMessage("depth instead of colour", f"an image of format {shown(message.format)!r} holds depth; subscribe to it as depth")
    try:
        rgb = picture_of_bytes(bytes(message.data))
    except InputError as error:
        text = f"compressed image of format {shown(message.format)!r} cannot be decoded ({error}); publish whole JPEG or PNG files"
        raise BadMessage("undecodable image", text) from error
    encoding = message.format.partition(";")[0].strip()
    if encoding.startswith("bayer_") and encoding in TO_RGB and (rgb == rgb[..., :1]).all():  # the mosaic itself was compressed
        rgb = TO_RGB[encoding](np.ascontiguousarray(rgb[..., :1]))
    return rgb


def decompress_depth(message: CompressedImage) -> Image:
    """A CompressedImage of the transport compressedDepth (PNG) as Image 16UC1 or 32FC1."""
    encoding, _, how = (part.strip() for part in message.format.partition(";"))
    if "compressedDepth" not in how or encoding not in ("16UC1", "32FC1"):
        text = f"format is {shown(message.format)!r}, expected '16UC1; compressedDepth png' or '32FC1; compressedDepth png'"
        raise BadMessage("not compressed depth", text)
    if "rvl" in how:
        raise BadMessage(
            "unsupported compression", f"format {shown(message.format)!r} is not read; set the publisher's parameter format to png"
        )
    data = bytes(message.data)
    values: np.ndarray | None = None
    try:
        picture = picture_of_bytes(data[DEPTH_HEADER.size :], raw=True)
        values = picture.astype(np.uint16) if picture.ndim == 2 and picture.dtype.itemsize > 1 else None
    except InputError:
        pass
    if values is None:
        raise BadMessage(
            "undecodable image", f"{len(data)} bytes of format {shown(message.format)!r} hold no 16-bit PNG; check the publisher"
        )
    if encoding == "32FC1":
        _, scale, offset = DEPTH_HEADER.unpack(data[: DEPTH_HEADER.size])
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(values > 0, scale / (values.astype(np.float32) - offset), np.nan)
    return array_to_image(values, encoding, message.header)


def depth_values(message: Image, unit: float = 0.0) -> np.ndarray:
    """A depth Image in metres, (h, w) float32 with NaN where nothing was measured.

    unit: metres per unit of its numbers; 0: by the encoding, millimetres of integers and metres of floating-point numbers
    """
    pixels = image_to_array(message, tuple(DEPTH_ENCODINGS))[..., 0]
    valid = (np.isfinite(pixels) & (pixels > 0)) if pixels.dtype == np.float32 else (pixels > 0) & (pixels < NO_DEPTH)
    if not valid.any():
        raise BadMessage("no valid depth", "the depth image holds no valid depth (all 0, NaN or infinite); check the sensor")
    values = pixels.astype(np.float32) * np.float32(unit or DEPTH_ENCODINGS[message.encoding])
    return np.where(valid, values, np.float32(np.nan))


def mask_values(message: Image) -> np.ndarray:
    """The numbers of a mask Image, (h, w) int32: 0 is background."""
    return image_to_array(message, MASK_ENCODINGS)[..., 0].astype(np.int32)


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """An array (h, w) or (h, w, channels) as Image of that encoding."""
    dtype, channels = ENCODINGS[encoding]
    pixels = np.ascontiguousarray(pixels, dtype=np.dtype(dtype).newbyteorder("<"))
    height, width = pixels.shape[:2]
    data = array.array("B")
    data.frombytes(pixels.data.cast("B"))
    step = width * channels * np.dtype(dtype).itemsize
    return Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=data)


def seconds(stamp: Any) -> float:
    """A Time message in seconds."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def camera_info(matrix: np.ndarray, height: int, width: int, header: Header) -> CameraInfo:
    """The CameraInfo of a camera without lens distortion; ``matrix`` (3, 3) in pixels."""
    projection = np.concatenate([matrix, np.zeros((3, 1))], axis=1)
    return CameraInfo(
        header=header, height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5,
        k=matrix.flatten().tolist(), r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], p=projection.flatten().tolist(),
    )  # fmt: skip
