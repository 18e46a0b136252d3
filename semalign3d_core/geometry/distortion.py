"""Lens distortion: the one place where distorted pictures become those of a pinhole camera, and points go back.

The models and the order of their coefficients are those of OpenCV and of ROS' CameraInfo. Points are image points for focal length 1,
``(x / z, y / z)``.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.runtime.errors import InputError

# model -> (numbers of coefficients it may have, whether it is OpenCV's fisheye model)
MODELS = {
    "plumb_bob": ((4, 5), False),  # k1 k2 p1 p2 k3 (Brown 1966)
    "rational_polynomial": ((8, 12, 14), False),  # k1 k2 p1 p2 k3 k4 k5 k6, thin prism, tilt
    "equidistant": ((4,), True),  # k1 k2 k3 k4 (Kannala and Brandt 2006)
    "fisheye": ((4,), True),
}
NO_MAP = np.array([], dtype=np.float32)  # columns and rows come in one map
SAMPLES = 400  # along the radius, to find where a distortion turns back
LEAST_SEEN = 0.7  # share of the shorter half of the picture that a usable distortion covers before it turns back


@dataclass(frozen=True)
class LensDistortion:
    """A distortion ``model`` of :data:`MODELS` and its ``coefficients``; make it with :meth:`of`."""

    model: str
    coefficients: tuple[float, ...]

    @classmethod
    def of(cls, model: str, coefficients: "list[float] | np.ndarray") -> "LensDistortion | None":
        """The distortion of a calibration; None if there is none (no coefficients, or zeros).

        Raises :class:`InputError` for an unknown model, a wrong number of coefficients, or numbers that are not finite.
        """
        values = tuple(float(value) for value in coefficients)
        if not all(np.isfinite(values)):
            raise InputError(f"the distortion coefficients are {list(values)}, expected finite numbers; calibrate the camera again")
        if model not in MODELS and any(values):
            raise InputError(f"the distortion model is {model!r}, known are {', '.join(MODELS)}; rectify the images instead")
        if model in MODELS and any(values) and len(values) not in MODELS[model][0]:
            counts = " or ".join(str(count) for count in MODELS[model][0])
            raise InputError(f"{len(values)} coefficients for {model}, expected {counts}; calibrate the camera again")
        fisheye = model in MODELS and MODELS[model][1]  # without coefficients it is still no pinhole camera
        return cls(model, values) if any(values) or (fisheye and values) else None

    def distort(self, points: np.ndarray) -> np.ndarray:
        """Where undistorted points (N, 2) appear, (N, 2); float64, both for focal length 1."""
        points = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 1, 2)
        if not len(points):
            return points.reshape(-1, 2)
        matrix, coefficients = np.eye(3), np.array(self.coefficients)
        if MODELS[self.model][1]:
            return cv2.fisheye.distortPoints(points, matrix, coefficients).reshape(-1, 2)
        rays = cv2.convertPointsToHomogeneous(points).reshape(-1, 1, 3)
        return cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, coefficients)[0].reshape(-1, 2)

    def largest_radius(self, limit: float) -> float:
        """The radius (focal length 1), at most ``limit``, up to which points farther out also appear farther out."""
        radii = np.linspace(0, limit, SAMPLES)
        reached = [radii[_rising(np.linalg.norm(self.distort(radii[:, None] * [c, s]), axis=1))] for c, s in _DIRECTIONS]
        return float(min(reached))


_DIRECTIONS = [(np.cos(angle), np.sin(angle)) for angle in np.arange(8) * np.pi / 4]


def _rising(values: np.ndarray) -> int:
    """Index of the last of values (N,) up to which they rise."""
    falls = np.flatnonzero(np.diff(values) <= 0)
    return falls[0] if len(falls) else len(values) - 1


class Undistortion:
    """Takes the distortion out of the pictures of one camera. The undistorted picture has the same size and the same camera matrix.

    camera: :class:`PinholeCamera` of the distorted picture;  lens: its :class:`LensDistortion`
    Raises :class:`InputError` where the distortion turns back well inside the picture, as no lens does.
    """

    def __init__(self, camera: PinholeCamera, lens: LensDistortion):
        self.camera, self.lens = camera, lens
        matrix = camera.matrix_pixels().double().numpy()
        self._focal, self._principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
        columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        points = (np.stack([columns, rows], -1).reshape(-1, 2) - self._principal) / self._focal
        radius = np.linalg.norm(points, axis=1)
        usable = lens.largest_radius(float(radius.max()))
        self._check(usable)
        source = np.where((radius <= usable)[:, None], self.to_distorted(points * self._focal + self._principal), -2.0)
        self._maps = source.astype(np.float32).reshape(camera.height, camera.width, 2)

    def _check(self, usable: float) -> None:
        half = np.array([self.camera.width, self.camera.height]) / 2
        seen = np.linalg.norm(self.lens.distort(usable * np.array(_DIRECTIONS)) * self._focal, axis=1).min()
        if seen < LEAST_SEEN * half.min():
            raise InputError(
                f"{self.lens.model} with the coefficients {list(self.lens.coefficients)} turns back {seen:.0f} pixels from the centre "
                f"of {self.camera.width} x {self.camera.height} pixels, as no lens does; calibrate the camera again"
            )

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """A picture (h, w) or (h, w, C) uint8 without distortion; black where the distorted one does not reach."""
        return cv2.remap(pixels, self._maps, NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)

    def labels(self, values: np.ndarray, missing: float = 0) -> np.ndarray:
        """As :meth:`picture` for values (h, w) that must not be mixed: depth, masks."""
        return cv2.remap(values, self._maps, NO_MAP, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=missing)

    def box(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """The box (x0, y0, x1, y1) around what a box of the distorted picture shows, in pixels of the undistorted one."""
        x0, y0, x1, y1 = box
        inside = np.all((self._maps >= [x0, y0]) & (self._maps <= [x1, y1]), axis=-1)
        rows, columns = np.flatnonzero(np.any(inside, axis=1)), np.flatnonzero(np.any(inside, axis=0))
        return (float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])) if len(rows) else box

    def to_distorted(self, pixels: np.ndarray) -> np.ndarray:
        """Where pixels (N, 2) of the undistorted picture lie in the distorted one, (N, 2) float64; NaN stays NaN."""
        pixels = np.asarray(pixels, dtype=np.float64)
        return self.lens.distort((pixels - self._principal) / self._focal) * self._focal + self._principal
