"""ROS parameters from a mapping: typed, with ranges, read-only, and none that nobody declared.

A parameter that is misspelt in a YAML file would otherwise be ignored, and the default used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError

Range = tuple[float, float]
_BUILT_IN = ("use_sim_time", "start_type_description_service")


def declare_parameters(
    node: Node,
    defaults: Mapping[str, Any],
    *,
    about: Mapping[str, str] | None = None,
    ranges: Mapping[str, Range] | None = None,
    writable: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Declare parameters and return their values, overrides of the command line or a YAML file applied.

    Args:
        node: The node, made without automatic declaration.
        defaults: Name -> default; its type is the parameter's type for good. Dots nest.
        about: Name -> what it means, with units.
        ranges: Name -> smallest and largest allowed value.
        writable: Names that may be set while the node runs; all others are read-only.

    Raises:
        ConfigError: An override of another type, out of range, or of a parameter that does not exist.
    """
    overrides = node._parameter_overrides  # no public way to see those that were never declared
    for name in overrides:
        if name not in defaults and name not in _BUILT_IN and not name.startswith("qos_overrides."):
            raise ConfigError(f"node '{node.get_name()}': {unknown_name('parameter', name, defaults)}")
    values: dict[str, Any] = {}
    for name, default in defaults.items():
        descriptor = _descriptor(default, (about or {}).get(name, ""), (ranges or {}).get(name))
        descriptor.read_only = name not in writable
        try:
            values[name] = node.declare_parameter(name, default, descriptor).value
        except InvalidParameterTypeException as error:
            raise ConfigError(
                f"parameter '{name}': got {overrides[name].value!r}, expected {type(default).__name__}"
                + (" (write 1.0, not 1)" if isinstance(default, float) else "")
            ) from error
        except InvalidParameterValueException as error:
            low, high = (ranges or {}).get(name, (None, None))
            raise ConfigError(
                f"parameter '{name}': got {overrides[name].value!r}, expected {low} to {high}"
            ) from error
        if isinstance(default, (list, tuple)):
            values[name] = type(default)(values[name])
    return values


def _descriptor(default: Any, about: str, bounds: Range | None) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=about)
    if bounds is not None:
        low, high = bounds
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
