"""A trained mapper at work: the place on the sphere of every feature cell of an image."""

import math
from pathlib import Path
from typing import Any

import torch

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.learned.spherical_maps.network import sphere_points
from semalign3d_core.learned.spherical_maps.storage import load_mapper, read_facts
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.precomputed import PrecomputedBackbone
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import InputError
from semalign3d_core.runtime.files import sha256_of_file

FEATURE_SHARE = 0.8  # of the fused similarity; the sphere has the rest


def raw_features(backbone: FeatureBackbone, image: ImageInput) -> tuple[torch.Tensor, SquareGrid]:
    """(values (C, cells, cells), grid) of an :class:`ImageInput` as the backbone gives them, before any normalisation."""
    if isinstance(backbone, TransformerBackbone):
        return backbone.raw([image])[0], backbone.grid(image)
    if isinstance(backbone, PrecomputedBackbone):
        stored = backbone.stored(image)
        return stored.stored.float(), stored.grid
    raise InputError(f"{backbone.name} has no features before normalisation, which this mapper reads; use dinov2:base or precomputed ones")


def scaled(values: torch.Tensor) -> torch.Tensor:
    """Unit features (C, ...) times the root of C: numbers of about 1, as the first layer likes them."""
    return values * math.sqrt(len(values))


def mapper_input(backbone: FeatureBackbone, image: ImageInput, raw: bool) -> tuple[torch.Tensor, SquareGrid]:
    """(values (C, cells, cells), grid) that a mapper reads of an image, see :class:`.storage.MapperFacts`."""
    if raw:
        return raw_features(backbone, image)
    found = backbone.extract(image)
    return scaled(found.values), found.grid


class TrainedMapper:
    """The mapper of a checkpoint file, ours or an official one, on a device."""

    def __init__(self, path: str | Path, device: Any = "cpu") -> None:
        self.path, self.facts, self.device = Path(path), read_facts(path), torch.device(device)
        self.network = load_mapper(path).to(self.device)
        self.channels = self.network[0].in_features
        self.label = sha256_of_file(path)[:8]

    @classmethod
    def for_pictures(cls, path: str | Path, backbone: FeatureBackbone) -> "TrainedMapper":
        """The mapper in a file, if it reads the normalised features that ``backbone`` gives; else :class:`InputError`."""
        mapper = cls(path)
        mapper.check(backbone)
        if mapper.facts.raw:
            raise InputError(f"{path} reads features before normalisation, and here are only normalised ones; train a mapper on those")
        return mapper

    def check(self, backbone: FeatureBackbone) -> None:
        """Raises :class:`InputError` if the mapper was trained on other features than those of ``backbone``."""
        if self.facts.features and self.facts.features != backbone.name:
            raise InputError(f"{self.path} was trained on features of {self.facts.features}, not of {backbone.name}; use that backbone")
        if backbone.channels != self.channels:
            raise InputError(f"{self.path} reads {self.channels} channels, {backbone.name} gives {backbone.channels}; use its own backbone")

    def of_features(self, values: torch.Tensor) -> torch.Tensor:
        """:meth:`points` for unit features (C, cells, cells), which the mapper must read (:meth:`for_pictures`)."""
        return self.points(scaled(values))

    @torch.no_grad()
    def points(self, values: torch.Tensor) -> torch.Tensor:
        """Unit vectors (3, cells, cells) for what :func:`mapper_input` gives; no mask is needed."""
        tokens = values.flatten(1).T[None].to(self.device)
        return sphere_points(self.network(tokens))[0].T.unflatten(1, values.shape[1:]).cpu().contiguous()
