"""SemAlign3D: 3D semantic alignment of object categories to images.

The three values that travel through the package are :class:`ImageEvidence` (what was seen),
:class:`CategoryModel` (what is known of a category) and :class:`Alignment` (what was found).
"""

from semalign3d_core.alignment.result import Alignment
from semalign3d_core.category.model import CategoryModel
from semalign3d_core.geometry.camera import PinholeCamera
from semalign3d_core.perception.evidence import DepthMap, ImageEvidence, ImageInput

__version__ = "0.1.0"

__all__ = ["Alignment", "CategoryModel", "DepthMap", "ImageEvidence", "ImageInput", "PinholeCamera", "__version__"]
