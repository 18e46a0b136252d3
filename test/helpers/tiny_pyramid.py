"""A pyramid of two levels that costs nothing, in place of a backbone."""

import torch
from torch import nn


class TinyPyramid(nn.Module):
    """A pyramid of 6 and 8 channels that averages colours; quick, and equivariant to shifts by 32 pixels."""

    channels = (6, 8)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.third = nn.Parameter(torch.randn(6, 3, 16, 16, generator=generator))
        self.fourth = nn.Parameter(torch.randn(8, 3, 32, 32, generator=generator))

    def forward(self, image):
        return nn.functional.conv2d(image, self.third, stride=16), nn.functional.conv2d(image, self.fourth, stride=32)
