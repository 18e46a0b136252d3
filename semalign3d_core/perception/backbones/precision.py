"""Device and number format of the pretrained providers: CUDA where there is one, half precision where it is safe."""

from typing import Any

import torch

from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.runtime.errors import InputError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Kinds of networks (``model_type`` of the transformers library, "sd" for Stable Diffusion) that run in float16 on CUDA unless told
# otherwise: their activations stay far below its range. Others stay in float32: DINOv3 by the advice of its repository, models nobody
# measured here by caution. bench/providers.py --compare measures the difference.
HALF = ("dinov2", "dinov2_with_registers", "sd", "depth_anything", "sam", "sam2")


def choose_device(name: str | None = None) -> torch.device:
    """``torch.device`` of an option: a name, or None / ``auto`` for CUDA where present and the CPU elsewhere.

    Raises :class:`InputError` for what is not there, naming what is.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in (None, "auto"):
        return torch.device("cuda" if gpus else "cpu")
    present = ["cpu", *(["mps"] if torch.backends.mps.is_available() else []), *(f"cuda:{index}" for index in range(gpus))]
    if str(name) not in (*present, "cuda" if gpus else "cpu"):
        raise InputError(f"device {str(name)!r} is not available here: choose one of auto, {', '.join(present)}")
    return torch.device(name)


def choose_dtype(name: str | None, device: torch.device, kind: str) -> torch.dtype:
    """``torch.dtype`` of an option; None / ``auto`` is float16 on CUDA for the ``kind`` of network in ``HALF``, else float32.

    On the CPU half precision is slow and saves nothing.
    """
    if name in (None, "auto"):
        return torch.float16 if device.type == "cuda" and kind in HALF else torch.float32
    if name not in DTYPES:
        raise InputError(f"unknown number format {name!r}: choose auto or one of {', '.join(DTYPES)}")
    return DTYPES[name]


def place(model: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    """``model`` frozen, in evaluation mode, on ``device`` in ``dtype``."""
    # the plain method: the libraries' own only adds a warning about modules that must stay float32, and lists none
    return torch.nn.Module.to(model, device, dtype).eval().requires_grad_(False)


def finite(values: torch.Tensor, provider: Any, image: ImageInput) -> torch.Tensor:
    """``values``, which must all be finite; raises :class:`InputError` that says what to do where half precision overflowed."""
    if torch.isfinite(values).all():
        return values
    advice = "its weights are damaged" if provider.dtype == torch.float32 else "choose another number format: add ,dtype=float32"
    raise InputError(f"{image.name}: {provider.name} gave NaN or infinity in {str(provider.dtype).removeprefix('torch.')}; {advice}")
