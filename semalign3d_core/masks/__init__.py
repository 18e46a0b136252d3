"""Mask providers: ``name``, and ``segment(image, box=None, points=None) -> (h, w) bool tensor or None`` (nothing found).

``box`` is (x1, y1, x2, y2), ``points`` (N, 2), both in pixels; a provider may ignore them.
"""

from typing import Protocol

import torch

from semalign3d_core.errors import choice
from semalign3d_core.evidence import ImageInput


class Segmenter(Protocol):
    """Anything that finds the object's pixels."""

    name: str

    def segment(self, image: ImageInput, box=None, points=None) -> torch.Tensor | None: ...


def _precomputed(argument, **options):
    from semalign3d_core.masks.precomputed import PrecomputedMasks

    return PrecomputedMasks(**options)


MASKS = {"none": lambda argument, **options: None, "precomputed": _precomputed}


def create(spec, dataset_root=None):
    """Makes the mask provider that ``spec`` (``family[:argument]``) names; ``none`` gives None."""
    family, _, argument = spec.partition(":")
    return choice("mask source", family, MASKS)(argument, dataset_root=dataset_root)
