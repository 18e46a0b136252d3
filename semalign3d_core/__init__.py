"""SemAlign3D: 3D semantic alignment of object categories to images.

    from semalign3d_core import load_pipeline

    alignment = load_pipeline("mug").process("photo.jpg").alignment

The three values that travel through the package are :class:`ImageEvidence` (what was seen),
:class:`CategoryModel` (what is known of a category) and :class:`Alignment` (what was found).
"""

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.storage import load_model
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import DepthMap, ImageEvidence, ImageInput, read_image
from semalign3d_core.pipeline import FrameResult, Pipeline, PipelineConfig, load_pipeline
from semalign3d_core.transfer.matches import Matches

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "CategoryModel",
    "DepthMap",
    "FrameResult",
    "ImageEvidence",
    "ImageInput",
    "Matches",
    "PinholeCamera",
    "Pipeline",
    "PipelineConfig",
    "__version__",
    "load_model",
    "load_pipeline",
    "read_image",
]
