"""Plug-ins: backbones, depth sources, mask sources, matchers and data sets of other people.

An installed package announces them as entry points of the groups ``semalign3d.backbones``, ``.depths``, ``.masks``, ``.matchers`` and
``.datasets``. A module or a file given with ``--plugin`` holds dictionaries of the same names: ``BACKBONES = {"mine": MyBackbone}``.
"""

import importlib
import importlib.util
import logging
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from semalign3d_core.runtime.errors import InputError, MissingFileError

GROUPS = ("backbones", "depths", "masks", "matchers", "datasets")
_REGISTRIES: dict[str, "Registry"] = {}
_LOADED: dict[str, dict[str, dict[str, Any]]] = {}  # what was given with --plugin -> group -> name -> factory


class Registry(dict[str, Any]):
    """name -> factory of a group, plug-ins included. A value ``module:attribute`` is imported when somebody asks for it."""

    def __init__(self, group: str, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self.group = group
        _REGISTRIES[group] = self
        for point in _entry_points(group):
            if point.name in entries:
                logging.getLogger(__name__).warning(
                    "plug-in %s is ignored: there is a %r among the %s already", point.value, point.name, group
                )
            else:
                self[point.name] = point.value
        for added in _LOADED.values():
            self.add(added.get(group, {}))

    def add(self, entries: dict[str, Any]) -> None:
        """Adds entries of a plug-in; a name that is taken raises :class:`InputError`."""
        for name, factory in entries.items():
            if self.get(name, factory) is not factory:
                raise InputError(f"a plug-in calls one of its {self.group} {name!r}, and there is one of that name; choose another name")
            self[name] = factory

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, str):
            value = self[name] = _imported(name, value)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """As that of a dictionary."""
        return self[name] if name in self else default  # noqa: SIM401 (that would be this)


def load(plugin: str) -> None:
    """Adds what a module, or a Python file, defines in ``BACKBONES``, ``DEPTHS``, ``MASKS``, ``MATCHERS`` or ``DATASETS``."""
    if plugin in _LOADED:
        return
    module = _module(plugin)
    found = {group: dict(getattr(module, group.upper())) for group in GROUPS if hasattr(module, group.upper())}
    if not found:
        raise InputError(f"plug-in {plugin} defines none of {', '.join(group.upper() for group in GROUPS)}; see docs/plugins.md")
    for group, entries in found.items():
        if group in _REGISTRIES:
            _REGISTRIES[group].add(entries)
    _LOADED[plugin] = found


def loaded() -> tuple[str, ...]:
    """What :func:`load` was called with: a worker process loads the same."""
    return tuple(_LOADED)


def installed() -> list[tuple[str, str, str]]:
    """(group, name, where it is) of all plug-ins that installed packages announce."""
    return sorted((group, point.name, point.value) for group in GROUPS for point in _entry_points(group))


def _entry_points(group: str) -> metadata.EntryPoints:
    return metadata.entry_points(group=f"semalign3d.{group}")


def _module(plugin: str) -> ModuleType:
    try:
        if not plugin.endswith(".py"):
            return importlib.import_module(plugin)
        path = Path(plugin).resolve()
        if not path.is_file():
            raise MissingFileError(f"plug-in {plugin} does not exist; give a Python file, or a module that Python can import")
        name = f"semalign3d_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except MissingFileError:
        raise
    except Exception as error:  # whatever somebody else's code raises
        raise InputError(f"plug-in {plugin} cannot be imported ({type(error).__name__}: {error}); correct it, or its path") from error


def _imported(name: str, value: str) -> Any:
    module, _, attribute = value.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise InputError(f"{name!r} ({value}) cannot be loaded ({type(error).__name__}: {error}); update or remove that plug-in") from error
