"""Messages to arrays and back: every encoding, padding, byte order, and what is refused."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
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
    depth = conversions.depth_from_image(message(millimetres, "16UC1", 5, big_endian), 2, 3)
    assert depth.kind == "metric"
    np.testing.assert_allclose(depth.values.numpy(), expected, rtol=1e-6)
    holes = np.where(metres == 0, np.inf, metres).astype(np.float32)
    holes[1, 1] = -1
    expected[1, 1] = np.nan
    depth = conversions.depth_from_image(message(holes, "32FC1", 4, big_endian), 2, 3)
    np.testing.assert_allclose(depth.values.numpy(), expected, rtol=1e-6)


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


def test_depth_and_masks_of_another_size_or_without_content_are_refused():
    with pytest.raises(BadMessage, match="3 x 2 pixels, the image 4 x 2"):
        conversions.depth_from_image(message(np.ones((2, 3), np.float32), "32FC1"), 2, 4)
    with pytest.raises(BadMessage, match="no valid depth"):
        conversions.depth_from_image(message(np.zeros((2, 3), np.uint16), "16UC1"), 2, 3)
    with pytest.raises(BadMessage, match="mask has 3 x 2"):
        conversions.mask_from_image(message(np.ones((2, 3), np.uint8), "mono8"), 2, 4)
    mask = conversions.mask_from_image(message(np.array([[0, 1, 255]], np.uint8), "mono8", 2), 1, 3)
    assert mask.tolist() == [[False, True, True]]


def info(**changes):
    values = dict(height=480, width=640, k=[500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0])
    return CameraInfo(**{**values, **changes})


def test_camera_info_gives_the_camera_in_pixels():
    camera = conversions.camera_from_info(info(), 480, 640)
    assert camera.known
    np.testing.assert_allclose(camera.matrix_pixels(), np.array(info().k).reshape(3, 3), rtol=1e-6)


def test_region_of_interest_and_binning_change_the_camera_like_the_image():
    cropped = info()
    cropped.roi.x_offset, cropped.roi.y_offset, cropped.roi.height, cropped.roi.width = 100, 40, 400, 500
    matrix = conversions.camera_from_info(cropped, 400, 500).matrix_pixels().numpy()
    np.testing.assert_allclose(matrix[:2, 2], [219.5, 199.5], rtol=1e-6)
    binned = conversions.camera_from_info(info(binning_x=2, binning_y=2), 240, 320).matrix_pixels().numpy()
    np.testing.assert_allclose([binned[0, 0], binned[1, 1], binned[0, 2], binned[1, 2]], [250, 255, 159.5, 119.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (CameraInfo(), "not calibrated"),
        (info(k=[float("nan")] * 9), "not calibrated"),
        (info(k=[-500.0, 0.0, 1.0, 0.0, 500.0, 1.0, 0.0, 0.0, 1.0]), "not calibrated"),
        (info(height=0, width=0), "no image size"),
        (info(height=240, width=320), "another size than the image"),
    ],
)
def test_camera_info_that_cannot_be_used_says_why(broken, kind):
    with pytest.raises(BadMessage) as raised:
        conversions.camera_from_info(broken, 480, 640)
    assert raised.value.kind == kind


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [("rgb8", RGB), ("mono8", GREY), ("16UC1", GREY.astype(np.uint16) * 250), ("32FC1", GREY.astype(np.float32) / 3)],
)
def test_arrays_survive_the_way_into_a_message_and_back(encoding, pixels):
    made = conversions.array_to_image(pixels, encoding, Header(frame_id="camera"))
    assert made.header.frame_id == "camera" and len(made.data) == made.step * made.height
    np.testing.assert_array_equal(conversions.image_to_array(made).squeeze(), pixels)


def test_a_camera_survives_the_way_into_camera_info_and_back():
    camera = PinholeCamera.centred(1.3, 480, 640)
    back = conversions.camera_from_info(conversions.camera_to_info(camera, Header()), 480, 640)
    np.testing.assert_allclose(back.matrix_pixels(), camera.matrix_pixels(), rtol=1e-6)
