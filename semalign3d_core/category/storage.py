"""The file of a category model: safetensors with a JSON header, versioned and hashed, no code in it.

Geometry is stored as float32, features as float16 (their cosine similarities move by less than 1e-3, a fiftieth of the
smallest standard deviation they are compared with), indices as int16.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semalign3d_core.category.model import CategoryModel
from semalign3d_core.category.statistics.geometric_features import BetaTable
from semalign3d_core.category.value_ranges import value_problem
from semalign3d_core.perception.masks import KnownObject
from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import reading, sha256_of_arrays
from semalign3d_core.runtime.tensors import read_tensors, write_tensors

FORMAT_VERSION = 2
OLDEST_READ = 1
SUFFIX = ".safetensors"
HEADER_KEY = "semalign3d_category_model"

Header = dict[str, Any]
Tensors = dict[str, Tensor]

# tensor -> (stored type, shape in the counts of the header; a number is itself)
TENSORS = {
    "present": (torch.bool, "K"),
    "shape": (torch.float32, "K3"),
    "keypoint_features": (torch.float16, "KC"),
    "keypoint_mu": (torch.float32, "K"),
    "keypoint_sd": (torch.float32, "K"),
    "dense_features": (torch.float16, "PC"),
    "dense_mu": (torch.float32, "P"),
    "dense_sd": (torch.float32, "P"),
    "weights": (torch.float32, "PK"),
    "offsets": (torch.float32, "P"),
    "plane": (torch.float32, "2K"),
    "modes": (torch.float32, "MK3"),
    "mode_variances": (torch.float32, "M"),
    "pose_rotations": (torch.float32, "N33"),
    "focal": (torch.float32, "2"),
    "diameter_metres": (torch.float32, "2"),
    "betas.edge1": (torch.int16, "E2"),
    "betas.edge2": (torch.int16, "E2"),
    "betas.edge_beta": (torch.float32, "E4"),
    "betas.triangle": (torch.int16, "T3"),
    "betas.vertex": (torch.int16, "T"),
    "betas.tet_beta": (torch.float32, "T6"),
}
ADDED = {2: ("offsets", "plane")}  # by format version; models of older versions had none, which is what zeros say
MAY_BE_NAN = {"diameter_metres"}
HEADER_FIELDS = ("category", "keypoint_names", "flip_permutation", "backbone", "calibration", "built_from")


def save_model(model: CategoryModel, path: Path | str) -> str:
    """Writes ``model`` to ``path`` atomically and returns its content hash.

    Raises :class:`InputError` when the model is not consistent (shapes, NaN) or its provenance is not JSON.
    """
    tensors = _stored_tensors(model)
    header = _header(model, tensors)
    problem = _problem(header, tensors)
    if problem:
        raise InputError(f"the model of {model.category!r} cannot be saved: {problem}")
    write_tensors(path, tensors, {HEADER_KEY: json.dumps(header)})
    return header["hash"]


def load_model(path: Path | str) -> CategoryModel:
    """Reads the :class:`CategoryModel` in ``path`` (float32, CPU).

    Raises :class:`MissingFileError`, or :class:`FileFormatError` with the reason for a truncated, edited or foreign
    file and for one of another format version.
    """
    header, tensors = _read(Path(path))
    tensors = {name: _in_memory(tensor) for name, tensor in tensors.items()}
    betas = BetaTable(**{name.partition(".")[2]: tensors.pop(name) for name in list(tensors) if name.startswith("betas.")})
    values: dict[str, Any] = {name: header[name] for name in HEADER_FIELDS}
    values["keypoint_names"], values["flip_permutation"] = tuple(values["keypoint_names"]), tuple(values["flip_permutation"])
    return CategoryModel(**values | tensors, betas=betas)


def model_hash(model: CategoryModel) -> str:
    """Hexadecimal SHA-256 of everything the model's file holds; the same before saving and after loading."""
    return _header(model, _stored_tensors(model))["hash"]


def find_model(category_or_path: Path | str, models_dir: Path | str | None = None) -> Path:
    """Path of a model's file: the path itself, ``<models_dir>/<category>.safetensors``, or the shipped model.

    Raises :class:`MissingFileError` that lists the categories which can be had.
    """
    name = str(category_or_path)
    if name.endswith(SUFFIX) or "/" in name:
        if Path(name).is_file():
            return Path(name)
        raise MissingFileError(f"{name} does not exist; build it with 'semalign3d build', or give a category instead")
    folders = [shipped_models()] if models_dir is None else [Path(models_dir), shipped_models()]
    for folder in folders:
        if (folder / (name + SUFFIX)).is_file():
            return folder / (name + SUFFIX)
    known = sorted({p.name.removesuffix(SUFFIX) for folder in folders for p in folder.glob("[!.]*" + SUFFIX)})
    raise MissingFileError(
        f"no model of category {name!r} in {' or '.join(map(str, folders))}; there are models of: "
        f"{', '.join(known) or 'nothing'}. Build one with 'semalign3d build', or give the path of a {SUFFIX} file"
    )


def check_backbone(model: KnownObject, name: str) -> None:
    """Raises :class:`InputError` unless ``name`` is that of the backbone whose features the model knows."""
    if name != model.backbone:
        raise InputError(
            f"the model of {model.category!r} was built with the backbone {model.backbone!r}, not with {name!r}: "
            "choose that backbone, or build the model again with this one"
        )


def shipped_models() -> Path:
    """The folder of the models that come with the package."""
    return Path(__file__).parent.parent / "assets" / "models"


def _read(path: Path) -> tuple[Header, Tensors]:
    """Header and tensors of a file, all checked."""
    expected = "it is truncated or not a safetensors file; build or copy it again"
    metadata, tensors = read_tensors(path, expected, "build it with 'semalign3d build'")
    with reading(path, expected):
        text = metadata.get(HEADER_KEY)
        return _checked(path, None if text is None else json.loads(text), tensors)


def _checked(path: Path, header: Any, tensors: Tensors) -> tuple[Header, Tensors]:
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is a safetensors file without the header {HEADER_KEY!r}: not a category model of this program")
    version = header.get("format_version")
    if not isinstance(version, int) or version not in range(OLDEST_READ, FORMAT_VERSION + 1):
        known = f"{OLDEST_READ} to {FORMAT_VERSION}"
        raise FileFormatError(f"{path} has format version {version!r}, this program reads {known}; build the model again")
    later = {name for number, names in ADDED.items() if number > version for name in names}
    problem = _layout_problem(tensors, {name: stored for name, stored in TENSORS.items() if name not in later})
    if problem is None and header.get("hash") != content_hash(header, tensors):
        problem = "it was changed after it was written, its content hash does not fit"
    problem = problem or _header_problem(header, tensors)
    if problem is None:
        tensors = tensors | _zeros(header, later)
        problem = _problem(header, tensors)
    if problem:
        raise FileFormatError(f"{path} is not a valid category model: {problem}; build or copy it again")
    return header, tensors


def _zeros(header: Header, names: set[str]) -> Tensors:
    return {name: torch.zeros(_shape(name, header), dtype=TENSORS[name][0]) for name in names}


def _shape(name: str, header: Header) -> tuple[int, ...]:
    return tuple(int(s) if s.isdigit() else header["counts"].get(s) for s in TENSORS[name][1])


def _stored_tensors(model: CategoryModel) -> Tensors:
    tensors = {}
    for name, (dtype, _) in TENSORS.items():
        owner, _, attribute = name.rpartition(".")
        value = getattr(model.betas if owner else model, attribute).detach().cpu()
        if dtype == torch.int16 and value.numel() and value.max() > torch.iinfo(dtype).max:
            raise InputError(f"{name} of the model of {model.category!r} exceeds {torch.iinfo(dtype).max}: too many keypoints")
        tensors[name] = value.to(dtype).contiguous()
    return tensors


def _in_memory(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.int16:
        return tensor.long()
    return tensor.float() if tensor.is_floating_point() else tensor


def _header(model: CategoryModel, tensors: Tensors) -> Header:
    header: Header = {"format_version": FORMAT_VERSION, **{name: getattr(model, name) for name in HEADER_FIELDS}}
    header["counts"] = {symbol: count for symbol, count in _counts(tensors).items() if symbol.isalpha()}
    try:
        header = json.loads(json.dumps(header, default=_plain))
    except TypeError as error:
        raise InputError(f"calibration or built_from of the model of {model.category!r} cannot be written as JSON: {error}") from error
    header["hash"] = content_hash(header, tensors)
    return header


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays, and paths, as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r}")


def _counts(tensors: Tensors) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, (_, symbols) in TENSORS.items():
        for symbol, size in zip(symbols, tensors[name].shape if name in tensors else (), strict=False):
            counts.setdefault(symbol, size)
    return counts


def content_hash(header: Header, tensors: Tensors) -> str:
    """Hexadecimal SHA-256 of all that a file with this header and these tensors holds."""
    text = json.dumps({key: value for key, value in header.items() if key != "hash"}, sort_keys=True)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return sha256_of_arrays({**arrays, HEADER_KEY: np.frombuffer(text.encode(), dtype=np.uint8)})


def _problem(header: Header, tensors: Tensors) -> str | None:
    """What is wrong with shapes and values of a file whose hash fits, or None."""
    for name in TENSORS:
        if tuple(tensors[name].shape) != _shape(name, header):
            return f"{name} has shape {tuple(tensors[name].shape)}, expected {_shape(name, header)}"
        if name not in MAY_BE_NAN and not torch.isfinite(tensors[name]).all():
            return f"{name} contains NaN or infinity"
    return _index_problem(header, tensors) or value_problem(tensors, header["calibration"])


def _header_problem(header: Header, tensors: Tensors) -> str | None:
    """What is wrong with the fields of a header, or None; sizes in it are those of the tensors before anything is allocated by them."""
    kinds = {"category": str, "keypoint_names": list, "flip_permutation": list, "backbone": str, "calibration": dict, "built_from": dict}
    for name, kind in kinds.items():
        if not isinstance(header.get(name), kind):
            return f"its header has no {name} ({kind.__name__})"
    if not all(isinstance(name, str) for name in header["keypoint_names"]):
        return "keypoint_names are not all texts"
    if not all(isinstance(index, int) for index in header["flip_permutation"]):
        return "flip_permutation are not all whole numbers"
    counts = {symbol: count for symbol, count in _counts(tensors).items() if symbol.isalpha()}
    return None if header.get("counts") == counts else f"its header has the sizes {header.get('counts')}, its tensors {counts}"


def _layout_problem(tensors: Tensors, expected: dict[str, Any]) -> str | None:
    """Missing, unknown or differently stored tensors, or None."""
    if set(tensors) != set(expected):
        return f"it lacks {sorted(set(expected) - set(tensors))} and has unknown {sorted(set(tensors) - set(expected))}"
    for name, (dtype, _) in expected.items():
        if tensors[name].dtype != dtype:
            return f"{name} is {tensors[name].dtype}, expected {dtype}"
    return None


def _index_problem(header: Header, tensors: Tensors) -> str | None:
    count, flip = header["counts"]["K"], header["flip_permutation"]
    if len(header["keypoint_names"]) != count:
        return f"{len(header['keypoint_names'])} keypoint names for {count} keypoints"
    if sorted(flip) != list(range(count)) or any(flip[flip[k]] != k for k in range(count)):
        return f"flip_permutation {flip} does not pair the {count} keypoints"
    for name, (dtype, _) in TENSORS.items():
        index = tensors[name]
        if dtype == torch.int16 and index.numel() and (index.min() < 0 or index.max() >= count):
            return f"{name} names keypoints outside 0..{count - 1}"
    return None
