"""Stable Diffusion and vision transformer features side by side, and their zero-shot normalisation.

Source: GeoAware-SC (CVPR 2024), sections "fusion" and "zero-shot"; order of channels ``s3 | s4 | s5 | dino``.
"""

from typing import Any

import torch

from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.runtime.errors import InputError

NORM_FLOOR = 1e-10


def fuse_maps(s3: torch.Tensor, s4: torch.Tensor, s5: torch.Tensor, dino: torch.Tensor) -> torch.Tensor:
    """Concatenates maps (B, C_i, h_i, w_i) along channels at the size of ``s3``; no normalisation, as published."""
    size = s3.shape[-2:]
    raised = [torch.nn.functional.interpolate(s, size=size, mode="bilinear", align_corners=False) for s in (s4, s5)]
    if dino.shape[-2:] != size:
        raise InputError(f"transformer features are {tuple(dino.shape[-2:])}, Stable Diffusion features {tuple(size)}: use the same grid")
    return torch.cat([s3, *raised, dino], dim=1)


def to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) to row-major tokens (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def unit_norm(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (..., C) divided by (norm + 1e-10)."""
    return tokens / (tokens.norm(dim=-1, keepdim=True) + NORM_FLOOR)


def zero_shot_normalize(tokens: torch.Tensor, diffusion_channels: int = 3200) -> torch.Tensor:
    """Normalises the Stable Diffusion and the transformer part of ``tokens`` (..., C) one by one, then together.

    Both parts contribute equally to the cosine.
    """
    parts = unit_norm(tokens[..., :diffusion_channels]), unit_norm(tokens[..., diffusion_channels:])
    return unit_norm(torch.cat(parts, dim=-1))


class FusedBackbone(FeatureBackbone):
    """Zero-shot fusion of a :class:`StableDiffusionBackbone` and a :class:`TransformerBackbone` on one grid."""

    def __init__(self, diffusion: Any, transformer: Any) -> None:
        self.diffusion, self.transformer = diffusion, transformer
        self.name = f"{diffusion.name}+{transformer.name}"
        self.channels = diffusion.channels + transformer.channels

    def raw(self, image: ImageInput) -> torch.Tensor:
        """Unnormalised map (1, C, cells, cells): Stable Diffusion levels, then transformer."""
        levels = self.diffusion.levels(image)
        return fuse_maps(levels["s3"], levels["s4"], levels["s5"], self.transformer.raw([image]).to(levels["s3"]))

    def extract(self, image: ImageInput) -> FeatureMap:
        """Zero-shot features (C, cells, cells); see the backbone protocol."""
        raw = self.raw(image)
        tokens = zero_shot_normalize(to_tokens(raw), self.diffusion.channels)
        return FeatureMap(tokens[0].T.reshape(raw.shape[1:]).contiguous(), self.transformer.grid(image))
