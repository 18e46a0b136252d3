"""Mask providers: ``name``, and ``segment(image, box=None, points=None) -> (h, w) bool tensor or None`` (nothing found).

``box`` is (x1, y1, x2, y2), ``points`` (N, 2), both in pixels; a provider may ignore them. A provider that looks at the features
also has ``segment_features(features, image, box=None, points=None)``, so that they are not extracted twice; one whose masks are finer in
features of the object's surroundings also has ``glance(image, box=None)``, a quick first mask that shows where these are.
"""

from typing import Protocol

import torch

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.providers import create_provider
from semalign3d_core.runtime.errors import InputError


class Segmenter(Protocol):
    """Anything that finds the object's pixels."""

    name: str

    def segment(self, image: ImageInput, box=None, points=None) -> torch.Tensor | None: ...


def _precomputed(argument, **options):
    from semalign3d_core.perception.masks.precomputed import PrecomputedMasks

    return PrecomputedMasks(**options)


def _similarity(argument, model=None, backbone=None):
    from semalign3d_core.category.storage import load_model
    from semalign3d_core.perception.masks.similarity import SimilarityMasks

    model = load_model(argument) if argument else model
    if model is None:
        raise InputError(
            "similarity masks need a category model to compare with, and there is none here: give one that was built earlier with the "
            "same backbone (similarity:FILE), or another mask source (sam2, precomputed)"
        )
    if argument and backbone is not None and backbone.name != model.backbone:
        raise InputError(
            f"{argument} was built with the backbone {model.backbone!r}, not with {backbone.name!r}: similarity masks need that one; "
            "choose it, a model built with this backbone, or another mask source"
        )
    return SimilarityMasks(model, backbone)


def _compact(argument, model=None, backbone=None):
    from semalign3d_core.perception.backbones.compact import CompactBackbone
    from semalign3d_core.perception.masks.compact import CompactMasks

    own = backbone if isinstance(backbone, CompactBackbone) and not argument else CompactBackbone(argument or None)
    shared = backbone is not None and backbone.name == own.name  # one name, interchangeable features
    return CompactMasks(own, "" if model is None else model.category, shared)


def _auto(argument, model=None, backbone=None):
    from semalign3d_core.perception.backbones.compact import CompactBackbone

    embedded = isinstance(getattr(backbone, "provider", backbone), CompactBackbone)  # also behind a cache
    return (_compact if embedded else _similarity)("", model, backbone)


def _sam(family):
    def factory(argument, revision=None, device=None, dtype=None, prompt_model="", model=None, backbone=None):
        from semalign3d_core.perception.masks.sam import load_sam

        prompter = _similarity(prompt_model, model, backbone) if prompt_model or model is not None else None
        return load_sam(family, argument, revision, device, dtype, prompter)

    return factory


# family -> factory(argument: str, *, dataset_root, model, backbone) -> Segmenter or None; others are options of the spelling
MASKS = {
    "none": lambda argument, **options: None,
    "precomputed": _precomputed,
    "similarity": _similarity,
    "compact": _compact,
    "auto": _auto,
    "sam": _sam("sam"),
    "sam2": _sam("sam2"),
}


def create(spec, dataset_root=None, model=None, backbone=None):
    """Makes the mask provider that ``spec`` (``family[:argument][,option=value]``) names; ``none`` gives None.

    model: :class:`CategoryModel` of the object to find, for providers that need to know it; backbone: what extracts the
    features where only an image is given.
    """
    return create_provider("mask source", MASKS, spec, dataset_root=dataset_root, model=model, backbone=backbone)
