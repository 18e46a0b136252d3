"""Device and number format of the pretrained providers: CUDA where there is one, half precision only there."""

import torch

from semalign3d_core.errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name=None):
    """``torch.device`` of an option: a name, or None / ``auto`` for CUDA where present and the CPU elsewhere."""
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N") from error


def choose_dtype(name, device):
    """``torch.dtype`` of an option; None / ``auto`` is float16 on CUDA and float32 elsewhere, where half precision is slow."""
    if name in (None, "auto"):
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"unknown number format {name!r}: choose auto or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def place(model, device, dtype):
    """``model`` frozen, in evaluation mode, on ``device`` in ``dtype``."""
    # the plain method: the libraries' own only adds a warning about modules that must stay float32, and lists none
    return torch.nn.Module.to(model, device, dtype).eval().requires_grad_(False)
