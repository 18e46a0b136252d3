"""Entry points of ``torch.hub``: ``torch.hub.load(".", "semalign3d", source="local", category="mug")``."""

from semalign3d_core import Pipeline, load_pipeline

dependencies = ["torch", "numpy", "scipy", "cv2", "PIL", "safetensors", "tyro", "yaml"]


def semalign3d(category: str = "bottle", **options: str) -> Pipeline:
    """A pipeline for a category: the name of a shipped model, or the path of a model file.

    options: further fields of ``PipelineConfig``, for example ``device="cpu"``.
    """
    return load_pipeline(category, **options)
