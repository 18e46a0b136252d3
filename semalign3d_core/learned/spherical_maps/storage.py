"""Files of sphere mappers: official checkpoints and our own, which also say what features they were trained on."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from semalign3d_core.learned.spherical_maps.network import SphericalMaps, sphere_mapper
from semalign3d_core.perception.weights.pretrained import read_state
from semalign3d_core.runtime.errors import FileFormatError
from semalign3d_core.runtime.files import reading
from semalign3d_core.runtime.tensors import read_metadata, write_checkpoint, write_tensors

MAPPER, DECODER = "sphere_mapper", "prototypes"
OBSOLETE = "sphere.weight"  # (1024, 3), in every official checkpoint, read by nobody


@dataclass(frozen=True)
class MapperFacts:
    """What a file of ours says about its mapper; official ones say nothing.

    features:   name of the backbone whose features it was trained on, "" if unknown
    raw:        whether it reads tokens as the backbone gives them (the official ones), or of unit norm times the root of the channels
    categories: those of the decoder, in its order
    """

    features: str = ""
    raw: bool = True
    categories: tuple = ()


def load_spherical_maps(path: str | Path) -> SphericalMaps:
    """The :class:`SphericalMaps` of a checkpoint with both parts. Raises :class:`FileFormatError` naming what is missing or unexpected."""
    state = _parts(path)
    key = state.get(f"{DECODER}.blocks.0.attn.k.weight")
    if key is None or key.ndim != 2:
        raise _not_ours(path, [f"missing {DECODER}.blocks.0.attn.k.weight"])
    model = SphericalMaps(key.shape[0], key.shape[1], _width(state, path))
    _load(model, state, path)
    first, second = f"{DECODER}.blocks.0.", f"{DECODER}.blocks.1."
    untied = [name for name in state if name.startswith(first) and not torch.equal(state[name], state[second + name.removeprefix(first)])]
    if untied:
        raise FileFormatError(f"{path}: the decoder's two layers are one, but {untied[0]} differs between them; give it as it was trained")
    return model.eval()


def load_mapper(path: str | Path) -> torch.nn.Sequential:
    """The mapper alone, in evaluation mode: all that is needed once it is trained."""
    state = {name: value for name, value in _parts(path).items() if name.startswith(f"{MAPPER}.")}
    width, first = _width(state, path), state[f"{MAPPER}.0.weight"]
    holder = torch.nn.Module()
    mapper = holder.sphere_mapper = sphere_mapper(first.shape[1], width)
    _load(holder, state, path)
    return mapper.eval()


def read_facts(path: str | Path) -> MapperFacts:
    """The :class:`MapperFacts` of a file."""
    if Path(path).suffix != ".safetensors":
        return MapperFacts()
    content = read_metadata(path, "spherical_maps")
    if content is None:
        return MapperFacts()
    with reading(path, "expected what a spherical mapper was trained on"):
        return MapperFacts(content["features"], content["raw"], tuple(content["categories"]))


def save_spherical_maps(model: SphericalMaps, path: str | Path, facts: MapperFacts | None = None) -> None:
    """Writes a checkpoint under the official names: ``.safetensors``, or anything else as ``torch.save`` writes it for the official code.

    ``facts`` (:class:`MapperFacts`) go into safetensors only.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    if Path(path).suffix == ".safetensors":
        write_tensors(path, state, {} if facts is None else {"spherical_maps": json.dumps(vars(facts))})
    else:
        write_checkpoint(path, {OBSOLETE: torch.zeros(1024, 3), **state})


def _parts(path: str | Path) -> dict[str, torch.Tensor]:
    """The entries of mapper and decoder, whatever stands before their names; anything else but the obsolete entry raises."""
    state, unexpected = {}, []
    for name, value in read_state(path).items():
        part = next((part for part in (MAPPER, DECODER) if f"{part}." in name), None)
        if part is not None:
            state[name[name.index(f"{part}.") :]] = value
        elif not name.endswith(OBSOLETE):
            unexpected.append(f"unexpected {name}")
    if unexpected:
        raise _not_ours(path, unexpected)
    return state


def _width(state: dict[str, torch.Tensor], path: str | Path) -> int:
    first = state.get(f"{MAPPER}.0.weight")
    if first is None or first.ndim != 2:
        raise _not_ours(path, [f"missing {MAPPER}.0.weight"])
    return first.shape[0]


def _load(module: torch.nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    expected = module.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        raise _not_ours(path, problems)
    module.load_state_dict(state)


def _not_ours(path: str | Path, problems: list[str]) -> FileFormatError:
    listed = "; ".join(problems[:5]) + (f" and {len(problems) - 5} more" if len(problems) > 5 else "")
    return FileFormatError(f"{path} is not a checkpoint of SphericalMaps: {listed}; give an official one or one that was trained here")
