"""Feature backbones: objects that turn an image into a :class:`~semalign3d_core.evidence.FeatureMap`.

A backbone has ``name`` (identifies the features: family, size, version; two backbones with one name give
interchangeable features), ``channels`` (int), and ``extract(image: ImageInput) -> FeatureMap`` with unit-norm
features on the square-padded image. ``create(spec, dataset_root=None)`` makes one from the command line's spelling
``family[:argument]``, for example ``compact``, ``dinov2:base`` or ``precomputed:sim``.
"""

from typing import Protocol

from semalign3d_core.errors import choice
from semalign3d_core.evidence import FeatureMap, ImageInput


class FeatureBackbone(Protocol):
    """Anything that extracts features; see the module's docstring for the contract."""

    name: str
    channels: int

    def extract(self, image: ImageInput) -> FeatureMap: ...


def _precomputed(argument, **options):
    from semalign3d_core.backbones.precomputed import PrecomputedBackbone

    return PrecomputedBackbone(argument, **options)


def _compact(argument, dataset_root=None):
    from semalign3d_core.backbones.compact import CompactBackbone

    return CompactBackbone(argument or None)


# family -> factory(argument: str, *, dataset_root) -> FeatureBackbone; heavy imports happen inside the factories
BACKBONES = {"compact": _compact, "precomputed": _precomputed}


def create(spec, dataset_root=None):
    """Makes the backbone that ``spec`` (``family[:argument]``) names; unknown families raise with the legal ones."""
    family, _, argument = spec.partition(":")
    return choice("backbone", family, BACKBONES)(argument, dataset_root=dataset_root)
