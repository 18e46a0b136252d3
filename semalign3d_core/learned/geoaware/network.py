"""The post-processor's network; parameter names and shapes are those of the official checkpoints.

Source: GeoAware-SC (CVPR 2024), section 3.3 and supplement.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from semalign3d_core.perception.weights.pretrained import read_state
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import fitting, reading
from semalign3d_core.runtime.tensors import read_metadata, write_checkpoint, write_tensors

OFFICIAL_DIMS = (640, 1280, 1280, 768)  # s3, s4, s5 of Stable Diffusion, DINOv2 base
OFFICIAL_WIDTH = 768


class NormedConv(nn.Conv2d):
    """Convolution without bias, followed by group normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        if self.kernel_size == (1, 1):  # the matrix product takes half the time of the convolution on processors
            return self.norm((self.weight[:, :, 0, 0] @ x.flatten(2)).unflatten(2, x.shape[2:]))
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """Residual bottleneck 1x1, 3x3, 1x1 of a quarter of the output's width; the shortcut is projected where widths differ."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.shortcut = None if inputs == outputs else NormedConv(inputs, outputs, 1, groups)
        self.conv1 = NormedConv(inputs, outputs // 4, 1, groups)
        self.conv2 = NormedConv(outputs // 4, outputs // 4, 3, groups)
        self.conv3 = NormedConv(outputs // 4, outputs, 1, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        main = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(main + (x if self.shortcut is None else self.shortcut(x)))


class AggregationNetwork(nn.Module):
    """One bottleneck per feature group, mixed by softmax weights.

    forward: (B, sum(feature_dims), h, w) -> (B, width, h, w), not negative, not normalised.
    dropout: probability of dropping single input values while training (0.2 in the published runs).
    """

    def __init__(
        self, feature_dims: Sequence[int] = OFFICIAL_DIMS, width: int = OFFICIAL_WIDTH, groups: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.feature_dims, self.width = tuple(feature_dims), width
        self.dropout = nn.Dropout(dropout)
        self.bottleneck_layers = nn.ModuleList(nn.Sequential(Bottleneck(c, width, groups)) for c in self.feature_dims)
        self.mixing_weights = nn.Parameter(torch.ones(len(self.feature_dims)))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.self_logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))  # unused, but part of every checkpoint

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        if features.shape[1] != sum(self.feature_dims):
            raise InputError(f"features have {features.shape[1]} channels, the network expects {self.feature_dims}")
        groups = self.dropout(features).split(self.feature_dims, dim=1)
        weights = torch.softmax(self.mixing_weights, dim=0)
        return sum(w * layer(x) for w, layer, x in zip(weights, self.bottleneck_layers, groups, strict=True))


def load_network(path: str | Path, groups: int = 32) -> AggregationNetwork:
    """:class:`AggregationNetwork` in evaluation mode from a checkpoint (``.safetensors``, or ``torch.save``, weights only).

    The group widths are read off the shapes. A missing, unexpected or misshapen entry raises :class:`FileFormatError` naming
    it; of the mixing weights the first ones are taken, as published.
    """
    state = read_state(path)
    with reading(path, "expected a GeoAware checkpoint"):
        dims, width = _dimensions(state, path)
    network = AggregationNetwork(dims, width, groups)
    if "mixing_weights" in state:
        state["mixing_weights"] = state["mixing_weights"][: len(dims)]
    expected = network.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if problems:
        raise FileFormatError(f"{path} is not a GeoAware checkpoint: {'; '.join(problems)}; give the official best_856.PTH or one like it")
    network.load_state_dict(state)
    return network.eval()


def _dimensions(state: dict[str, torch.Tensor], path: str | Path) -> tuple[tuple[int, ...], int]:
    pattern = re.compile(r"bottleneck_layers\.(\d+)\.0\.conv1\.weight")
    dims = {int(match[1]): state[name].shape[1] for name in state if (match := pattern.fullmatch(name)) and state[name].ndim == 4}
    last = state.get("bottleneck_layers.0.0.conv3.weight")
    if sorted(dims) != list(range(len(dims))) or not dims or last is None:
        missing = next(i for i in range(len(dims) + 1) if i not in dims) if last is not None else 0
        name = f"bottleneck_layers.{missing}.0.{'conv1' if last is not None else 'conv3'}.weight"
        raise FileFormatError(f"{path} is not a GeoAware checkpoint: missing {name}; give the official best_856.PTH or one like it")
    return tuple(dims[i] for i in range(len(dims))), last.shape[0]


def save_network(network: AggregationNetwork, path: Path, header: dict) -> None:
    """Writes a network as ``.safetensors`` with ``header`` (JSON, see :func:`read_header`), and beside it as ``.pth``, as published."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: trained networks are written as .safetensors (and .pth beside it); choose such a name")
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_tensors(path, state, {"geoaware": json.dumps(header)})
    write_checkpoint(path.with_suffix(".pth"), state)


def read_header(path: str | Path) -> dict:
    """What :func:`save_network` was told of the network (``backbone``: the features that it reads); {} for files of others."""
    if Path(path).suffix != ".safetensors":
        return {}
    return fitting(read_metadata(path, "geoaware") or {}, dict, path)
