"""Pages that are one file: style, script, data and pictures inside, no network needed."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import finite

FOLDER = Path(__file__).parent.parent / "assets" / "pages"


def page(title: str, script: str, data: dict[str, Any], pictures: dict[str, np.ndarray] | None = None) -> str:
    """HTML of a page: ``assets/pages/<script>.html`` with the shared style, its script, and ``data`` (JSON) as ``DATA``.

    Non-finite numbers become null. ``pictures`` {caption: (h, w, 3) uint8 RGB} stand at its end.
    """
    text = json.dumps(finite(data), ensure_ascii=False).replace("<", "\\u003c")
    parts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "charts.js", f"{script}.js", f"{script}.html")}
    about = '<meta charset="utf-8"><meta name="generator" content="semalign3d"><meta name="viewport" content="width=device-width">'
    meta = f"{about}<title>{escape(title)}</title>"
    head = f"{meta}<style>{parts['page.css']}</style>"
    scripts = f"<script>\nconst DATA = {text};\n{parts['charts.js']}\n{parts[f'{script}.js']}</script>"
    body = f"<h1>{escape(title)}</h1>\n{parts[f'{script}.html']}{figures(pictures or {})}"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n{scripts}\n</body></html>\n'


def figures(pictures: dict[str, np.ndarray], kind: str = "row thumbs") -> str:
    """HTML of pictures {caption: (h, w, 3) uint8 RGB} beside each other, in a block of a CSS class; nothing without pictures."""
    each = (f'<figure><img src="{picture_url(rgb)}"><figcaption>{escape(text)}</figcaption></figure>' for text, rgb in pictures.items())
    return f'<div class="{kind}">{"".join(each)}</div>' if pictures else ""


def picture_url(rgb: np.ndarray, longer_side: int | None = None, quality: int = 85) -> str:
    """A picture (h, w, 3) uint8 RGB as a JPEG ``data:`` address, reduced to ``longer_side`` if it is larger."""
    factor = 1.0 if longer_side is None else min(1.0, longer_side / max(rgb.shape[:2]))
    if factor < 1:
        rgb = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    good, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise InputError(f"a picture of shape {rgb.shape} cannot be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def bytes_text(values: np.ndarray) -> str:
    """Values in [0, 1] as base64 of one byte each; pages read them with ``bytesOf``."""
    scaled = np.clip(np.rint(np.asarray(values, dtype=np.float64) * 255), 0, 255).astype(np.uint8)
    return base64.b64encode(scaled.tobytes()).decode()


def rounded(values: np.ndarray | torch.Tensor, digits: int = 4) -> list:
    """A tensor or array as nested lists of short numbers."""
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
