"""How much a file or a message may ask for. Readers check it before they allocate anything.

Each limit has an environment variable for whoever means it: ``SEMALIGN3D_MAX_PICTURE_MEGAPIXELS=200 semalign3d align ...``.
"""

import os

from semalign3d_core.runtime.errors import FileFormatError, InputError

DEFAULTS = {
    "PICTURE_MEGAPIXELS": 64.0,  # a phone's picture has 12 to 50, a camera's up to 61
    "PICTURE_SIDE": 10000.0,  # pixels of the longer side
    "PICTURE_ASPECT": 20.0,  # longer side over shorter one: pictures are padded to squares
    "TEXT_MEGABYTES": 300.0,  # the largest annotation file of COCO has 240
    "ARRAYS_MEGABYTES": 400.0,  # unpacked arrays of one .npz file
}


def limit(name: str) -> float:
    """The value of a limit: the default, or that of its environment variable."""
    text = os.environ.get(_variable(name))
    try:
        value = DEFAULTS[name] if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not value > 0:
        raise InputError(f"{_variable(name)} is {text!r}, expected a number above 0")
    return value


def check_limit(name: str, value: float, where: object, what: str) -> None:
    """Raises :class:`FileFormatError` if ``value`` is above a limit; ``what`` names it, with its unit."""
    most = limit(name)
    if not value <= most:
        raise FileFormatError(f"{where} has {what}, the limit is {most:g}; if you mean it, set {_variable(name)}={value:.5g}")


def check_picture(width: int, height: int, where: object) -> None:
    """Raises :class:`FileFormatError` for a picture with more pixels, a longer side or another shape than the limits allow."""
    size, longer, shorter = f"{width} x {height} pixels", max(width, height), min(width, height)
    check_limit("PICTURE_MEGAPIXELS", width * height / 1e6, where, f"{size} ({width * height / 1e6:.1f} megapixels)")
    check_limit("PICTURE_SIDE", longer, where, size)
    check_limit("PICTURE_ASPECT", longer / max(shorter, 1), where, f"{size} (sides {longer / max(shorter, 1):.0f} : 1)")


def _variable(name: str) -> str:
    return f"SEMALIGN3D_MAX_{name}"
