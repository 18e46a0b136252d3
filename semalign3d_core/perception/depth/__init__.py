"""Depth sources: objects that estimate or read the depth of an image; ``create(spec, dataset_root)`` makes one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from semalign3d_core.perception.evidence import DepthMap, ImageInput
from semalign3d_core.perception.providers import create_provider
from semalign3d_core.runtime.plugins import Registry


class DepthSource(Protocol):
    """Anything that tells depth. A depth source inherits from this class and overrides what differs.

    name:       identifies the depth maps;  concurrent: whether several threads may ask it at a time
    folder:     holds ``<category>/<image>.*`` files that it reads, or None
    """

    name: str
    concurrent: bool = False
    folder: Path | None = None

    def estimate(self, image: ImageInput) -> DepthMap | None:
        """The :class:`DepthMap` of the whole image, NaN where unknown; None if nothing is known."""
        ...


def _precomputed(argument: str, **options: Any) -> DepthSource:
    from semalign3d_core.perception.depth.precomputed import PrecomputedDepth

    return PrecomputedDepth(**options)


def _sensor(argument: str, dataset_root: Path | None = None) -> DepthSource:
    from semalign3d_core.perception.depth.sensor import SensorDepth

    return SensorDepth(argument, dataset_root)


def _transformers(family: str) -> Callable[..., DepthSource]:
    def factory(
        argument: str, revision: str | None = None, device: str | None = None, dtype: str | None = None, kind: str | None = None
    ) -> DepthSource:
        from semalign3d_core.perception.depth.transformers_depth import load_depth

        return load_depth(family, argument, revision, device, dtype, kind)

    return factory


# family -> factory(argument: str, *, dataset_root) -> DepthSource or None; other parameters are options of the spelling
DEPTHS = Registry(
    "depths",
    {
        "none": lambda argument, **options: None,
        "precomputed": _precomputed,
        "sensor": _sensor,
        "depth_anything_v2": _transformers("depth_anything_v2"),
        "hf": _transformers("hf"),
    },
)


def create(spec: str, dataset_root: Path | None = None) -> DepthSource | None:
    """Makes the depth source that ``spec`` (``family[:argument][,option=value]``) names; ``none`` gives None."""
    return create_provider("depth source", DEPTHS, spec, dataset_root=dataset_root)
