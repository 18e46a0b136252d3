"""Depth providers: ``name``, and ``estimate(image: ImageInput) -> DepthMap``; ``create(spec, dataset_root)`` makes one."""

from typing import Protocol

from semalign3d_core.errors import choice
from semalign3d_core.evidence import DepthMap, ImageInput


class DepthEstimator(Protocol):
    """Anything that tells depth; unknown pixels are NaN."""

    name: str

    def estimate(self, image: ImageInput) -> DepthMap: ...


def _precomputed(argument, **options):
    from semalign3d_core.depth.precomputed import PrecomputedDepth

    return PrecomputedDepth(**options)


DEPTHS = {"none": lambda argument, **options: None, "precomputed": _precomputed}


def create(spec, dataset_root=None):
    """Makes the depth provider that ``spec`` (``family[:argument]``) names; ``none`` gives None."""
    family, _, argument = spec.partition(":")
    return choice("depth source", family, DEPTHS)(argument, dataset_root=dataset_root)
