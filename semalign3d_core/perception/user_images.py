"""Images as users have them: the one place where paths, bytes, Pillow images, arrays and tensors become an :class:`ImageInput`."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image

from semalign3d_core.perception import evidence
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError

ChannelOrder = Literal["rgb", "bgr"]
UserImage: TypeAlias = ImageInput | str | Path | bytes | Image.Image | np.ndarray | torch.Tensor
UserImages: TypeAlias = Sequence[UserImage]

KNOWN = "a path, the bytes of an image file, a Pillow image, a NumPy array (h, w, 3), a torch tensor (3, h, w), or a list of these"


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
    if isinstance(image, ImageInput | str | Path):
        return evidence.as_image(image)
    if isinstance(image, Image.Image):
        return replace(evidence.as_image(image), name=name)
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image), name)
    if isinstance(image, torch.Tensor):
        return ImageInput(_rgb_of_tensor(image, channel_order, name), name)
    if isinstance(image, np.ndarray):
        return ImageInput(_rgb_of_array(image, channel_order, name), name)
    raise InputError(f"an image is {KNOWN}; found {type(image).__name__}")


def as_images(images: Any, channel_order: ChannelOrder = "rgb") -> list[ImageInput] | None:
    """The images of a list, or of an array or tensor with a batch axis; None for what is one image."""
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4 or isinstance(images, list | tuple):
        return [as_image(image, channel_order, f"image {n}") for n, image in enumerate(images)]
    return None


def _decoded(content: bytes, name: str) -> ImageInput:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return replace(evidence.as_image(picture), name=name)
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
