"""Values that say in one line what they are, however many numbers they hold."""

import dataclasses

import numpy as np
import torch


class ShortRepr:
    """A base of dataclasses declared with ``repr=False``: arrays are shown by type and shape, nested values by their class."""

    def __repr__(self) -> str:
        shown = (f"{field.name}={_short(getattr(self, field.name))}" for field in dataclasses.fields(self) if field.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}(...)"
    if isinstance(value, dict | list | tuple) and len(value) > 4:
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return repr(value)
