"""CameraInfo: which matrix counts, what the image's size does to it, and what is refused under which name."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import numpy as np  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from semalign3d_core.geometry.camera import PinholeCamera  # noqa: E402
from semalign3d_ros.conversions import BadMessage  # noqa: E402
from semalign3d_ros.inputs.calibration import calibration_from_info, camera_to_info, is_rectified  # noqa: E402

P = [480.0, 0.0, 310.0, 0.0, 0.0, 490.0, 235.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def info(**changes):
    values = dict(height=480, width=640, k=[500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0], p=P, distortion_model="plumb_bob")
    return CameraInfo(**{**values, **changes})


def matrix(message, height=480, width=640, **options):
    return calibration_from_info(message, height, width, **options).camera.matrix_pixels().numpy()


def test_camera_info_gives_the_camera_in_pixels():
    assert calibration_from_info(info(), 480, 640).camera.known
    np.testing.assert_allclose(matrix(info()), np.array(info().k).reshape(3, 3), rtol=1e-6)


def test_rectified_images_have_the_projection_matrix_and_no_distortion():
    distorted = info(d=[-0.35, 0.1, 0.0, 0.0, 0.0])
    found = calibration_from_info(distorted, 480, 640, rectified=True)
    assert found.lens is None
    np.testing.assert_allclose(found.camera.matrix_pixels(), np.array(P).reshape(3, 4)[:, :3], rtol=1e-6)
    assert calibration_from_info(distorted, 480, 640).lens.coefficients[0] == -0.35
    names = {"/camera/image_rect": True, "/image_rect_color/compressed": True, "/camera/image_raw": False, "/rect/image": False}
    assert {name: is_rectified(name) for name in names} == names


def test_region_of_interest_and_binning_change_the_camera_like_the_image():
    cropped = info()
    cropped.roi.x_offset, cropped.roi.y_offset, cropped.roi.height, cropped.roi.width = 100, 40, 400, 500
    np.testing.assert_allclose(matrix(cropped, 400, 500)[:2, 2], [219.5, 199.5], rtol=1e-6)
    binned = matrix(info(binning_x=2, binning_y=2), 240, 320)
    np.testing.assert_allclose([binned[0, 0], binned[1, 1], binned[0, 2], binned[1, 2]], [250, 255, 159.5, 119.5], rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "factor"), [(240, 320, 0.5), (960, 1280, 2.0), (120, 160, 0.25)])
def test_an_image_that_was_scaled_has_its_camera_scaled(height, width, factor):
    scaled = matrix(info(), height, width)
    np.testing.assert_allclose(scaled[[0, 1], [0, 1]], [500 * factor, 510 * factor], rtol=1e-5)
    np.testing.assert_allclose(scaled[:2, 2] + 0.5, [320 * factor, 240 * factor], rtol=1e-5)


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (CameraInfo(), "not calibrated"),
        (info(k=[float("nan")] * 9), "not calibrated"),
        (info(k=[-500.0, 0.0, 1.0, 0.0, 500.0, 1.0, 0.0, 0.0, 1.0]), "not calibrated"),
        (info(height=0, width=0), "no image size"),
        (info(height=640, width=480), "another size than the image"),
        (info(k=[5.0, 0.0, 319.5, 0.0, 5.0, 239.5, 0.0, 0.0, 1.0]), "implausible calibration"),
        (info(k=[500.0, 0.0, 5000.0, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]), "implausible calibration"),
        (info(k=[500.0, 0.0, 319.5, 0.0, 5000.0, 239.5, 0.0, 0.0, 1.0]), "implausible calibration"),
        (info(d=[0.1, 0.2]), "distortion not usable"),
        (info(d=[float("inf")] * 5), "distortion not usable"),
        (info(distortion_model="wobbly", d=[0.1] * 5), "distortion not usable"),
    ],
)
def test_camera_info_that_cannot_be_used_says_why(broken, kind):
    with pytest.raises(BadMessage) as raised:
        calibration_from_info(broken, 480, 640)
    assert raised.value.kind == kind


def test_rectified_images_need_a_projection_matrix():
    with pytest.raises(BadMessage, match="P is"):
        calibration_from_info(info(p=[0.0] * 12), 480, 640, rectified=True)


def test_a_camera_survives_the_way_into_camera_info_and_back():
    camera = PinholeCamera.centred(1.3, 480, 640)
    back = calibration_from_info(camera_to_info(camera, Header()), 480, 640)
    assert back.lens is None
    np.testing.assert_allclose(back.camera.matrix_pixels(), camera.matrix_pixels(), rtol=1e-6)
