"""The pinhole camera: the one owner of projection and back-projection.

Conventions (method of record, section 0): pixel ``(u, v)`` has u right, v down and centres at integers;
the normalised image point is ``p = (u, v) / L`` with ``L = max(height, width)``; the camera frame is
x right, y down, z forward (ROS optical frame).
"""

from dataclasses import dataclass, replace

import torch
from numpy.typing import ArrayLike

from semalign3d_core.runtime.errors import InputError

FOCAL = 0.05, 200.0  # longer sides: fish-eyes of 170 degrees, telescopes of 0.3
FAR_CENTRE = 100.0  # longer sides: crops of larger pictures have centres outside


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera without skew, in units of the longer image side ``L``.

    focal:      (2,) float, (fx, fy) / L
    principal:  (2,) float, (cx, cy) / L
    height, width: image size in pixels
    known:      True when the focal length is measured (CameraInfo), so that it must not be optimised
    """

    focal: torch.Tensor
    principal: torch.Tensor
    height: int
    width: int
    known: bool = True

    @property
    def longer_side(self) -> int:
        """``L``: the longer image side in pixels."""
        return max(self.height, self.width)

    @classmethod
    def centred(cls, focal: float | torch.Tensor, height: int, width: int, known: bool = False) -> "PinholeCamera":
        """Camera with principal point ``(w, h) / 2L`` and focal length ``focal`` in units of L (scalar)."""
        longer = max(height, width)
        both = torch.as_tensor(focal, dtype=torch.float32).reshape(-1).expand(2)
        return cls(both, torch.tensor([width / 2 / longer, height / 2 / longer]), height, width, known)

    @classmethod
    def from_pixels(cls, matrix: ArrayLike | torch.Tensor, height: int, width: int) -> "PinholeCamera":
        """Camera from a 3x3 intrinsic matrix in pixels (the ``K`` of a CameraInfo, row-major).

        Raises :class:`InputError` if the matrix is not finite or has no positive focal lengths.

        >>> camera = PinholeCamera.from_pixels([[500, 0, 320], [0, 500, 240], [0, 0, 1]], height=480, width=640)
        >>> camera.to_pixels(camera.project(torch.tensor([[0.1, 0.0, 1.0]]))).tolist()
        [[370.0, 240.0]]
        """
        pixels = torch.as_tensor(matrix, dtype=torch.float64).reshape(3, 3)
        if not torch.isfinite(pixels).all() or pixels[0, 0] <= 0 or pixels[1, 1] <= 0:
            raise InputError(f"camera matrix {pixels.flatten().tolist()} has no positive, finite focal lengths; calibrate the camera")
        longer = max(height, width)
        scaled = (pixels / longer).float()
        camera = cls(torch.stack([scaled[0, 0], scaled[1, 1]]), scaled[:2, 2].clone(), height, width, True)
        camera.check()
        return camera

    def check(self) -> None:
        """Raises :class:`InputError` for a camera that there is not: focal lengths of zero or of kilometres, NaN, a centre far away."""
        usual = all(FOCAL[0] <= length <= FOCAL[1] for length in self.focal.tolist())  # NaN is not
        if not (usual and all(-FAR_CENTRE <= place <= FAR_CENTRE for place in self.principal.tolist())):
            text = f"focal lengths of {FOCAL[0]:g} to {FOCAL[1]:g} times its longer side and a centre near it"
            matrix = self.matrix_pixels().flatten().tolist()
            raise InputError(f"camera matrix {matrix}, image {self.width} x {self.height}: expected {text}; calibrate the camera")

    def matrix_pixels(self) -> torch.Tensor:
        """3x3 intrinsic matrix in pixels (float32)."""
        matrix = torch.eye(3)
        matrix[[0, 1], [0, 1]] = self.focal * self.longer_side
        matrix[:2, 2] = self.principal * self.longer_side
        return matrix

    def with_focal(self, focal: torch.Tensor) -> "PinholeCamera":
        """The same camera with another focal length (units of L)."""
        return replace(self, focal=torch.as_tensor(focal, dtype=torch.float32).reshape(-1).expand(2))

    def resized(self, height: int, width: int) -> "PinholeCamera":
        """The camera of the image resized to ``height x width``; pixel areas, not centres, keep their place."""
        scale = torch.tensor([width / self.width, height / self.height])
        longer = max(height, width)
        principal = ((self.principal * self.longer_side + 0.5) * scale - 0.5) / longer
        return replace(self, focal=self.focal * self.longer_side * scale / longer, principal=principal, height=height, width=width)

    def cropped(self, left: float, top: float, height: int, width: int) -> "PinholeCamera":
        """The camera of the crop whose upper left pixel is ``(left, top)``."""
        longer = max(height, width)
        principal = (self.principal * self.longer_side - torch.tensor([float(left), float(top)])) / longer
        return replace(self, focal=self.focal * self.longer_side / longer, principal=principal, height=height, width=width)

    def to_pixels(self, points: torch.Tensor) -> torch.Tensor:
        """Normalised points (..., 2) to pixels."""
        return points * self.longer_side

    def to_normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (..., 2) to normalised points."""
        return pixels / self.longer_side

    def project(self, points: torch.Tensor) -> torch.Tensor:
        """Camera-frame points (..., 3) to normalised image points (..., 2): ``pi(x) = f (x, y) / z + c``."""
        return project(points, self.focal.to(points), self.principal.to(points))

    def back_project(self, pixels_normalised: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """Normalised points (..., 2) and depths z (...) to camera-frame points (..., 3)."""
        return back_project(pixels_normalised, depth, self.focal.to(depth), self.principal.to(depth))


def project(points: torch.Tensor, focal: torch.Tensor, principal: torch.Tensor) -> torch.Tensor:
    """``pi(x) = f (x, y) / z + c``.

    points (..., 3); focal and principal broadcast against (..., 2). Returns (..., 2) in the unit of ``focal``.
    The caller keeps points in front of the camera (z > 0).
    """
    return focal * points[..., :2] / points[..., 2:] + principal


def back_project(points: torch.Tensor, depth: torch.Tensor, focal: torch.Tensor, principal: torch.Tensor) -> torch.Tensor:
    """``x = z ((p - c) / f, 1)``: points (..., 2), depth (...) -> (..., 3) in the unit of ``depth``."""
    depth = depth[..., None]
    return torch.cat([(points - principal) / focal * depth, depth], dim=-1)
