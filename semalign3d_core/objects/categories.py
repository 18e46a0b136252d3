"""Pipelines of several categories that share one look of the backbone at every image."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.pipeline import Pipeline, PipelineConfig, create_pipeline
from semalign3d_core.runtime.errors import InputError

KEPT = 32  # looks at one image that are remembered


def create_pipelines(config: PipelineConfig) -> tuple[Pipeline, ...]:
    """The :class:`Pipeline` of every category that ``config.category`` names, separated by commas; the demonstration is the first one's.

    Raises :class:`InputError` where no category is named, or one twice, and what :func:`create_pipeline` raises.
    """
    names = [name.strip() for name in config.category.split(",") if name.strip()]
    if not names:
        raise InputError("no category is named; name one, or several separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"{config.category!r} names a category twice")
    first = create_pipeline(replace(config, category=names[0]))
    if len(names) > 1:
        share_looks(first.backbone)
    others = [create_pipeline(replace(config, category=name, demonstration=""), backbone=first.backbone) for name in names[1:]]
    return first, *others


def share_looks(backbone: FeatureBackbone) -> None:
    """Makes a backbone remember what it saw in the image that it was asked about last, window by window."""
    for name in ("extract", "follow", "glance"):
        if hasattr(backbone, name):
            setattr(backbone, name, _Remembered(getattr(backbone, name)))


class _Remembered:
    def __init__(self, look: Callable[[ImageInput], Any]) -> None:
        self._look = look
        self._rgb: np.ndarray | None = None
        self._known: dict[Any, Any] = {}

    def __call__(self, image: ImageInput) -> Any:
        if image.rgb is not self._rgb or len(self._known) >= KEPT:
            self._rgb, self._known = image.rgb, {}
        if image.window not in self._known:
            self._known[image.window] = self._look(image)
        return self._known[image.window]
