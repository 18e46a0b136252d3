"""The network: two levels of frozen features, adapted, correlated, and read by a kernel soft arg-max in both directions.

Source: SFNet (CVPR 2019), section 3.1. Grids are (B, h, w, 2) of x and y from -1 to 1, the first and the last cell of the other image
at -1 and 1; flows (B, 2, h, w) are a grid minus the own positions. h x w is the size of the third stage's map, S the source, T the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import interpolate

from semalign3d_core.runtime.errors import InputError, choice

NORM_EPSILON = 1e-6
Levels = Sequence[torch.Tensor]  # features (B, C, h, w) of a batch of images, the third stage first
Size = tuple[int, int]  # rows and columns


@dataclass(frozen=True)
class SFNetConfig:
    """What the network is made of.

    pyramid: of the frozen features, ``efficientnet_lite:0|1|2`` or ``resnet101:FILE``;  cells: per side of the input, 16 pixels each;
    levels: stages whose features are used, of 3 and 4;  adapt: whether they are adapted;  readout: ``kernel``, ``soft`` or ``hard``;
    beta: factor of the scores under the softmax;  sigma: of the kernel, in cells
    """

    pyramid: str = "efficientnet_lite:2"
    cells: int = 20
    levels: tuple[int, ...] = (3, 4)
    adapt: bool = True
    readout: str = "kernel"
    beta: float = 50.0
    sigma: float = 5.0

    def __post_init__(self) -> None:
        choice("readout", self.readout, READOUTS)
        if self.cells < 4 or self.cells % 2:
            raise InputError(f"{self.cells} cells: SFNet needs an even number of at least 4")
        if self.levels not in ((3,), (4,), (3, 4)):
            raise InputError(f"levels {self.levels}: choose 3, 4 or 3 4")
        if self.beta <= 0 or self.sigma <= 0:
            raise InputError(f"beta {self.beta} and sigma {self.sigma} must be positive")


@dataclass(frozen=True)
class Matching:
    """What the network says of a pair, in both directions: ``forward`` S to T (on source positions) and ``backward`` T to S.

    scores: two (B, h w of the other image, h, w), unit norm over the other image's positions;
    grids: two (B, h, w, 2);  flows: two (B, 2, h, w)
    """

    scores: tuple
    grids: tuple
    flows: tuple


class AdaptationLayers(nn.Module):
    """Two residual units x + ReLU(BN(conv(x))) for one level (paper, section 3.1.1); the official names. (B, C, h, w) to the same."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2), nn.BatchNorm2d(channels), nn.ReLU()) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, h, w) to the same."""
        x = x + self.conv1(x)
        return x + self.conv2(x)


class SFNet(nn.Module):
    """Adaptation layers above a frozen pyramid.

    pyramid: module with ``channels`` (of its two levels) and a forward from RGB in [0, 1], (B, 3, 16 h, 16 w), to features
    (B, C3, h, w) and (B, C4, h / 2, w / 2); it is neither trained nor saved.  config: :class:`SFNetConfig`
    """

    def __init__(self, pyramid: nn.Module, config: SFNetConfig) -> None:
        super().__init__()
        self.config = config
        self._frozen = [pyramid.eval().requires_grad_(False)]  # in a list: not among our parameters
        third, fourth = pyramid.channels  # type: ignore[misc]  # a tuple of two
        if config.adapt and 3 in config.levels:
            self.adap_layer_feat3 = AdaptationLayers(third, 5)
        if config.adapt and 4 in config.levels:
            self.adap_layer_feat4 = AdaptationLayers(fourth, 3)

    @property
    def pyramid(self) -> nn.Module:
        """The frozen pyramid."""
        return self._frozen[0]

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Matching:
        """The :class:`Matching` of two batches of images (B, 3, 16 h, 16 w), RGB in [0, 1]."""
        with torch.no_grad():
            levels = [self.pyramid(image) for image in (source, target)]
        return self.match(*levels)

    def match(self, source: Levels, target: Levels) -> Matching:
        """The :class:`Matching` of two pairs of levels that the pyramid gave. In training the source's batch statistics come first."""
        return self.compare(self.adapted(*source), self.adapted(*target))

    def adapted(self, third: torch.Tensor, fourth: torch.Tensor) -> list[torch.Tensor]:
        """The used levels of one batch of images, adapted, of unit norm, and of the size of the third stage's."""
        levels = []
        if 3 in self.config.levels:
            levels.append(self.adap_layer_feat3(third) if self.config.adapt else third)
        if 4 in self.config.levels:
            fourth = self.adap_layer_feat4(fourth) if self.config.adapt else fourth
            levels.append(interpolate(fourth, size=third.shape[-2:], mode="bilinear", align_corners=True))
        return [unit_norm(level) for level in levels]

    def compare(self, source: Levels, target: Levels) -> Matching:
        """The :class:`Matching` of two images' :meth:`adapted` levels."""
        product = combined(source, target)
        sizes = [_size(levels) for levels in (source, target)]
        backward = product.flatten(2).transpose(1, 2).unflatten(2, sizes[1])  # the channels are now source positions
        scores = unit_norm(product), unit_norm(backward)
        grids = tuple(self._read(score, size) for score, size in zip(scores, sizes[::-1], strict=True))
        flows = tuple((grid - positions(size, grid)).movedim(3, 1) for grid, size in zip(grids, sizes, strict=True))
        return Matching(scores, grids, flows)

    def carry(self, source: Levels, target: Levels) -> tuple[torch.Tensor, torch.Tensor]:
        """One direction of :meth:`compare`, (scores, grid): where the positions of ``source`` are in ``target``."""
        scores = unit_norm(combined(source, target))
        return scores, self._read(scores, _size(target))

    def _read(self, scores: torch.Tensor, size: Size) -> torch.Tensor:
        return READOUTS[self.config.readout](scores, size, self.config)


def _size(levels: Levels) -> Size:
    return levels[0].shape[-2], levels[0].shape[-1]


def combined(source: Levels, target: Levels) -> torch.Tensor:
    """Products (B, h_T w_T, h_S, w_S) of the correlations of all levels of two images (Eq. 3)."""
    first, *others = (correlation(level_s, level_t) for level_s, level_t in zip(source, target, strict=True))
    for other in others:
        first = first * other
    return first


def unit_norm(x: torch.Tensor) -> torch.Tensor:
    """``x`` (B, C, ...) divided by the root of (its squared norm over the channels + 1e-6)."""
    return x / (x.square().sum(1, keepdim=True) + NORM_EPSILON).sqrt()


def correlation(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Positive inner products (B, h_T w_T, h_S, w_S) of unit features (B, C, h_S, w_S) and (B, C, h_T, w_T) (Eq. 2)."""
    return torch.relu(target.flatten(2).transpose(1, 2) @ source.flatten(2)).unflatten(2, source.shape[-2:])


def positions(size: Size, like: torch.Tensor) -> torch.Tensor:
    """(h, w, 2): x and y of every cell, from -1 to 1."""
    rows, columns = (torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in size)
    return torch.stack([columns.expand(size), rows[:, None].expand(size)], dim=-1)


def kernel_weighted(scores: torch.Tensor, size: Size, sigma: float) -> torch.Tensor:
    """``scores`` (B, P, h, w) over the P = rows * columns cells of ``size``, times a Gaussian around the largest of each (Eq. 5).

    No gradient goes through the place of the largest (the first of several).
    """
    rows, columns = (torch.arange(n, dtype=scores.dtype, device=scores.device) for n in size)
    line_y, line_x = (torch.exp(-(n[:, None] - n).square() / (2 * sigma**2)) for n in (rows, columns))
    kernels = (line_y[:, None, :, None] * line_x[None, :, None, :]).reshape(
        scores.shape[1], -1
    )  # around every cell: looked up, not computed
    return scores * kernels[scores.detach().argmax(1)].movedim(3, 1)


def _expected(scores: torch.Tensor, size: Size, beta: float) -> torch.Tensor:
    """Grid (B, h, w, 2): the mean position under ``softmax(beta * scores)`` (Eq. 4)."""
    weight = torch.softmax(beta * scores, dim=1)
    return torch.einsum("bphw,pc->bhwc", weight, positions(size, scores).flatten(0, 1))


# how a grid (B, h, w, 2) is read off scores (B, P, h, w): name -> function(scores, size of the other image, config)
READOUTS = {
    "kernel": lambda scores, size, config: _expected(kernel_weighted(scores, size, config.sigma), size, config.beta),
    "soft": lambda scores, size, config: _expected(scores, size, config.beta),
    "hard": lambda scores, size, config: positions(size, scores).flatten(0, 1)[scores.argmax(1)],
}
