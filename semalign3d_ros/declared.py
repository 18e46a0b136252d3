"""Node parameters from dataclasses: default, type, range and description of each stand in one place."""

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from typing_extensions import Doc

from semalign3d_core.runtime.config import from_dict
from semalign3d_core.runtime.errors import InputError, SemAlign3DError
from semalign3d_ros.process import take_time

Parameters = TypeVar("Parameters", bound=Any)  # a dataclass


@dataclass(frozen=True)
class Between:
    """The range of a number."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """The values that a text may have."""

    values: tuple[str, ...]


OF_TOPICS = "qos_overrides."  # begins the names of parameters that are declared with their topics
FIXED = "fixed"  # marks a parameter that cannot be changed while the node runs


def descriptors(parameter_class: type) -> dict[str, ParameterDescriptor]:
    """{name: descriptor} of the fields of a dataclass of parameters, in their order."""
    hints = get_type_hints(parameter_class, include_extras=True)
    return {item.name: _descriptor(hints[item.name]) for item in fields(parameter_class)}


def _descriptor(hint: Any) -> ParameterDescriptor:
    kind, marks = (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    found = ParameterDescriptor(dynamic_typing=True, read_only=FIXED in marks)  # own checks of types name what is wrong
    for mark in marks:
        if isinstance(mark, Doc):
            found.description = mark.documentation
        elif isinstance(mark, OneOf):
            found.additional_constraints = "one of " + ", ".join(mark.values)
        elif isinstance(mark, Between) and kind is float:
            found.floating_point_range = [FloatingPointRange(from_value=float(mark.low), to_value=float(mark.high))]
        elif isinstance(mark, Between):
            found.integer_range = [IntegerRange(from_value=int(mark.low), to_value=int(mark.high), step=1)]
    return found


def checked(parameter_class: type[Parameters], values: dict[str, Any], where: str) -> Parameters:
    """The dataclass filled in; raises :class:`InputError` naming the parameter whose value has the wrong type or is out of range."""
    result = from_dict(parameter_class, values, where)
    hints = get_type_hints(parameter_class, include_extras=True)
    for name, value in asdict(result).items():
        for mark in getattr(hints[name], "__metadata__", ()):
            if isinstance(mark, OneOf) and value not in mark.values:
                raise InputError(f"{where}: {name} is {value!r}: choose one of {', '.join(mark.values)}")
            if isinstance(mark, Between) and not mark.low <= value <= mark.high:
                raise InputError(f"{where}: {name} is {value}, expected {mark.low} to {mark.high}")
    return result


def declare(node: Node, parameter_class: type[Parameters]) -> Parameters:
    """Declares a parameter for every field of the dataclass and returns it filled in.

    Raises :class:`InputError` naming the parameter when a value has the wrong type or is out of range.
    """
    wanted = {name: one for name, one in descriptors(parameter_class).items() if not node.has_parameter(name)}  # a managed node has them
    defaults = {item.name: item.default for item in fields(parameter_class)}
    for name, descriptor in wanted.items():
        loose = ParameterDescriptor(description=descriptor.description, dynamic_typing=True)  # so that our own error names what is wrong
        node.declare_parameter(name, defaults[name], loose)
    _warn_of_unknown(node)
    parameters = checked(parameter_class, {name: node.get_parameter(name).value for name in defaults}, _where(node))
    for name, descriptor in wanted.items():
        node.set_descriptor(name, descriptor)
    return parameters


def _warn_of_unknown(node: Node) -> None:
    """ROS ignores values of parameters that a node does not have, without a word: a misspelt one then has no effect."""
    known = [name for name in node._parameters if "." not in name]  # nothing public lists what was given and not declared
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith(OF_TOPICS):
            near = difflib.get_close_matches(name, known, 1)
            node.get_logger().warning(f"there is no parameter {name}; it is ignored" + (f" (did you mean {near[0]}?)" if near else ""))


class LiveParameters:
    """Parameters that can be changed while the node runs: all of a change, or nothing of it, takes effect.

    prepare(parameters): what they stand for; raises :class:`SemAlign3DError` to refuse them
    install(prepared): puts it in force; called once the parameters say so
    """

    def __init__(self, node: Node, values: Any, prepare: Callable[[Any], Any], install: Callable[[Any], None]) -> None:
        self._node, self.values, self._prepare, self._install = node, values, prepare, install
        self._next: tuple[Any, Any] | None = None
        node.add_on_set_parameters_callback(self._on_set)
        node.add_post_set_parameters_callback(self._after_set)

    def close(self) -> None:
        """Changes take no effect any more."""
        self._node.remove_on_set_parameters_callback(self._on_set)
        self._node.remove_post_set_parameters_callback(self._after_set)

    def change(self, **values: Any) -> None:
        """Sets parameters of this node; raises :class:`InputError` with the reason where they are refused."""
        result = self._node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])
        if not result.successful:
            raise InputError(result.reason)

    def _on_set(self, parameters):
        take_time()
        own = {item.name: item.value for item in parameters if hasattr(self.values, item.name)}
        self._next = None
        if not own:
            return SetParametersResult(successful=True)
        try:
            changed = checked(type(self.values), asdict(replace(self.values, **own)), _where(self._node))
            self._next = changed, self._prepare(changed)
        except Exception as error:  # whatever a value makes fail must not end the node
            reason = str(error) if isinstance(error, SemAlign3DError) else f"{type(error).__name__}: {error}"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _after_set(self, _):
        if self._next is not None:
            (self.values, prepared), self._next = self._next, None
            self._install(prepared)


def _where(node: Node) -> str:
    return f"parameter of node {node.get_fully_qualified_name()}"
