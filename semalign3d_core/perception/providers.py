"""How providers are spelled on the command line and made: ``family[:argument][,option=value ...]``.

``dinov2:base``, ``vit:google/vit-base-patch16-224,revision=main``, ``depth_anything_v2:small,device=cpu``.
"""

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from typing_extensions import Doc

from semalign3d_core.runtime.errors import InputError, MissingDependencyError, choice


@dataclass(frozen=True, kw_only=True)
class ProviderOptions:
    """Where features, depth and masks come from; the options of every command and node that looks at images."""

    backbone: Annotated[
        str,
        Doc("feature backbone: compact, dinov2:base, precomputed:NAME ...; auto: that of the category model, without one the embedded one"),
    ] = "auto"
    depth: Annotated[str, Doc("depth source: none, precomputed, sensor:PATH, depth_anything_v2 ...")] = "none"
    masks: Annotated[
        str,
        Doc(
            "mask source: none, precomputed, compact, similarity (to the category model), sam2:tiny (prompted by the category model) ...; "
            "auto: compact with the embedded backbone, else similarity"
        ),
    ] = "auto"
    device: Annotated[str, Doc("where networks run and objects are aligned: cpu, cuda, cuda:1; auto: a GPU where there is one")] = "auto"


_OPTION = re.compile(r",(?=[a-z_]+=)")  # a comma inside a path is not followed by name=


def parse_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """(family, argument, {option: text}) of a spelling."""
    head, *rest = _OPTION.split(spec)
    family, _, argument = head.partition(":")
    return family, argument, dict(part.split("=", 1) for part in rest)


def create_provider(kind: str, registry: dict[str, Any], spec: str, **context: Any) -> Any:
    """Makes the provider that ``spec`` names with its factory in ``registry``.

    context: what the caller knows (data set folder, category model); a factory gets the parts it has parameters for.
    Options of the spelling are texts and must be parameters of the factory; an unknown one raises, naming the legal ones.
    """
    family, argument, options = parse_spec(spec)
    factory = choice(kind, family, registry)
    parameters = inspect.signature(factory).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    legal = [name for name in list(parameters)[1:] if name not in context and parameters[name].kind is not inspect.Parameter.VAR_KEYWORD]
    for name in options:
        if name not in legal:
            hint = f"it has {', '.join(legal)}" if legal else "it has none"
            raise InputError(f"{kind} {family!r} has no option {name!r}: {hint}")
    known = {name: value for name, value in context.items() if name in parameters or (open_ended and name == "dataset_root")}
    return factory(argument, **known, **options)


def on_device(spec: str, registry: dict[str, Any], device: str | torch.device) -> str:
    """The spelling of a provider with ``device=...`` added, where its factory has that option and the user gave none."""
    return f"{spec},device={device}" if takes(spec, registry, "device") and "device" not in parse_spec(spec)[2] else spec


def takes(spec: str, registry: dict[str, Any], parameter: str) -> bool:
    """Whether the factory of a provider has a parameter."""
    factory = registry.get(parse_spec(spec)[0])
    return factory is not None and parameter in inspect.signature(factory).parameters


def first_line(error: Any) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def require(module: str, extra: str) -> Any:
    """Imports an optional package; :class:`MissingDependencyError` names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} is needed here ({error}); install it with: pip install 'semalign3d[{extra}]'") from error
