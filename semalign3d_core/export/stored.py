"""Results in one file: tensors and JSON, no code."""

import json
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import atomic_path
from semalign3d_core.runtime.packing import pack, unpack
from semalign3d_core.runtime.tensors import open_tensors, save_tensors

KEY, VERSION = "semalign3d_result", 1
Result = TypeVar("Result")


def save_result(result: object, path: str | Path) -> None:
    """Writes a result (a dataclass of this package) to a safetensors file."""
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: results are stored as .safetensors; to_dict(), draw(), to_ply() and to_glb() give other formats")
    structure, tensors = pack(result)
    with atomic_path(path) as temporary:
        save_tensors(tensors, temporary, {KEY: json.dumps({"version": VERSION, "result": structure})})


def load_result(kind: type[Result], path: str | Path) -> Result:
    """Reads a result of a kind that :func:`save_result` wrote."""
    if not Path(path).is_file():
        raise MissingFileError(f"result {path} does not exist")
    try:
        with open_tensors(path) as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if header["version"] != VERSION:
            raise FileFormatError(f"{path} has format version {header['version']}, this package reads {VERSION}; write it again")
        result = unpack(header["result"], tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is not a stored result, or damaged ({error}); save it again") from error
    if not isinstance(result, kind):
        raise FileFormatError(f"{path} holds a {type(result).__name__}, expected a {kind.__name__}")
    return result
