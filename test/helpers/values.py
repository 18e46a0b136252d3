"""What all values of a package have in common."""

import dataclasses
import importlib
import pkgutil

from semalign3d_core.runtime.values import ShortRepr


def check_values(package, mutable=()):
    """The dataclasses of a package do not change after they were made, and say shortly what they are; ``mutable``: names of others."""
    found = importlib.import_module(package)
    names = [package, *(module.name for module in pkgutil.walk_packages(found.__path__, f"{package}."))]
    classes = {value for name in names for value in vars(importlib.import_module(name)).values() if isinstance(value, type)}
    classes = {each for each in classes if dataclasses.is_dataclass(each) and each.__module__.startswith(package)}
    assert classes
    for each in classes:
        parameters = each.__dataclass_params__
        assert parameters.frozen is (each.__name__ not in mutable), each
        assert not (parameters.repr and issubclass(each, ShortRepr)), each
