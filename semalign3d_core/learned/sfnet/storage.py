"""A trained SFNet on disk: the adaptation layers and the settings in one safetensors file; and the authors' own checkpoints."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semalign3d_core.learned.sfnet.network import SFNet, SFNetConfig
from semalign3d_core.learned.sfnet.pyramids import create_pyramid
from semalign3d_core.runtime.config import from_dict, to_dict
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import reading
from semalign3d_core.runtime.tensors import read_checkpoint, read_tensors, write_tensors

FORMAT = "semalign3d-sfnet-1"


def save_network(network: SFNet, path: str | Path, **about: Any) -> None:
    """Writes the adaptation layers and settings of an :class:`SFNet`, atomically. about: what the file says of its making (JSON)."""
    header = {"format": FORMAT, "config": to_dict(network.config), **about}
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_tensors(path, tensors or {"nothing": torch.zeros(0)}, {"sfnet": json.dumps(header)})


def load_network(path: str | Path, pyramid: nn.Module | None = None) -> SFNet:
    """The :class:`SFNet` of a file that :func:`save_network` wrote, or of the authors' checkpoint (``.pth``), in evaluation mode.

    pyramid: the frozen features, if they are there already; else those that the file names are loaded (the authors' need
    ``resnet101:FILE``, given as ``FILE.pth,resnet101:FILE``). Raises :class:`MissingFileError` or :class:`FileFormatError`.
    """
    name, _, spec = str(path).partition(",")
    config, state = _official(name, spec) if name.endswith(".pth") else _own(name)
    network = SFNet(create_pyramid(config.pyramid) if pyramid is None else pyramid, config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise FileFormatError(
            f"{name} does not fit the pyramid {config.pyramid} ({error}); train it again, or name the right one"
        ) from error
    return network.eval()


def _own(path: str) -> tuple[SFNetConfig, dict[str, torch.Tensor]]:
    expected, missing = "it is not a trained SFNet; train one: semalign3d train sfnet", f"train one: semalign3d train sfnet --output {path}"
    metadata, tensors = read_tensors(path, expected, missing)
    with reading(path, expected):
        header = json.loads(metadata["sfnet"])
        if header.get("format") != FORMAT:
            raise FileFormatError(f"{path} has the format {header.get('format')!r}, expected {FORMAT!r}; train it again")
        return from_dict(SFNetConfig, header["config"], str(path)), {name: v for name, v in tensors.items() if name != "nothing"}


def _official(path: str, spec: str) -> tuple[SFNetConfig, dict[str, torch.Tensor]]:
    """The authors' two state dicts under our names, which are theirs inside the complete model."""
    expected = "it is not SFNet's published checkpoint: expected state_dict1 and state_dict2"
    stored = read_checkpoint(path, expected, "give the path of SFNet's published checkpoint")
    with reading(path, expected):
        parts = {"adap_layer_feat3": stored["state_dict1"], "adap_layer_feat4": stored["state_dict2"]}
        state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    if not spec:
        raise FileFormatError(f"{path} holds adaptation layers only: name their features, too, as {path},resnet101:FILE")
    return SFNetConfig(pyramid=spec), state
