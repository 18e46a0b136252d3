"""Reading image files of any mode: the one place where a file becomes an :class:`ImageInput`."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(path: str | Path, record: Any = None) -> ImageInput:
    """Reads an image file as 8-bit RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted (16 bit: full range 0..65535); transparent pixels become white,
    as viewers show them; of an animation the first frame is taken. ``record`` is handed on to the :class:`ImageInput`.
    Raises :class:`MissingFileError` or :class:`FileFormatError`, naming the file.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            rgb = _to_rgb(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise MissingFileError(f"image {path} does not exist{_remedy(record)}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, expected an image file") from None
    except UnidentifiedImageError:
        raise FileFormatError(f"{path} is not an image that Pillow can read (JPEG, PNG, WebP, TIFF, BMP ...){_remedy(record)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileFormatError(f"{path} is damaged or too large ({error}); copy or export it again{_remedy(record)}") from error
    return ImageInput(rgb, str(path), record)


def as_image(image: "ImageInput | str | Path | np.ndarray | Image.Image") -> ImageInput:
    """An :class:`ImageInput` of what users have: a path, an RGB array (h, w, 3) uint8, a Pillow image, or an :class:`ImageInput` itself."""
    if isinstance(image, ImageInput):
        return image
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return ImageInput(_to_rgb(ImageOps.exif_transpose(image)))
    if isinstance(image, np.ndarray):
        return ImageInput(image)
    raise InputError(f"an image is a path, an RGB array (h, w, 3) uint8 or a Pillow image, found {type(image).__name__}")


def read_labels(path: Path) -> np.ndarray:
    """(h, w) what every pixel of a mask picture says: palette index, grey value, or the largest of its colours; never its transparency.

    Raises :class:`MissingFileError` or :class:`FileFormatError`, naming the file.
    """
    try:
        with Image.open(path) as picture:
            values, opaque = np.array(picture), [band.upper() != "A" for band in picture.getbands()]
    except FileNotFoundError:
        raise MissingFileError(f"mask {path} does not exist: segment this image") from None
    except (UnidentifiedImageError, OSError) as error:
        raise FileFormatError(f"mask {path} is not a readable picture ({error}); write it again") from error
    return values if values.ndim == 2 else values[..., opaque].max(axis=2)


def _remedy(record: Any) -> str:
    """What the record's data set says about missing images."""
    return f"; {record.remedy}" if getattr(record, "remedy", "") else ""


def list_images(folder: Path) -> list[Path]:
    """All image files directly in ``folder``, sorted by name; raises :class:`InputError` when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"folder {folder} does not exist")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        raise InputError(f"{folder} holds no image file ({', '.join(IMAGE_SUFFIXES)})")
    return files


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """A Pillow picture of any mode as (h, w, 3) uint8."""
    if picture.mode.startswith("I"):  # 16 bit, in 32-bit containers with older versions of Pillow
        values = np.asarray(picture, dtype=np.float64) / 257
        return _grey_to_rgb(values)
    if picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"floating-point values from {values.min():.3g} to {values.max():.3g}, expected 0 to 1")
        return _grey_to_rgb(values * 255)
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layered)
    return np.array(picture.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
