"""Mask sources: objects that find the pixels of the object; ``create(spec, ...)`` makes one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import create_provider
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.plugins import Registry


class KnownObject(Protocol):
    """What a mask source needs of a category model: the name, and what the object looks like."""

    @property
    def category(self) -> str:
        """Name of the category."""
        ...

    @property
    def backbone(self) -> str:
        """Name of the features."""
        ...

    @property
    def dense_features(self) -> torch.Tensor:
        """(P, C) unit-norm features of points of the object."""
        ...


Box = tuple[float, float, float, float]
Points = torch.Tensor | np.ndarray
LoadModel = Callable[[str], KnownObject]


class MaskSource(Protocol):
    """Anything that finds the object's pixels. A mask source inherits from this class and overrides what differs.

    name:           identifies the masks
    reads_features: whether it finds the object in the features of an image (:meth:`segment_features`)
    glances:        whether it has a quick first look (:meth:`glance`) and finds finer masks in features of the object's surroundings
    any_image:      whether it can look at any image; False for one that only knows the files of a data set
    concurrent:     whether several threads may ask it at a time
    compares_with:  the category model that it compares features with, or None
    own_features:   name of the backbone whose features it looks at where it is given none or others, or ""
    folder:         holds ``<category>/<image>.*`` files that it reads, or None
    """

    name: str
    reads_features: bool = False
    glances: bool = False
    any_image: bool = True
    concurrent: bool = False
    compares_with: KnownObject | None = None
    own_features: str = ""
    folder: Path | None = None

    def segment(self, image: ImageInput, box: Box | None = None, points: Points | None = None) -> torch.Tensor | None:
        """(h, w) bool mask, None if nothing is found. box (x0, y0, x1, y1), points (N, 2): prompts in pixels, which may be ignored."""
        ...

    def segment_features(
        self, features: FeatureMap, image: ImageInput, box: Box | None = None, points: Points | None = None
    ) -> torch.Tensor | None:
        """As :meth:`segment`, for an image whose features are there already."""
        return self.segment(image, box, points)

    def glance(self, image: ImageInput, box: Box | None = None) -> torch.Tensor | None:
        """A quick first mask that shows where to look closely."""
        return self.segment(image, box)

    def search(self, image: ImageInput) -> Box | None:
        """A place (x0, y0, x1, y1) in pixels to look at where the object was not found; None: the source knows none."""
        return None

    def rest(self) -> None:
        """Nothing will be searched for a while: memory that only :meth:`search` needs can go."""
        return None


def _precomputed(argument: str, **options: Any) -> MaskSource:
    from semalign3d_core.perception.masks.precomputed import PrecomputedMasks

    return PrecomputedMasks(**options)


def _similarity(
    argument: str,
    model: KnownObject | None = None,
    backbone: FeatureBackbone | None = None,
    load_model: LoadModel | None = None,
) -> MaskSource:
    from semalign3d_core.perception.masks.similarity import SimilarityMasks

    if argument:
        if load_model is None:
            raise InputError(f"similarity:{argument}: no model can be loaded from a file here; give the model itself")
        model = load_model(argument)
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


def _compact(argument: str, model: KnownObject | None = None, backbone: FeatureBackbone | None = None) -> MaskSource:
    from semalign3d_core.perception.backbones.compact import CompactBackbone
    from semalign3d_core.perception.masks.compact import CompactMasks
    from semalign3d_core.perception.masks.finder import finder_at_hand

    own = backbone if isinstance(backbone, CompactBackbone) and not argument else CompactBackbone(argument or None, runtime="auto")
    shared = backbone is not None and backbone.name == own.name  # one name, interchangeable features
    category = "" if model is None else model.category
    return CompactMasks(own, category, shared, finder_at_hand(category))


def _auto(argument: str, model: KnownObject | None = None, backbone: FeatureBackbone | None = None) -> MaskSource:
    return (_compact if backbone is not None and backbone.classifies else _similarity)("", model, backbone)


def _sam(family: str) -> Callable[..., MaskSource]:
    def factory(
        argument: str,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        prompt_model: str = "",
        model: KnownObject | None = None,
        backbone: FeatureBackbone | None = None,
        load_model: LoadModel | None = None,
    ) -> MaskSource:
        from semalign3d_core.perception.masks.sam import load_sam

        prompter = _similarity(prompt_model, model, backbone, load_model) if prompt_model or model is not None else None
        return load_sam(family, argument, revision, device, dtype, prompter)

    return factory


def _instances(
    argument: str,
    revision: str | None = None,
    device: str | None = None,
    dataset_root: Path | None = None,
    model: KnownObject | None = None,
) -> MaskSource:
    from semalign3d_core.perception.masks.instances import load_instances

    stored = dataset_root is not None and (Path(dataset_root) / "Segmentation").is_dir()
    fallback = _precomputed("", dataset_root=dataset_root) if stored else None
    return load_instances(argument, revision, device, "" if model is None else model.category, fallback)


# family -> factory(argument: str, *, dataset_root, model, backbone) -> MaskSource or None; others are options of the spelling
MASKS = Registry(
    "masks",
    {
        "none": lambda argument, **options: None,
        "precomputed": _precomputed,
        "similarity": _similarity,
        "compact": _compact,
        "auto": _auto,
        "instances": _instances,
        "sam": _sam("sam"),
        "sam2": _sam("sam2"),
    },
)


def create(
    spec: str,
    dataset_root: str | Path | None = None,
    model: KnownObject | None = None,
    backbone: FeatureBackbone | None = None,
    load_model: Callable[[str], KnownObject] | None = None,
) -> MaskSource | None:
    """Makes the mask source that ``spec`` (``family[:argument][,option=value]``) names; ``none`` gives None.

    model: :class:`CategoryModel` of the object to find, for providers that need to know it; backbone: what extracts the
    features where only an image is given; load_model: reads the category models that a spelling names by their files.
    """
    known = {"dataset_root": dataset_root, "model": model, "backbone": backbone, "load_model": load_model}
    return create_provider("mask source", MASKS, spec, **known)
