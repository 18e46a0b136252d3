"""Picture files of any kind and mode: the one place where they are opened, checked and become numbers."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import reading, shown, visible
from semalign3d_core.runtime.limits import check_picture

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")  # Pillow's others are no photographs
ORIENTATION_TAG = 0x0112
STRIP = 256  # rows that are converted at a time
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes the stored picture the displayed one


@contextmanager
def open_picture(path: str | Path, remedy: str = "") -> Iterator[Image.Image]:
    """The Pillow picture of a file, not yet decoded; pictures above the limits are refused before they are."""
    expected = (
        "expected a whole picture that Pillow can read (JPEG, PNG, WebP, TIFF, BMP ...), no video; "
        f"copy or export it again{remedy and f'; {remedy}'}"
    )
    with reading(path, expected, remedy) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on what our own limit decides
        # Given a name, Pillow 13 maps turned TIFF files of some kinds into memory by a wrong size.
        with open(file, "rb") as handle, Image.open(handle, formats=FORMATS) as picture:
            check_picture(*picture.size, path)
            yield picture


def picture_of_bytes(data: bytes, raw: bool = False) -> np.ndarray:
    """The picture in the bytes of a file as (h, w, 3) uint8 RGB, not turned, or with ``raw`` as its own numbers.

    Raises :class:`FileFormatError` for what is no picture, and for one above the limits.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            warnings.simplefilter("ignore")
            check_picture(*picture.size, "the picture")
            return np.array(picture) if raw else _to_rgb(picture)
    except InputError:
        raise
    except Exception as error:
        raise FileFormatError(f"{type(error).__name__}: {shown(error)}") from error


def displayed_rgb(picture: Image.Image) -> np.ndarray:
    """A Pillow picture of any mode as (h, w, 3) uint8, turned as its EXIF orientation says."""
    picture.load()  # which turns those of TIFF files, and takes the tag away
    return _to_rgb(picture, orientation(picture))


def as_stored(picture: Image.Image) -> tuple[int, tuple[int, int]]:
    """(EXIF orientation, (width, height) of the stored pixels) of an open picture file."""
    turn = orientation(picture)
    if picture.format == "TIFF" and turn >= 5:  # Pillow turns these itself, and says so by the size earlier or later
        picture.load()
        return turn, picture.size[::-1]
    return turn, picture.size


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none. Other EXIF data may be damaged: only this tag is read."""
    try:
        value = picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow has many errors for broken EXIF data
        return 1
    return value if value in TURNS else 1


def read_labels(path: Path) -> np.ndarray:
    """(h, w) integers, what every pixel of a mask picture says: palette index, grey value, or colour; never its transparency.

    A colour is red + 256 green + 65536 blue, a grey in colours its grey value. Raises :class:`MissingFileError` or
    :class:`FileFormatError`, naming the file.
    """
    with open_picture(path) as picture:
        values, opaque = np.array(picture), [band.upper() != "A" for band in picture.getbands()]
    if values.ndim == 2:
        return values
    bands = values[..., opaque].astype(np.int64)
    if (bands == bands[..., :1]).all():
        return bands[..., 0]
    return bands @ (256 ** np.arange(bands.shape[-1]))


def list_images(folder: Path) -> list[Path]:
    """All image files directly in ``folder``, sorted by name; raises :class:`InputError` when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"folder {folder} does not exist")
    files = [p for p in visible(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f"{folder} holds no image file ({', '.join(IMAGE_SUFFIXES)})")
    return files


def _to_rgb(picture: Image.Image, turn: int = 1) -> np.ndarray:
    """A Pillow picture of any mode as (h, w, 3) uint8 RGB, turned as an EXIF orientation says; in strips, as copies of all take memory."""
    width, height = picture.size
    rgb = np.empty((width, height, 3) if turn >= 5 else (height, width, 3), np.uint8)
    stored = _unturned(rgb, turn)
    for top in range(0, height, STRIP):
        strip = picture.crop((0, top, width, min(top + STRIP, height)))
        stored[top : top + STRIP] = _strip_to_rgb(strip)
    return rgb


def _unturned(displayed: np.ndarray, turn: int) -> np.ndarray:
    """A view of displayed pixels (h, w, 3) in the order in which the file stores them: what :data:`TURNS` does, undone."""
    if turn >= 5:
        displayed = displayed.swapaxes(0, 1)
    rows = -1 if turn in (3, 4, 6, 7) else 1
    columns = -1 if turn in (2, 3, 7, 8) else 1
    return displayed[::rows, ::columns]


def _strip_to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I"):  # 16 bit, in 32-bit containers with older versions of Pillow
        values = np.asarray(picture, dtype=np.float32) / 257
        return _grey_to_rgb(values)
    if picture.mode == "F":
        values = np.asarray(picture, dtype=np.float32)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"floating-point values from {values.min():.3g} to {values.max():.3g}, expected 0 to 1")
        return _grey_to_rgb(values * 255)
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layered)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
