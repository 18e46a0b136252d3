"""Features by which two images are compared, where they may depend on both.

Source: GeoAware-SC (CVPR 2024), section "global pose awareness": Stable Diffusion features of the pose prediction experiment are
reduced to the principal directions of each pair of images. An object here has ``describe(image)``, the :class:`Description` that
is kept of an :class:`ImageInput`, and ``together(a, b)``, the row-major tokens (cells * cells, C) of two such descriptions.
"""

from dataclasses import dataclass
from typing import Any

import torch

from semalign3d_core.perception.backbones.diffusion_steps import co_pca
from semalign3d_core.perception.backbones.fused import FusedBackbone, to_tokens, unit_norm
from semalign3d_core.perception.backbones.stable_diffusion import StableDiffusionBackbone
from semalign3d_core.perception.backbones.transformers_vit import TransformerBackbone
from semalign3d_core.perception.evidence import ImageInput

REDUCED = 256  # dimensions that are kept of each Stable Diffusion level


def pair_features(backbone: Any) -> "OwnPairFeatures | ReducedPairFeatures":
    """The pair features of ``backbone``: reduced ones where it records hidden state and skip, else its own."""
    if isinstance(backbone, FusedBackbone) and backbone.diffusion.config.record == "concatenated":
        return ReducedPairFeatures(backbone.diffusion, backbone.transformer)
    if isinstance(backbone, StableDiffusionBackbone) and backbone.config.record == "concatenated":
        return ReducedPairFeatures(backbone)
    return RawPairFeatures(backbone) if isinstance(backbone, TransformerBackbone) else OwnPairFeatures(backbone)


@dataclass(frozen=True)
class Description:
    """What is compared of an image, and how its square grid was padded (see :class:`~semalign3d_core.geometry.image_grid.SquareGrid`)."""

    content: Any
    padding: str = "canvas"


class OwnPairFeatures:
    """The unit-norm features of a backbone as they are."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    def describe(self, image: ImageInput) -> Description:
        """What is compared of an image."""
        return self.described(self.backbone.extract(image))

    @staticmethod
    def described(features: Any) -> Description:
        """The :class:`Description` of a :class:`~semalign3d_core.perception.evidence.FeatureMap` that is there already."""
        return Description(features.values.flatten(1).T, features.grid.padding)

    def together(self, a: Description, b: Description) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (P, C) of each of two images, comparable with one another."""
        return a.content, b.content


class RawPairFeatures(OwnPairFeatures):
    """Tokens of a vision transformer, not normalised, as published for a single backbone."""

    def describe(self, image: ImageInput) -> Description:
        """What is compared of an image."""
        return Description(to_tokens(self.backbone.raw([image]))[0])


class ReducedPairFeatures:
    """Stable Diffusion levels, each reduced for the pair, and beside them the tokens of a vision transformer, if there is one."""

    def __init__(self, diffusion: Any, transformer: Any = None, dims: Any = REDUCED) -> None:
        self.diffusion, self.transformer, self.dims = diffusion, transformer, dims

    def describe(self, image: ImageInput) -> Description:
        """What is compared of an image."""
        tokens = None if self.transformer is None else to_tokens(self.transformer.raw([image]))[0]
        return Description((self.diffusion.levels(image), tokens))

    def together(self, a: Description, b: Description) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (P, C) of each of two images, comparable with one another."""
        levels, tokens = zip(a.content, b.content, strict=True)
        diffusion = self._diffusion_tokens(*levels)
        if self.transformer is None:
            return diffusion
        first, second = (torch.cat([unit_norm(d), unit_norm(t)], dim=1) for d, t in zip(diffusion, tokens, strict=True))
        return first, second

    def _diffusion_tokens(self, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        reduced = {name: self._level(a[name], b[name]) for name in a}
        found = []
        for s3, s4, s5 in zip(*(reduced[name] for name in ("s3", "s4", "s5")), strict=True):
            # as published: the coarsest level in two steps
            coarse = torch.cat([s4, _resized(s5, s4.shape[-2:])], dim=1)
            found.append(to_tokens(torch.cat([s3, _resized(coarse, s3.shape[-2:])], dim=1))[0])
        first, second = found
        return first, second

    def _level(self, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        """Maps (1, C, n, n) of both images, each reduced: two of (1, dims, n, n)."""
        return [tokens.T.reshape(1, -1, *a.shape[-2:]) for tokens in co_pca(to_tokens(a)[0], to_tokens(b)[0], self.dims)]


def _resized(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
