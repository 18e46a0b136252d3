"""Feature backbones: objects that turn an image into a :class:`~semalign3d_core.perception.evidence.FeatureMap`.

``create(spec, dataset_root=None)`` makes one from the command line's spelling ``family[:argument][,option=value]``,
for example ``compact``, ``dinov2:base``, ``precomputed:sim`` or ``dinov2:large,device=cpu``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import create_provider
from semalign3d_core.runtime.plugins import Registry


class FeatureBackbone(Protocol):
    """Anything that extracts features. A backbone inherits from this class and overrides what differs.

    name:       identifies the features (family, size, version): two backbones with one name give interchangeable features
    channels:   C of the features
    close_up:   margin, in object sizes, of the window around a known object that it always looks at; None: the whole image
    any_image:  whether it can look at any image and window; False for one that only knows the files of a data set
    concurrent: whether several threads may ask it at a time
    folder:     holds ``<category>/<image>.*`` files that it reads, or None
    classifies: whether its features tell the objects it knows from the background, as those of the embedded backbone do
    """

    name: str
    channels: int
    close_up: float | None = None
    any_image: bool = True
    concurrent: bool = False
    folder: Path | None = None
    classifies: bool = False

    def extract(self, image: ImageInput) -> FeatureMap:
        """Unit-norm features of the image padded to a square, or of its window."""
        ...

    def follow(self, image: ImageInput) -> FeatureMap:
        """As :meth:`extract`, for the next frame of a video, in which the object is nearly where it was: may be cheaper and less sure."""
        return self.extract(image)


def _precomputed(argument: str, **options: Any) -> FeatureBackbone:
    from semalign3d_core.perception.backbones.precomputed import PrecomputedBackbone

    return PrecomputedBackbone(argument, **options)


def _compact(argument: str, dataset_root: Path | None = None, device: str = "cpu", runtime: str = "auto") -> FeatureBackbone:
    from semalign3d_core.perception.backbones.compact import CompactBackbone
    from semalign3d_core.perception.backbones.precision import choose_device

    return CompactBackbone(argument or None, choose_device(device), runtime)


def _efficientnet_lite(argument: str, side: str | int = 448, device: str = "cpu") -> FeatureBackbone:
    from semalign3d_core.perception.backbones.efficientnet_lite import EfficientNetLiteBackbone
    from semalign3d_core.perception.backbones.precision import choose_device

    return EfficientNetLiteBackbone(argument or "2", int(side), choose_device(device))


def _transformer(family: str) -> Callable[..., FeatureBackbone]:
    def factory(
        argument: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        side: str | None = None,
        runtime: str = "auto",
    ) -> FeatureBackbone:
        from semalign3d_core.perception.backbones.transformers_vit import load_transformer

        return load_transformer(family, argument, revision, device, dtype, side, runtime)

    return factory


def _diffusion(
    argument: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    captioner: str = "",
    step: str | int = 50,
    record: str = "hidden",
) -> FeatureBackbone:
    from semalign3d_core.perception.backbones.stable_diffusion import load_diffusion

    return load_diffusion(argument, revision, device, dtype, captioner, step, record)


def _diffusion_and_transformer(
    argument: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    captioner: str = "",
    step: str | int = 50,
    record: str = "hidden",
) -> FeatureBackbone:
    from semalign3d_core.perception.backbones.fused import FusedBackbone

    diffusion = _diffusion("", revision, device, dtype, captioner, step, record)
    return FusedBackbone(diffusion, _transformer("dinov2")(argument or "base", None, device, dtype))


# family -> factory(argument: str, *, dataset_root) -> FeatureBackbone; heavy imports happen inside the factories.
# Those of learned systems are named, module:function, because they stand above this package.
# A factory that needs no data set folder has no such parameter; its other parameters are options of the spelling.
BACKBONES = Registry(
    "backbones",
    {
        "auto": _compact,
        "compact": _compact,
        "precomputed": _precomputed,
        "efficientnet_lite": _efficientnet_lite,
        "dinov2": _transformer("dinov2"),
        "dinov3": _transformer("dinov3"),
        "vit": _transformer("vit"),
        "sd": _diffusion,
        "sd_dinov2": _diffusion_and_transformer,
        "geoaware": "semalign3d_core.learned.geoaware.backbone:load_geoaware",
        "spherical_maps": "semalign3d_core.learned.spherical_maps.backbone:load_spherical_maps",
    },
)


def create(spec: str, dataset_root: str | Path | None = None) -> FeatureBackbone:
    """Makes the backbone that ``spec`` names; unknown families and options raise with the legal ones."""
    return create_provider("backbone", BACKBONES, spec, dataset_root=dataset_root)
