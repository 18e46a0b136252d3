"""Values of this package as tensors and JSON, and back: what the cache stores of prepared images, and files of results.

Dataclasses of ``semalign3d_core``, dictionaries, lists, tuples, tensors, arrays and scalars are known. No code is stored:
a dataclass is named, and only names inside this package are accepted when reading. Values that the reader has anyway
(the evidence and its tensors) are stored as references, so that features are never written twice.
"""

import dataclasses
import importlib
from typing import Any

import numpy as np
import torch

from semalign3d_core.runtime.errors import FileFormatError, InputError

PACKAGE = "semalign3d_core"


def pack(value: Any, known: dict[str, torch.Tensor] | None = None) -> tuple[Any, dict[str, torch.Tensor]]:
    """Returns (structure, tensors): JSON-serialisable structure and {name: contiguous CPU tensor}.

    known: {name: object}; objects that are identical to one of these are stored as its name.
    Raises :class:`InputError` for types that cannot be stored.
    """
    names = {id(item): name for name, item in (known or {}).items() if item is not None}
    tensors: dict[str, torch.Tensor] = {}
    return _packed(value, names, tensors), tensors


def unpack(structure: Any, tensors: dict[str, torch.Tensor], known: dict[str, torch.Tensor] | None = None, device: Any = None) -> Any:
    """The value that :func:`pack` took apart; ``known`` must hold the same names, floating tensors go to ``device``."""
    return _unpacked(structure, tensors, known or {}, device)


def _packed(value: Any, names: dict[int, str], tensors: dict[str, torch.Tensor]) -> Any:
    if id(value) in names:
        return {"known": names[id(value)]}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, torch.Tensor | np.ndarray):
        name = f"t{len(tensors)}"
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()
        tensors[name] = tensor.cpu().contiguous().clone()
        return {"tensor": name, "array": isinstance(value, np.ndarray)}
    if isinstance(value, np.generic):
        return _packed(value.item(), names, tensors)
    if isinstance(value, dict):
        return {"dict": [[_packed(k, names, tensors), _packed(v, names, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_packed(item, names, tensors) for item in value]}
    kind = type(value)
    if dataclasses.is_dataclass(value) and kind.__module__.partition(".")[0] == PACKAGE:
        fields = {f.name: _packed(getattr(value, f.name), names, tensors) for f in dataclasses.fields(value)}
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    raise InputError(
        f"a value of type {kind.__name__} cannot be stored; what is stored are dataclasses of this package, tensors and numbers"
    )


def _unpacked(node: Any, tensors: Any, known: Any, device: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if "known" in node:
        return known[node["known"]]
    if "float" in node:
        return float.fromhex(node["float"])
    if "tensor" in node:
        tensor = tensors[node["tensor"]]
        return tensor.numpy() if node["array"] else tensor.to(device)
    if "dict" in node:
        return {_unpacked(k, tensors, known, device): _unpacked(v, tensors, known, device) for k, v in node["dict"]}
    if "list" in node:
        return [_unpacked(item, tensors, known, device) for item in node["list"]]
    if "tuple" in node:
        return tuple(_unpacked(item, tensors, known, device) for item in node["tuple"])
    return _class(node["class"])(**{name: _unpacked(item, tensors, known, device) for name, item in node["fields"].items()})


def _class(path: str) -> Any:
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.partition(".")[0] == PACKAGE else None
    if not dataclasses.is_dataclass(kind):
        raise FileFormatError(f"the file names {path!r}, which is not a dataclass of {PACKAGE}")
    return kind
