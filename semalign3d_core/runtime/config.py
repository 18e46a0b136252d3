"""Configuration: frozen dataclasses, presets as YAML, unknown keys are errors."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from semalign3d_core.runtime.errors import FileFormatError, InputError, MissingFileError
from semalign3d_core.runtime.files import read_yaml, reading, shown, write_text

Config = TypeVar("Config")  # a frozen dataclass


def preset_folder() -> Path:
    """Where the shipped presets are: ``config/presets`` of the sources, ``semalign3d_core/presets`` once installed."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "config" / "presets", package / "presets"):
        if folder.is_dir():
            return folder
    raise InputError(f"the presets are missing beside {package}; install the package again")


def load_preset(config_class: type[Config], kind: str, name: str) -> Config:
    """Reads the preset ``<kind>_<name>.yaml``, or the YAML file that ``name`` is a path of, into ``config_class``."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = preset_folder() / f"{kind}_{path.name}.yaml"
    try:
        values = read_yaml(path)
    except MissingFileError:
        known = sorted(p.stem.removeprefix(f"{kind}_") for p in preset_folder().glob(f"{kind}_*.yaml"))
        text = f"choose one of {', '.join(known)}, or give the path of a YAML file"
        raise InputError(f"unknown {kind} preset {shown(name)!r}: {text}") from None
    with reading(path):
        return from_dict(config_class, values or {}, str(path))


def from_dict(config_class: type[Config], values: dict[str, Any], where: str) -> Config:
    """Builds a (nested) dataclass from a dictionary; ``where`` names its origin in errors."""
    if not isinstance(values, dict):
        raise FileFormatError(f"{where}: expected a mapping for {config_class.__name__}, found {type(values).__name__}")
    hints, names = typing.get_type_hints(config_class), [f.name for f in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    unknown = sorted(set(map(str, values)) - set(names))
    if unknown:
        legal = ", ".join(names)
        raise InputError(f"{where}: unknown key {shown(unknown[0])!r} in {config_class.__name__}; it has {legal}")
    return config_class(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} must be a mapping, found {shown(value)}")
        return {key: _convert(arguments[1], item, f"{where}: {key}") for key, item in value.items()}
    if origin is tuple or hint is tuple:
        return _tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise InputError(f"{where} must be {hint.__name__}, found {shown(repr(value))}")
    return value


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list | tuple) else value


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries, lists and numbers."""
    return dataclasses.asdict(config)


def save(config: Any, path: str | Path) -> None:
    """Writes the resolved configuration as YAML, for example beside a result."""
    write_text(path, yaml.safe_dump(_plain(to_dict(config)), sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
