"""Messages to arrays and back: every encoding, padding, byte order, and what is refused."""

import struct

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_ros import conversions  # noqa: E402
from semalign3d_ros.conversions import BadMessage  # noqa: E402

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.full((5, 7, 1), 200, np.uint8)


def message(pixels, encoding, padding=0, big_endian=False):
    """An Image written byte by byte as the definition of the message says, independent of the code under test."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width = pixels.shape[:2]
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = [stored[y].tobytes() + b"\xab" * padding for y in range(height)]
    return Image(height=height, width=width, encoding=encoding, step=len(rows[0]), is_bigendian=int(big_endian), data=b"".join(rows))


@pytest.mark.parametrize("padding", [0, 1, 13])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], axis=2)),
        ("8UC4", np.concatenate([RGB[..., ::-1], ALPHA], axis=2)),
    ],
)
def test_colour_images_give_rgb_whatever_the_padding(encoding, pixels, padding):
    np.testing.assert_array_equal(conversions.image_to_rgb(message(pixels, encoding, padding)), RGB)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "pixels"), [("mono8", GREY), ("8UC1", GREY), ("mono16", GREY.astype(np.uint16) * 257)])
def test_grey_images_give_equal_channels(encoding, pixels, big_endian):
    rgb = conversions.image_to_rgb(message(pixels, encoding, 3, big_endian))
    np.testing.assert_array_equal(rgb, np.repeat(GREY[..., None], 3, axis=2))


def test_webcam_encodings_are_decoded_as_opencv_does():
    yuv = np.random.default_rng(1).integers(0, 256, (4, 6, 2), dtype=np.uint8)
    np.testing.assert_array_equal(conversions.image_to_rgb(message(yuv, "yuv422_yuy2", 2)), cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_YUYV))
    np.testing.assert_array_equal(conversions.image_to_rgb(message(yuv, "yuv422")), cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_UYVY))


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_comes_in_metres_with_nan_where_nothing_was_measured(big_endian):
    metres = np.array([[0.5, 1.25, 0.0], [2.0, 60.0, 0.001]], np.float32)
    expected = np.where(metres == 0, np.nan, metres)
    millimetres = np.round(metres * 1000).astype(np.uint16)
    millimetres[0, 2] = 65535  # what some sensors write where they measured nothing
    np.testing.assert_allclose(conversions.depth_values(message(millimetres, "16UC1", 5, big_endian)), expected, rtol=1e-6)
    np.testing.assert_allclose(conversions.depth_values(message(millimetres, "16UC1", 5, big_endian), 0.0001), expected / 10, rtol=1e-6)
    holes = np.where(metres == 0, np.inf, metres).astype(np.float32)
    holes[1, 1] = -1
    expected[1, 1] = np.nan
    np.testing.assert_allclose(conversions.depth_values(message(holes, "32FC1", 4, big_endian)), expected, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_are_decoded_for_real(suffix):
    smooth = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(suffix, smooth[..., ::-1])[1].tobytes()
    rgb = conversions.compressed_to_rgb(CompressedImage(format=suffix[1:], data=data))
    assert rgb.shape == (48, 64, 3)
    assert np.abs(rgb.astype(int) - smooth).mean() < (4 if suffix == ".jpg" else 1e-9)


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (Image(height=0, width=0, encoding="rgb8"), "empty image"),
        (Image(height=4, width=0, encoding="rgb8", step=0), "empty image"),
        (Image(height=2, width=2, encoding="bayer_rggb12", step=4, data=bytes(8)), "unsupported encoding"),
        (Image(height=2, width=2, encoding="", step=6, data=bytes(12)), "unsupported encoding"),
        (Image(height=2, width=2, encoding="rgb8", step=5, data=bytes(12)), "truncated image"),
        (Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(11)), "truncated image"),
        (message(np.ones((2, 2), np.float32), "32FC1"), "unsupported encoding"),
        (message(np.ones((2, 2), np.uint16), "16UC1"), "unsupported encoding"),
    ],
)
def test_images_that_cannot_be_used_say_why(broken, kind):
    with pytest.raises(BadMessage) as raised:
        conversions.image_to_rgb(broken)
    assert raised.value.kind == kind


def test_the_last_row_may_lack_its_padding():
    whole = message(RGB, "rgb8", 9)
    whole.data = bytes(whole.data)[:-9]
    np.testing.assert_array_equal(conversions.image_to_rgb(whole), RGB)


@pytest.mark.parametrize("data", [b"", b"not a picture", cv2.imencode(".png", RGB)[1].tobytes()[:-40]])
def test_broken_compressed_images_say_so(data):
    with pytest.raises(BadMessage, match="cannot be decoded") as raised:
        conversions.compressed_to_rgb(CompressedImage(format="png", data=data))
    assert raised.value.kind == "undecodable image"


def test_depth_without_content_is_refused_and_masks_keep_their_labels():
    with pytest.raises(BadMessage, match="no valid depth"):
        conversions.depth_values(message(np.zeros((2, 3), np.uint16), "16UC1"))
    assert conversions.mask_values(message(np.array([[0, 1, 255]], np.uint8), "mono8", 2)).tolist() == [[0, 1, 255]]
    assert conversions.mask_values(message(np.array([[0, 1, 70000]], np.int32), "32SC1", 3, True)).tolist() == [[0, 1, 70000]]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16", "16UC3"])
def test_sixteen_bits_of_colour_become_eight(encoding, big_endian):
    pixels = RGB if encoding.startswith("rgb") else RGB[..., ::-1]
    pixels = np.concatenate([pixels, ALPHA], axis=2) if "a" in encoding else pixels
    made = message(pixels.astype(np.uint16) * 257, encoding, 5, big_endian)
    np.testing.assert_array_equal(conversions.image_to_rgb(made), RGB)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_mosaics_are_turned_into_colours(order, bits):
    colours = {"r": 200, "g": 120, "b": 40}
    mosaic = np.zeros((8, 10), np.uint8)
    for place, letter in enumerate(order):
        mosaic[place // 2 :: 2, place % 2 :: 2] = colours[letter]
    made = message(mosaic if bits == 8 else mosaic.astype(np.uint16) * 257, f"bayer_{order}{bits}", 3)
    rgb = conversions.image_to_rgb(made)
    np.testing.assert_array_equal(rgb, np.broadcast_to([200, 120, 40], (8, 10, 3)))


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_two_planes_of_brightness_and_colour(encoding):
    grey = np.full((4, 6), 126, np.uint8)
    colour = np.broadcast_to(np.array([90, 200] if encoding == "nv12" else [200, 90], np.uint8), (2, 3, 2)).reshape(2, 6)
    made = message(np.concatenate([grey, colour]), encoding, 2)
    made.height = 4
    expected = cv2.cvtColor(np.concatenate([grey, colour]), getattr(cv2, f"COLOR_YUV2RGB_{encoding.upper()}"))
    np.testing.assert_array_equal(conversions.image_to_rgb(made), expected)
    made.data = made.data[:-12]
    with pytest.raises(BadMessage, match="check the driver"):
        conversions.image_to_rgb(made)


def test_impossible_sizes_of_shared_colour_are_named():
    with pytest.raises(BadMessage) as raised:
        conversions.image_to_rgb(message(np.zeros((4, 5, 2), np.uint8), "yuv422"))
    assert raised.value.kind == "impossible size"


def test_sixteen_bit_grey_png_is_not_white():
    grey = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
    data = cv2.imencode(".png", grey)[1].tobytes()
    rgb = conversions.compressed_to_rgb(CompressedImage(format="mono16; png compressed", data=data))
    np.testing.assert_array_equal(rgb, np.round(grey / 257).astype(np.uint8)[..., None].repeat(3, axis=2))


def compressed_depth(values, how="png"):
    """As image_transport's compressed_depth writes it."""
    if values.dtype == np.uint16:
        header, stored = struct.pack("<iff", 0, 0.0, 0.0), values
    else:
        scale, offset = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0  # depth_quantization 100, depth_max 10
        header = struct.pack("<iff", 0, scale, offset)
        stored = np.where(np.isfinite(values), scale / np.where(values > 0, values, 1) + offset, 0).round().astype(np.uint16)
    encoding = "16UC1" if values.dtype == np.uint16 else "32FC1"
    return CompressedImage(format=f"{encoding}; compressedDepth {how}", data=header + cv2.imencode(".png", stored)[1].tobytes())


def test_compressed_depth_is_read_as_it_was_written():
    millimetres = np.arange(35, dtype=np.uint16).reshape(5, 7) * 100
    image = conversions.decompress_depth(compressed_depth(millimetres))
    np.testing.assert_array_equal(conversions.image_to_array(image)[..., 0], millimetres)
    metres = np.linspace(0.5, 3, 35, dtype=np.float32).reshape(5, 7)
    metres[2, 3] = np.nan
    image = conversions.decompress_depth(compressed_depth(metres))
    np.testing.assert_allclose(conversions.image_to_array(image)[..., 0], metres, rtol=2e-3)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (compressed_depth(np.ones((2, 2), np.uint16), "rvl"), "unsupported compression"),
        (CompressedImage(format="jpeg", data=b"1"), "not compressed depth"),
        (CompressedImage(format="16UC1; compressedDepth png", data=b"short"), "undecodable image"),
        (CompressedImage(format="16UC1; compressedDepth png", data=bytes(40)), "undecodable image"),
    ],
)
def test_compressed_depth_that_cannot_be_used_says_why(made, kind):
    with pytest.raises(BadMessage) as raised:
        conversions.decompress_depth(made)
    assert raised.value.kind == kind


def test_depth_is_not_taken_for_a_picture():
    with pytest.raises(BadMessage) as raised:
        conversions.compressed_to_rgb(compressed_depth(np.ones((2, 2), np.uint16)))
    assert raised.value.kind == "depth instead of colour"


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [("rgb8", RGB), ("mono8", GREY), ("16UC1", GREY.astype(np.uint16) * 250), ("32FC1", GREY.astype(np.float32) / 3)],
)
def test_arrays_survive_the_way_into_a_message_and_back(encoding, pixels):
    made = conversions.array_to_image(pixels, encoding, Header(frame_id="camera"))
    assert made.header.frame_id == "camera" and len(made.data) == made.step * made.height
    np.testing.assert_array_equal(conversions.image_to_array(made).squeeze(), pixels)
