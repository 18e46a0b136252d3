"""Small steps of the Stable Diffusion features: noise, noise schedule, sliding crops and their merging.

Source: GeoAware-SC (CVPR 2024), section "Stable Diffusion features".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semalign3d_core.geometry.image_grid import DIFFUSION_CANVAS_SIDE
from semalign3d_core.runtime.errors import InputError

NOISE_SEED = 42
NOISE_STEPS = 1000


@dataclass(frozen=True)
class SlidingCrops:
    """Square crops that cover a square canvas.

    side: canvas side;  crop: crop side;  stride: distance of neighbouring crops; all in pixels, the last crop must end at the
    border. Published: 960, 512, 448 (four crops that overlap by 64 pixels).
    """

    side: int = DIFFUSION_CANVAS_SIDE
    crop: int = 512
    stride: int = 448

    def __post_init__(self) -> None:
        if self.crop > self.side or self.stride < 1 or (self.side - self.crop) % self.stride:
            raise InputError(f"crops of {self.crop} every {self.stride} pixels do not end at the border of {self.side} pixels")

    def origins(self) -> list[tuple[int, int]]:
        """(y, x) of all crops, row by row."""
        starts = range(0, self.side - self.crop + 1, self.stride)
        return [(y, x) for y in starts for x in starts]


def merge_crops(maps: list[torch.Tensor], origins: Sequence[Sequence[int]], side: int, crop: int) -> torch.Tensor:
    """Averages crop maps (1, C, n, n) into one map (1, C, N, N) where they overlap.

    origins: (y, x) of the crops in pixels;  side, crop: sides of canvas and crops in pixels, so that N / n = side / crop.
    """
    cells = maps[0].shape[-1]
    stride = crop / cells
    total = round(side / stride)
    merged = maps[0].new_zeros(*maps[0].shape[:2], total, total)
    count = maps[0].new_zeros(total, total)
    for values, (y, x) in zip(maps, origins, strict=True):
        row, column = round(y / stride), round(x / stride)
        merged[..., row : row + cells, column : column + cells] += values
        count[row : row + cells, column : column + cells] += 1
    return merged / count


def noise_schedule() -> tuple[torch.Tensor, torch.Tensor]:
    """(sqrt of the cumulative signal, sqrt of the cumulative noise), each (NOISE_STEPS,) float32, of Stable Diffusion 1.x."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, NOISE_STEPS, dtype=torch.float64).square()
    signal = torch.cumprod(1 - beta, dim=0)
    return signal.sqrt().float(), (1 - signal).sqrt().float()


def shared_noise(shape: tuple[int, int, int, int] = (1, 4, 64, 64)) -> torch.Tensor:
    """The one noise that every crop of every image gets: CPU generator, seed 42."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(NOISE_SEED))


def add_noise(latent: torch.Tensor, step: int, noise: torch.Tensor | None = None) -> torch.Tensor:
    """The latent (B, 4, h, w) at time ``step`` (0-based)."""
    signal, spread = noise_schedule()
    noise = shared_noise((1, *latent.shape[1:])) if noise is None else noise
    return signal[step].item() * latent + spread[step].item() * noise.to(latent)


def co_pca(a: torch.Tensor, b: torch.Tensor, dims: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Both token sets (P, C), (Q, C) in the ``dims`` first principal directions of their union: (P, dims), (Q, dims).

    Used by the pose prediction experiment, where each level is reduced for every pair of images. The published solver is a
    randomised one; distances depend neither on its signs nor on its rotations.
    """
    stacked = torch.cat([a, b])
    centred = stacked - stacked.mean(dim=0)
    # right singular vectors by the eigenvectors of the smaller of both products; eigenvalues ascend
    if len(centred) >= centred.shape[1]:
        directions = torch.linalg.eigh((centred.T @ centred).double())[1].flip(1)[:, :dims].to(centred)
        reduced = centred @ directions
    else:
        values, vectors = torch.linalg.eigh((centred @ centred.T).double())
        reduced = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :dims].to(centred)
    return reduced[: len(a)], reduced[len(a) :]
