"""An image, read from any file, and what was seen in it: features, depth, mask, camera."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid, cut_square, mirror_image, mirror_square, rotate_square
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.limits import check_picture
from semalign3d_core.runtime.pictures import displayed_rgb, open_picture
from semalign3d_core.runtime.values import ShortRepr

DEPTH_KINDS = ("metric", "depth", "disparity")


class Record(Protocol):
    """What providers need of the data-set record of an image: where its file and the files beside it are."""

    @property
    def category(self) -> str:
        """Name of the category."""
        ...

    @property
    def name(self) -> str:
        """Name of the image in its data set, without suffix."""
        ...

    @property
    def path(self) -> Path:
        """The image file."""
        ...

    @property
    def remedy(self) -> str:
        """How to get the file if it is missing, "" where nothing can be said."""
        ...


@dataclass(frozen=True, repr=False)
class ImageInput(ShortRepr):
    """An image on its way to the providers.

    rgb:      (h, w, 3) uint8
    name:     what messages call it (a path, a topic)
    record:   the data-set record it belongs to, for providers that read precomputed sidecars; else None
    mirrored: True if ``rgb`` is the mirror image of the record's file
    window:   (left, top, side) in whole pixels, the square that features are wanted of instead of the whole image: see :mod:`.look`
    quarters: by how many quarters ``rgb`` is turned anticlockwise against the record's file (or its mirror image)
    """

    rgb: np.ndarray
    name: str = "image"
    record: Record | None = None
    mirrored: bool = False
    window: tuple[int, int, int] | None = None
    quarters: int = 0

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8 or 0 in self.rgb.shape:
            raise InputError(f"{self.name}: expected a non-empty (h, w, 3) uint8 image, got {self.rgb.dtype} {self.rgb.shape}")

    @property
    def height(self) -> int:
        """In pixels."""
        return self.rgb.shape[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.rgb.shape[1]

    def seen(self) -> np.ndarray:
        """(h, w, 3) uint8: the part that features are wanted of. A window is filled up with black beyond the image."""
        if self.window is None:
            return self.rgb
        return cut_square(torch.from_numpy(self.rgb.transpose(2, 0, 1).copy()), self.window).permute(1, 2, 0).contiguous().numpy()

    def mirror(self) -> "ImageInput":
        """The mirror image of the same record."""
        window = None if self.window is None else mirror_square(self.window, self.width)
        return replace(self, rgb=np.ascontiguousarray(self.rgb[:, ::-1]), mirrored=not self.mirrored, window=window)

    def turn(self, quarters: int) -> "ImageInput":
        """The image turned by so many quarters anticlockwise."""
        window = None if self.window is None else rotate_square(self.window, self.height, self.width, quarters)
        turned = np.ascontiguousarray(np.rot90(self.rgb, quarters))
        return replace(self, rgb=turned, window=window, quarters=(self.quarters + quarters) % 4)


@dataclass(frozen=True, repr=False)
class DepthMap(ShortRepr):
    """A depth map and what its numbers mean.

    values: (h, w) float32; NaN where unknown (sensor holes)
    kind:   ``metric`` (metres), ``depth`` (up to scale) or ``disparity`` (relative inverse depth; nearer is larger)
    """

    values: torch.Tensor
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in DEPTH_KINDS:
            raise InputError(f"unknown depth kind {self.kind!r}: choose one of {', '.join(DEPTH_KINDS)}")
        if self.values.ndim != 2:
            raise InputError(f"depth map must be (h, w), got shape {tuple(self.values.shape)}")

    def z(self) -> torch.Tensor:
        """Depth along the optical axis, (h, w): disparity ``d`` becomes ``1 - 0.3 d / max(d)`` (method, section 0)."""
        if self.kind != "disparity":
            return self.values
        largest = self.values.nan_to_num(nan=0.0).max().clamp(min=1e-12)
        return 1 - 0.3 * self.values / largest

    def inverse(self) -> torch.Tensor:
        """Relative inverse depth, (h, w): nearer is larger; NaN where unknown or not positive."""
        if self.kind == "disparity":
            return self.values
        return torch.where(self.values > 0, 1 / self.values, torch.nan)

    def inverse_at(self, pixels: torch.Tensor) -> torch.Tensor:
        """:meth:`inverse` at the nearest of pixels (..., 2), without making the whole map; NaN outside the picture."""
        height, width = self.values.shape
        column, row = pixels.round().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        read = DepthMap(self.values.reshape(1, -1).index_select(1, index.reshape(-1)), self.kind).inverse().reshape(index.shape)
        return torch.where(inside, read, torch.nan)

    def mirror(self) -> "DepthMap":
        """The depth map of the mirror image."""
        return DepthMap(mirror_image(self.values), self.kind)


@dataclass(frozen=True, repr=False)
class FeatureMap(ShortRepr):
    """A feature map and how it sits on its image.

    values: (C, cells, cells) float32, unit norm along C
    grid:   the :class:`SquareGrid` of the image it belongs to
    quick:  made to follow an object in a video: a part of the channels is 0, the others are larger, so that similarities stay comparable
    """

    values: torch.Tensor
    grid: SquareGrid
    quick: bool = False

    def sample(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features (..., C) at pixels (..., 2), bilinear, renormalised."""
        return torch.nn.functional.normalize(self.grid.sample(self.values, pixels), dim=-1)

    def of_cells(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Features (Q, C) of the cells in ``rows`` and ``columns`` (Q,) int64."""
        return self.values[:, rows, columns].T

    def similarity(self, features: torch.Tensor) -> torch.Tensor:
        """Inner products (Q, cells * cells), row-major, of ``features`` (Q, C) with all cells."""
        return features @ self.values.flatten(1)


@dataclass(frozen=True, repr=False)
class ImageEvidence(ShortRepr):
    """Everything the alignment knows of one image.

    features: :class:`FeatureMap`
    mask:     (h, w) bool of the object, or None when nothing is known
    depth:    :class:`DepthMap` or None
    camera:   :class:`PinholeCamera`; ``camera.known`` says whether its focal length is measured
    image:    (h, w, 3) uint8 for pictures, or None
    name:     what messages call the image
    up:       (3,) unit vector against gravity in the camera's frame (x right, y down, z ahead), or None
    """

    features: FeatureMap
    camera: PinholeCamera
    mask: torch.Tensor | None = None
    depth: DepthMap | None = None
    image: np.ndarray | None = None
    name: str = "image"
    up: np.ndarray | None = None

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        for what, shape in (
            ("features", (self.features.grid.height, self.features.grid.width)),
            ("mask", None if self.mask is None else tuple(self.mask.shape)),
            ("depth", None if self.depth is None else tuple(self.depth.values.shape)),
        ):
            if shape is not None and shape != size:
                raise InputError(f"{self.name}: {what} belongs to {shape[1]} x {shape[0]} pixels, the camera to {size[1]} x {size[0]}")


# Where a file becomes an ImageInput.


def read_image(path: str | Path, record: Record | None = None) -> ImageInput:
    """Reads an image file as 8-bit RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted (16 bit: full range 0..65535); transparent pixels become white,
    as viewers show them; of an animation the first frame is taken. ``record`` is handed on to the :class:`ImageInput`.
    Raises :class:`MissingFileError` or :class:`FileFormatError`, naming the file.
    """
    with open_picture(path, record.remedy if record else "") as picture:
        return ImageInput(displayed_rgb(picture), str(path), record)


def as_image(image: "ImageInput | str | Path | np.ndarray | Image.Image") -> ImageInput:
    """An :class:`ImageInput` of what users have: a path, an RGB array (h, w, 3) uint8, a Pillow image, or an :class:`ImageInput` itself."""
    if isinstance(image, ImageInput):
        return image
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        check_picture(*image.size, "the picture")
        return ImageInput(displayed_rgb(image))
    if isinstance(image, np.ndarray):
        return ImageInput(image)
    raise InputError(f"an image is a path, an RGB array (h, w, 3) uint8 or a Pillow image, found {type(image).__name__}")
