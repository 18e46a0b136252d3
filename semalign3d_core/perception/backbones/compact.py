"""The embedded backbone: a small convolutional network trained on the synthetic categories.

It lets everything run without a download. It knows the synthetic categories and not photographs.
"""

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from semalign3d_core.geometry.image_grid import SquareGrid, mirror_image
from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.compiled import compiled
from semalign3d_core.perception.evidence import FeatureMap, ImageInput
from semalign3d_core.runtime.errors import FileFormatError, MissingFileError
from semalign3d_core.runtime.files import reading
from semalign3d_core.runtime.tensors import read_tensors

INPUT_SIDE = 192
CELL = 4  # pixels of the network's input
CELLS = INPUT_SIDE // CELL
PADDING = "bottom_right"
WEIGHTS_FILE = "compact.safetensors"
SHARPNESS = 8.0  # features are unit vectors; logits need a larger range


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    # An even kernel with stride 2 keeps output cell centres at the centre of the input cells they cover.
    padding = (kernel - 1) // 2 if stride == 1 else 1
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to the same."""
        return torch.relu(x + self.body(x))


class Attention(nn.Module):
    """Every cell looks at every other: which side of an object is seen is often decided far away. (B, C, h, w) to the same."""

    def __init__(self, channels: Any, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.inputs, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mixing = nn.Sequential(nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to the same."""
        batch, channels, rows, columns = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.inputs(self.before(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.output(mixed)
        tokens = tokens + self.mixing(self.between(tokens))
        return tokens.transpose(1, 2).reshape(batch, channels, rows, columns)


class CompactNet(nn.Module):
    """Encoder at strides 4, 8 and 16, attention at stride 16, and a top-down path back to stride 4.

    forward: (B, 3, 192, 192) in [0, 1] -> (B, channels, 48, 48), unit norm along the channels.
    """

    def __init__(
        self, channels: int = 64, classes: int = 7, widths: Any = (32, 64, 128, 192), depths: Any = (2, 2, 1), attention: int = 3
    ) -> None:
        super().__init__()
        stem, *levels = widths
        self.stem = nn.Sequential(_convolution(3, stem, 4, 2), _convolution(stem, levels[0], 4, 2))
        self.down = nn.ModuleList(_convolution(a, b, 4, 2) for a, b in zip(levels[:-1], levels[1:], strict=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(depth))) for width, depth in zip(levels, depths, strict=True)
        )
        side = INPUT_SIDE // (CELL * 2 ** (len(levels) - 1))
        self.position = nn.Parameter(torch.zeros(1, levels[-1], side, side))
        self.attention = nn.Sequential(*(Attention(levels[-1]) for _ in range(attention)))
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(levels[:-1], levels[1:], strict=True))
        self.refine = nn.ModuleList(Residual(width) for width in levels[:-1])
        self.head = nn.Conv2d(levels[0], channels, 1)
        self.classes = nn.Conv2d(channels, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Unit-norm features (B, channels, 48, 48) of prepared images."""
        return nn.functional.normalize(self.head(self.trunk(image)), dim=1)

    def trunk(self, image: torch.Tensor) -> torch.Tensor:
        """What the head reads, (B, widths[1], 48, 48)."""
        x = self.stem((image - 0.5) / 0.25)
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x if index == 0 else self.down[index - 1](x))
            levels.append(x)
        x = self.attention(x + self.position)
        for index in reversed(range(len(self.lateral))):
            x = nn.functional.interpolate(self.lateral[index](x), size=levels[index].shape[-2:], mode="bilinear", align_corners=False)
            x = self.refine[index](x + levels[index])
        return x

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes, h, w) of the background (first) and of every category it was trained on, from unit features."""
        return self.classes(SHARPNESS * features)


class CompactBackbone(FeatureBackbone):
    """The shipped (or a given) compact network behind the backbone protocol.

    It sees every picture twice, as it is and mirrored, and what it says of a cell stands side by side: similarities are means over both
    views. Where the object's mask is known, it looks at the object's surroundings only (``close_up``, see
    :func:`~semalign3d_core.perception.evidence.close_up`): then all objects have one size, and as many cells as there are.

    weights: path of a file that ``semalign3d train compact`` wrote; None takes the shipped one.
    categories: names of the categories it was trained on, in the order of its logits after the background's.
    runtime: what computes it, see :func:`~semalign3d_core.perception.backbones.compiled.compiled`.
    """

    close_up = 0.1
    concurrent = True
    classifies = True

    def __init__(self, weights: str | Path | None = None, device: str | torch.device = "cpu", runtime: str = "pytorch") -> None:
        path = Path(weights) if weights else Path(str(resources.files("semalign3d_core"))) / "assets" / WEIGHTS_FILE
        network, name, self.categories = load_network(path)
        self.name = f"{name}-close-mirrored"  # other features than those of the network alone
        self.device = torch.device(device)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run = compiled(network, torch.zeros(1, 3, INPUT_SIDE, INPUT_SIDE, device=self.device), runtime)
        self._classes = network.classes
        self.channels = 2 * network.head.out_channels

    @torch.inference_mode()
    def extract(self, image: ImageInput) -> FeatureMap:
        """Features (channels, 48, 48) of the image's window, or of the image padded at the bottom or right; see the backbone protocol."""
        grid, square = self._square(image)
        # The padded square is mirrored as a whole, so that cells fall on cells.
        seen, mirrored = self._run(torch.stack([square, mirror_image(square)]))
        values = torch.cat([seen, mirror_image(mirrored)]) / math.sqrt(2)  # unit vectors side by side: of unit length again
        return FeatureMap(values.cpu(), grid)

    @torch.inference_mode()
    def follow(self, image: ImageInput) -> FeatureMap:
        """As :meth:`extract`, from one view: in half the time and not as sure."""
        grid, square = self._square(image)
        seen = self._run(square[None])[0]
        return FeatureMap(torch.cat([seen, torch.zeros_like(seen)]).mul_(math.sqrt(2)).cpu(), grid, quick=True)

    def _square(self, image: ImageInput) -> tuple[SquareGrid, torch.Tensor]:
        grid = SquareGrid(image.height, image.width, CELLS, PADDING, image.window)
        return grid, prepare(image.rgb, grid).to(self.device)

    @torch.inference_mode()
    def class_probabilities(self, features: FeatureMap) -> torch.Tensor:
        """(1 + categories, cells, cells) of a :class:`FeatureMap` that this backbone gave; the background comes first."""
        views = features.values.to(self.device).unflatten(0, (2, -1))
        views = views[:1] / math.sqrt(2) if features.quick else views * math.sqrt(2)
        return self._classes(SHARPNESS * views).softmax(1).mean(0).cpu()

    @torch.inference_mode()
    def glance(self, image: ImageInput) -> tuple[SquareGrid, torch.Tensor]:
        """The image's :class:`SquareGrid` and :meth:`class_probabilities` from one view, in half the time and not as sure."""
        grid, square = self._square(image)
        return grid, self._classes(SHARPNESS * self._run(square[None])).softmax(1)[0].cpu()


def prepare(rgb: np.ndarray, grid: SquareGrid, side: int = INPUT_SIDE) -> torch.Tensor:
    """(h, w, 3) uint8 to a network's input (3, side, side) float32 in [0, 1]: the square that the :class:`SquareGrid` covers."""
    rgb, grid = grid.manageable(rgb)
    # Area averaging when shrinking, as a camera with larger pixels would see it; pixel areas keep their place.
    mode = cv2.INTER_AREA if grid.side > side else cv2.INTER_LINEAR
    small = cv2.resize(grid.square_picture(rgb, value=128), (side, side), interpolation=mode)
    return torch.from_numpy(small).permute(2, 0, 1).float() / 255


def is_network(path: Path) -> bool:
    """Whether a file is one that :func:`load_network` reads, rather than a checkpoint of a training."""
    try:
        return "classes.weight" in read_tensors(path)[1]
    except (MissingFileError, FileFormatError):
        return False


def load_network(path: Path) -> tuple[CompactNet, str, tuple[str, ...]]:
    """(:class:`CompactNet` in evaluation mode, its name, its categories) from a safetensors file; wrong files raise with the reason."""
    remedy = f"install the package again or train one: semalign3d train compact --output {path.name}"
    header, tensors = read_tensors(path, "it does not hold a compact network; " + remedy, remedy)
    with reading(path, "it does not hold a compact network; " + remedy):
        state = {name: value.float() for name, value in tensors.items()}
        network = CompactNet(channels=state["head.weight"].shape[0], classes=state["classes.weight"].shape[0])
        network.load_state_dict({k: v.long() if k.endswith("num_batches_tracked") else v for k, v in state.items()})
        return network.eval(), header["name"], tuple(json.loads(header["categories"]))
