"""The GeoAware post-processor: a small network that makes fused features tell left from right.

Source: GeoAware-SC (CVPR 2024), section 3.3; parameter names and shapes are those of the official checkpoints.
"""

import logging
import math
import re

import torch
from torch import nn

from semalign3d_core.perception.backbones import FeatureBackbone
from semalign3d_core.perception.backbones.fused import FusedBackbone, to_tokens, unit_norm
from semalign3d_core.perception.backbones.precision import choose_device
from semalign3d_core.perception.backbones.stable_diffusion import load_diffusion
from semalign3d_core.perception.backbones.transformers_vit import load_transformer
from semalign3d_core.perception.evidence import FeatureMap
from semalign3d_core.perception.weights.pretrained import read_state
from semalign3d_core.runtime.errors import FileFormatError, InputError
from semalign3d_core.runtime.files import sha256_of_file

OFFICIAL_DIMS = (640, 1280, 1280, 768)  # s3, s4, s5 of Stable Diffusion, DINOv2 base
OFFICIAL_WIDTH = 768


class NormedConv(nn.Conv2d):
    """Convolution without bias, followed by group normalisation."""

    def __init__(self, inputs, outputs, kernel, groups):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """Residual bottleneck 1x1, 3x3, 1x1 of a quarter of the output's width; the shortcut is projected where widths differ."""

    def __init__(self, inputs, outputs, groups):
        super().__init__()
        self.shortcut = None if inputs == outputs else NormedConv(inputs, outputs, 1, groups)
        self.conv1 = NormedConv(inputs, outputs // 4, 1, groups)
        self.conv2 = NormedConv(outputs // 4, outputs // 4, 3, groups)
        self.conv3 = NormedConv(outputs // 4, outputs, 1, groups)

    def forward(self, x):
        main = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(main + (x if self.shortcut is None else self.shortcut(x)))


class AggregationNetwork(nn.Module):
    """One bottleneck per feature group, mixed by softmax weights.

    forward: (B, sum(feature_dims), h, w) -> (B, width, h, w), not negative, not normalised.
    dropout: probability of dropping single input values while training (0.2 in the published runs).
    """

    def __init__(self, feature_dims=OFFICIAL_DIMS, width=OFFICIAL_WIDTH, groups=32, dropout=0.0):
        super().__init__()
        self.feature_dims, self.width = tuple(feature_dims), width
        self.dropout = nn.Dropout(dropout)
        self.bottleneck_layers = nn.ModuleList(nn.Sequential(Bottleneck(c, width, groups)) for c in self.feature_dims)
        self.mixing_weights = nn.Parameter(torch.ones(len(self.feature_dims)))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.self_logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))  # unused, but part of every checkpoint

    def forward(self, features):
        if features.shape[1] != sum(self.feature_dims):
            raise InputError(f"features have {features.shape[1]} channels, the network expects {self.feature_dims}")
        groups = self.dropout(features).split(self.feature_dims, dim=1)
        weights = torch.softmax(self.mixing_weights, dim=0)
        return sum(w * layer(x) for w, layer, x in zip(weights, self.bottleneck_layers, groups, strict=True))


def load_network(path, groups=32):
    """:class:`AggregationNetwork` in evaluation mode from a checkpoint (``.safetensors``, or ``torch.save``, weights only).

    The group widths are read off the shapes. A missing, unexpected or misshapen entry raises :class:`FileFormatError` naming
    it; of the mixing weights the first ones are taken, as published.
    """
    state = read_state(path)
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


def _dimensions(state, path):
    pattern = re.compile(r"bottleneck_layers\.(\d+)\.0\.conv1\.weight")
    dims = {int(match[1]): state[name].shape[1] for name in state if (match := pattern.fullmatch(name)) and state[name].ndim == 4}
    last = state.get("bottleneck_layers.0.0.conv3.weight")
    if sorted(dims) != list(range(len(dims))) or not dims or last is None:
        missing = next(i for i in range(len(dims) + 1) if i not in dims) if last is not None else 0
        name = f"bottleneck_layers.{missing}.0.{'conv1' if last is not None else 'conv3'}.weight"
        raise FileFormatError(f"{path} is not a GeoAware checkpoint: missing {name}; give the official best_856.PTH or one like it")
    return tuple(dims[i] for i in range(len(dims))), last.shape[0]


def load_geoaware(checkpoint, captioner="", revision=None, device=None, dtype=None):
    """The :class:`GeoAwareBackbone` of a checkpoint file over Stable Diffusion 1.5 and DINOv2 base.

    captioner: ODISE's checkpoint; the official post-processor was trained with it (:mod:`.captioner`).
    revision: of Stable Diffusion;  device, dtype: see :mod:`.precision`.
    """
    network = load_network(checkpoint)
    if not captioner:
        logging.getLogger(__name__).warning("the official post-processor expects ODISE's captioner: add ,captioner=FILE to the backbone")
    fused = FusedBackbone(
        load_diffusion("", revision, device, dtype, captioner), load_transformer("dinov2", "base", device=device, dtype=dtype)
    )
    return GeoAwareBackbone(fused, network, sha256_of_file(checkpoint)[:8], choose_device(device))


class GeoAwareBackbone(FeatureBackbone):
    """Fused features through the post-processor.

    fused: :class:`FusedBackbone` whose channels are those of ``network``; label: what identifies the checkpoint.
    """

    def __init__(self, fused, network, label, device="cpu"):
        if fused.channels != sum(network.feature_dims):
            raise InputError(f"{fused.name} gives {fused.channels} channels, the checkpoint {label} expects {sum(network.feature_dims)}")
        self.fused, self.network, self.device = fused, network.to(device).eval(), device
        self.name = f"geoaware-{label}({fused.name})"
        self.channels = network.width

    @torch.no_grad()
    def extract(self, image):
        """Post-processed features (width, cells, cells), unit norm; see the backbone protocol."""
        output = self.network(self.fused.raw(image).to(self.device))
        values = unit_norm(to_tokens(output))[0].T.reshape(output.shape[1:]).cpu().clone()
        return FeatureMap(values, self.fused.transformer.grid(image))
