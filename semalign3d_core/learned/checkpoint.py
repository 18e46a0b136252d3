"""Training checkpoints as safetensors: weights and AdamW state, written atomically, without pickle."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import atomic_path


def save_checkpoint(path, network, optimiser, step):
    """Writes everything that :func:`load_checkpoint` needs to go on after ``step`` steps."""
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value).contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step)})


def load_checkpoint(path, network, optimiser=None):
    """Restores network and, where it is given, optimiser, and returns the number of finished steps; 0 when there is no checkpoint yet."""
    path = Path(path)
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as stored:
            step = int(stored.metadata()["step"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        network.load_state_dict({name.removeprefix("network."): v for name, v in tensors.items() if name.startswith("network.")})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a checkpoint of this training ({error}); delete it to start anew") from error
    if optimiser is not None:
        _restore(optimiser, tensors)
    return step


def _restore(optimiser, tensors):
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    content = optimiser.state_dict()
    content["state"] = state
    optimiser.load_state_dict(content)
