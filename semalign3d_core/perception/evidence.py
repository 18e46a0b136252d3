"""An image, from a file or from whatever users have, and what was seen in it: features, depth, mask, camera."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image

from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.geometry.image_grid import SquareGrid, cut_square, mirror_image, mirror_square, rotate_square
from semalign3d_core.runtime.errors import FileFormatError, InputError
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


# Where what users have becomes an ImageInput.

ChannelOrder = Literal["rgb", "bgr"]
UserImage: TypeAlias = ImageInput | str | Path | bytes | Image.Image | np.ndarray | torch.Tensor
UserImages: TypeAlias = Sequence[UserImage]
KNOWN = "a path, the bytes of an image file, a Pillow image, a NumPy array (h, w, 3), a torch tensor (3, h, w), or a list of these"


def read_image(path: str | Path, record: Record | None = None) -> ImageInput:
    """Reads an image file as 8-bit RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted (16 bit: full range 0..65535); transparent pixels become white,
    as viewers show them; of an animation the first frame is taken. ``record`` is handed on to the :class:`ImageInput`.
    Raises :class:`MissingFileError` or :class:`FileFormatError`, naming the file.
    """
    with open_picture(path, record.remedy if record else "") as picture:
        return ImageInput(displayed_rgb(picture), str(path), record)


def as_image(image: UserImage, channel_order: ChannelOrder = "rgb", name: str = "image") -> ImageInput:
    """The :class:`ImageInput` of one image.

    image: a path; the bytes of an image file; a Pillow image; a NumPy array (h, w, 3), (h, w, 4) or (h, w); a torch tensor (3, h, w) or
        (1, h, w) on any device; or an :class:`ImageInput`. Arrays and tensors are uint8 in 0..255 or floating point in 0..1.
        Transparent pixels become white.
    channel_order: of arrays and tensors, ``rgb`` or ``bgr`` (as OpenCV has it); files and Pillow images know their own.
    name: what messages call an image that has no path.
    Raises :class:`InputError` with what was found and what is expected.
    """
    if channel_order not in ("rgb", "bgr"):
        raise InputError(f"channel_order is {channel_order!r}: choose rgb, or bgr for images that OpenCV read")
    if isinstance(image, ImageInput):
        return image
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image, name)
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image), name)
    if isinstance(image, torch.Tensor):
        return ImageInput(_rgb_of_tensor(image, channel_order, name), name)
    if isinstance(image, np.ndarray):
        return ImageInput(_rgb_of_array(image, channel_order, name), name)
    raise InputError(f"an image is {KNOWN}; found {type(image).__name__}")


def several(images: Any) -> Sequence[UserImage] | None:
    """The images of a list, or of an array or tensor with a batch axis, as they are; None for what is one image."""
    is_batch = isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4
    return images if is_batch or isinstance(images, list | tuple) else None


def _of_pillow(picture: Image.Image, name: str) -> ImageInput:
    check_picture(*picture.size, "the picture")
    return ImageInput(displayed_rgb(picture), name)


def _decoded(content: bytes, name: str) -> ImageInput:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return _of_pillow(picture, name)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileFormatError(f"{name}: its {len(content)} bytes are not an image file that Pillow can read ({error})") from error


def _rgb_of_tensor(tensor: torch.Tensor, order: ChannelOrder, name: str) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise InputError(f"{name}: expected a tensor (3, h, w), channels first, found shape {tuple(tensor.shape)}; see Tensor.permute")
    values = tensor.detach().cpu()
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    array = values.permute(1, 2, 0).numpy()
    return _rgb_of_array(array[..., 0] if tensor.shape[0] == 1 else array, order, name)


def _rgb_of_array(array: np.ndarray, order: ChannelOrder, name: str) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise InputError(f"{name}: expected an array (h, w, 3), channels last, found shape {array.shape}; see numpy.transpose")
    values = _bytes(array, name)
    if values.ndim == 2 or values.shape[2] == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    colours = values[..., 2::-1] if order == "bgr" else values[..., :3]
    if values.shape[2] == 4:
        opaque = values[..., 3:].astype(np.float64) / 255
        colours = np.rint(colours * opaque + 255 * (1 - opaque)).astype(np.uint8)
    return np.ascontiguousarray(colours)


def _bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Values as uint8."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: expected uint8 in 0..255 or floating point in 0..1, found {array.dtype}; convert it first")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also NaN
        raise InputError(
            f"{name}: floating-point images have values from 0 to 1, found {low:.3g} to {high:.3g}; divide by 255, or use uint8"
        )
    return np.rint(array * 255).astype(np.uint8)
