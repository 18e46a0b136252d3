"""Lens distortion: the formulas as published, and pictures there and back."""

import cv2
import numpy as np
import pytest

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.distortion import LensDistortion, Undistortion
from semalign3d_core.runtime.errors import InputError

CAMERA = PinholeCamera.from_pixels([[400.0, 0, 159], [0, 390, 121], [0, 0, 1]], 240, 320)
POINTS = np.array([[0.0, 0.0], [0.1, -0.2], [-0.3, 0.25], [0.35, 0.3]])


def radial(points, model, values):
    """The published formulas, written out."""
    x, y = points.T
    r = np.hypot(x, y)
    if model == "equidistant":
        theta = np.arctan(r)
        bent = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(values)))
        return points * np.where(r > 0, bent / np.where(r > 0, r, 1), 1)[:, None]
    k1, k2, p1, p2, k3, *rest = [*values, 0, 0, 0, 0][: max(len(values), 8)]
    k4, k5, k6 = (rest + [0, 0, 0])[:3]
    factor = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
    return np.stack([
        x * factor + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
        y * factor + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    ], axis=1)  # fmt: skip


MODELS = [
    ("plumb_bob", [-0.35, 0.12, 0.001, -0.002, 0.01]),
    ("plumb_bob", [0.2, 0.0, 0.0, 0.0]),
    ("rational_polynomial", [0.5, -0.2, 0.0005, -0.001, 0.01, 0.6, -0.1, 0.02]),
    ("equidistant", [-0.02, 0.01, -0.004, 0.001]),
]


@pytest.mark.parametrize(("model", "values"), MODELS)
def test_points_are_distorted_as_the_models_say(model, values):
    np.testing.assert_allclose(LensDistortion.of(model, values).distort(POINTS), radial(POINTS, model, values), atol=1e-9)


def test_no_coefficients_are_no_distortion_but_a_fisheye_is_one():
    assert LensDistortion.of("plumb_bob", []) is None and LensDistortion.of("plumb_bob", [0.0] * 5) is None
    assert LensDistortion.of("", []) is None
    assert LensDistortion.of("equidistant", [0.0] * 4) is not None


@pytest.mark.parametrize(
    ("model", "values", "named"),
    [("wobbly", [0.1], "wobbly"), ("plumb_bob", [0.1] * 3, "3 coefficients"), ("plumb_bob", [float("nan")] * 5, "finite")],
)
def test_what_is_no_distortion_is_named(model, values, named):
    with pytest.raises(InputError, match=named):
        LensDistortion.of(model, values)


@pytest.mark.parametrize(("model", "values"), MODELS)
def test_a_picture_is_undistorted_and_its_points_go_back(model, values):
    lens = LensDistortion.of(model, values)
    columns, rows = np.meshgrid(np.arange(320), np.arange(240))
    undistorted = np.uint8(127 + 60 * np.sin(columns / 23) + 60 * np.cos(rows / 17))
    pixels = np.array([[159.0, 121.0], [60.0, 40.0], [250.0, 200.0], [120.0, 180.0]])
    undistortion = Undistortion(CAMERA, lens)
    seen = undistortion.to_distorted(pixels)
    # the distorted picture, made by inverting the mapping on a dense set of points
    matrix = CAMERA.matrix_pixels().double().numpy()
    solve = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    grid = np.stack([columns, rows], -1).reshape(-1, 1, 2).astype(np.float64)
    source = solve(grid, matrix, np.array(values), None, P=matrix).reshape(240, 320, 2).astype(np.float32)
    distorted = cv2.remap(undistorted, source, None, cv2.INTER_LINEAR)
    back = undistortion.picture(distorted)
    inner = (slice(30, -30), slice(40, -40))
    assert np.abs(back[inner].astype(int) - undistorted[inner]).max() <= 4
    expected = solve(seen.reshape(-1, 1, 2), matrix, np.array(values), None, P=matrix).reshape(-1, 2)
    np.testing.assert_allclose(expected, pixels, atol=0.05)
    assert np.isnan(undistortion.to_distorted(np.array([[np.nan, np.nan]]))).all()


def test_labels_are_not_mixed_and_what_the_lens_never_saw_is_missing():
    undistortion = Undistortion(CAMERA, LensDistortion.of("plumb_bob", [0.4, 0, 0, 0, 0]))
    values = undistortion.labels(np.full((240, 320), 7, np.float32), float("nan"))
    assert set(np.unique(values[np.isfinite(values)])) == {7.0} and np.isnan(values[0, 0])


def test_a_distortion_that_turns_back_in_the_picture_is_refused():
    with pytest.raises(InputError, match="turns back"):
        Undistortion(CAMERA, LensDistortion.of("plumb_bob", [-8.0, 0, 0, 0, 0]))
