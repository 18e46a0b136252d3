"""The model of a category from a folder of annotated images, as users build it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from semalign3d_core.category.model import CategoryModel
from semalign3d_core.runtime.errors import InputError


def build_model(dataset: str | Path, category: str, output: str | Path, **options: str | int) -> CategoryModel:
    """Builds the model of a category and writes it to ``output/<category>.safetensors``, with a report beside it.

    dataset: folder in SPair-71k's layout, as ``semalign3d import`` makes it from annotated pictures
    options: those of ``semalign3d build``, for example ``backbone="dinov2:base"``, ``split="all"``
    Returns the :class:`CategoryModel`. Raises :class:`InputError` for images or options that cannot be used.
    An interrupted build goes on where it stopped when it is started again.
    """
    from semalign3d_core.calibration.recipe import BuildOptions, build_one

    chosen: dict[str, Any] = dict(options)
    legal = [field.name for field in fields(BuildOptions) if field.name not in ("dataset", "category", "output")]
    unknown = sorted(set(chosen) - set(legal))
    if unknown:
        raise InputError(f"build_model has no option {unknown[0]!r}: choose one of {', '.join(legal)}")
    return build_one(BuildOptions(dataset=Path(dataset), category=(category,), output=Path(output), **chosen), category).model
