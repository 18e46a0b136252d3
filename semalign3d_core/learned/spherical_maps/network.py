"""The sphere mapper and the prototype decoder, with the parameter names and shapes of the official checkpoints.

Source: SphericalMaps (CVPR 2024), section 3. The mapper serves all categories and does not know them; the decoder, which turns a
point of the sphere and a category back into a feature, serves the training alone.
"""

import torch
from torch import nn
from torch.nn.functional import normalize, scaled_dot_product_attention

HEAD = 64  # channels of an attention head


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, width) to the same."""
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Attention among the tokens (B, N, width) of an image, in heads of 64 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, width) to the same."""
        q, k, v = (part.unflatten(2, (-1, HEAD)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block that normalises first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), SelfAttention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, width) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def inner_width(channels: int) -> int:
    """Width of the mapper for features of ``channels``: half, as published (384 for 768), in whole heads of 64."""
    return HEAD * max(1, round(channels / (2 * HEAD)))


def sphere_mapper(channels: int = 768, width: int | None = None) -> nn.Sequential:
    """The mapper: tokens (B, N, channels) to raw vectors (B, N, 3), see :func:`sphere_points`; 2 069 763 parameters for 768."""
    width = width or inner_width(channels)
    return nn.Sequential(nn.Linear(channels, width), nn.GELU(), Block(width), nn.Linear(width, 3))


def sphere_points(raw: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Points (B, N, 3) on the unit sphere of the mapper's ``raw`` vectors; a ``mask`` (B, N, 1) shortens those beside the object."""
    points = normalize(raw, dim=-1)
    return points if mask is None else points * mask


class CategoryAttention(nn.Module):
    """What the cross attention to one category token gives: the same vector for every query, since its softmax is over one entry.

    ``q`` and ``k`` therefore change nothing and get no gradient; they are here for the official checkpoints.
    """

    def __init__(self, width: int, categories: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(categories, width, bias=False) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        """(..., categories) to (..., width)."""
        return self.proj(self.v(condition))


class CategoryBlock(nn.Module):
    """A block of the decoder; ``norm1`` stands before the dead queries and is as dead."""

    def __init__(self, width: int, categories: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), CategoryAttention(width, categories)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)
        for dead in (self.norm1, self.attn.q, self.attn.k):
            dead.requires_grad_(False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """(..., width) and (..., categories) to (..., width)."""
        x = x + self.attn(condition)
        return x + self.mlp(self.norm2(x))


class PrototypeDecoder(nn.Module):
    """Features (..., channels) of sphere points (..., 3) and one-hot categories (..., categories); 5 936 640 parameters for 768 and 18.

    Its two layers are one and the same module, which checkpoints list twice.
    """

    def __init__(self, channels: int = 768, categories: int = 18) -> None:
        super().__init__()
        self.proj = nn.Linear(3, channels)
        layer = CategoryBlock(channels, categories)
        self.blocks, self.categories = nn.ModuleList([layer, layer]), categories

    def forward(self, points: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.proj(points)
        for block in self.blocks:
            x = block(x, condition)
        return x


class SphericalMaps(nn.Module):
    """Mapper and decoder. channels: of the features;  categories: how many the decoder knows;  width: of the mapper."""

    def __init__(self, channels: int = 768, categories: int = 18, width: int | None = None) -> None:
        super().__init__()
        self.sphere_mapper = sphere_mapper(channels, width)
        self.prototypes = PrototypeDecoder(channels, categories)
