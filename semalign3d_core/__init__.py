"""SemAlign3D: 3D semantic alignment of object categories to images.

    from semalign3d_core import load_pipeline

    load_pipeline("mug").process("photo.jpg").draw("found.png")

What travels through the package: :class:`ImageEvidence` (what was seen in an image), :class:`CategoryModel` (what is known of a
category) and :class:`Alignment` (what was found). These names are the public interface; a test freezes them.
"""

from semalign3d_core import starting  # noqa: F401  (before everything else)

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

from semalign3d_core.runtime.version import __version__

if TYPE_CHECKING:
    from semalign3d_core.alignment.result import Alignment
    from semalign3d_core.calibration.recipe import build_model
    from semalign3d_core.category.model import CategoryModel
    from semalign3d_core.category.storage import load_model
    from semalign3d_core.geometry.camera import PinholeCamera
    from semalign3d_core.geometry.image_grid import SquareGrid
    from semalign3d_core.matchers import Matcher
    from semalign3d_core.matching import match
    from semalign3d_core.perception.backbones import FeatureBackbone
    from semalign3d_core.perception.depth import DepthSource
    from semalign3d_core.perception.evidence import DepthMap, FeatureMap, ImageEvidence, ImageInput, read_image
    from semalign3d_core.perception.masks import MaskSource
    from semalign3d_core.pipeline import Pipeline, PipelineConfig, load_pipeline
    from semalign3d_core.results import FrameResult, MatchResult
    from semalign3d_core.runtime.errors import SemAlign3DError
    from semalign3d_core.transfer.matches import Matches

__all__ = [
    "Alignment",
    "CategoryModel",
    "DepthMap",
    "DepthSource",
    "FeatureBackbone",
    "FeatureMap",
    "FrameResult",
    "ImageEvidence",
    "ImageInput",
    "MaskSource",
    "MatchResult",
    "Matcher",
    "Matches",
    "PinholeCamera",
    "Pipeline",
    "PipelineConfig",
    "SemAlign3DError",
    "SquareGrid",
    "__version__",
    "build_model",
    "load_model",
    "load_pipeline",
    "match",
    "read_image",
]

_MODULES = {
    "Alignment": "alignment.result",
    "CategoryModel": "category.model",
    "DepthMap": "perception.evidence",
    "DepthSource": "perception.depth",
    "FeatureBackbone": "perception.backbones",
    "FeatureMap": "perception.evidence",
    "FrameResult": "results",
    "ImageEvidence": "perception.evidence",
    "ImageInput": "perception.evidence",
    "MaskSource": "perception.masks",
    "MatchResult": "results",
    "Matcher": "matchers",
    "Matches": "transfer.matches",
    "PinholeCamera": "geometry.camera",
    "Pipeline": "pipeline",
    "PipelineConfig": "pipeline",
    "SemAlign3DError": "runtime.errors",
    "SquareGrid": "geometry.image_grid",
    "build_model": "calibration.recipe",
    "load_model": "category.storage",
    "load_pipeline": "pipeline",
    "match": "matching",
    "read_image": "perception.evidence",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first asked for: commands and nodes begin at once, and load no more than they use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
