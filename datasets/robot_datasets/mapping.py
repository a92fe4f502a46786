"""Turn plain mappings (YAML, JSON, Hydra) into validated dataclasses.

Reading one never names Python objects, so it cannot run code. An unknown key is an error with the nearest match.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from robot_datasets.errors import UserError, unknown_name

T = TypeVar("T")


class ConfigError(UserError):
    """A configuration value is missing, unknown or out of range."""


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build dataclass `cls` from a mapping, recursively for fields that are dataclasses or mappings of them.

    Args:
        cls: The dataclass; its ``__post_init__`` may validate and raise `ConfigError`.
        values: Field values; a field left out takes its default.
        where: Path of this mapping in the configuration, for error messages (``"policy.network"``), or a file
            with a colon (``"franka.yaml:"``).

    Raises:
        ConfigError: Unknown key (with the nearest match), missing key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{_place(where)}: expected a mapping of {cls.__name__} fields, got {values!r}")
    hints = _type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{_place(where)}: {unknown_name('key', key, fields)}")
    built = {key: _convert(hints[key], value, _inside(where, key)) for key, value in values.items()}
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in built:
            raise ConfigError(f"{_inside(where, name)}: missing; it has no default")
    return cls(**built)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: a plain tree of dicts, lists and scalars, ready for JSON or YAML."""
    return _plain(dataclasses.asdict(config))


@functools.cache  # evaluates every annotation anew, which is most of the time of reading a file of many entries
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _place(where: str) -> str:
    return where.removesuffix(":")


def _inside(where: str, key: str) -> str:
    return f"{where} {key}" if where.endswith(":") else f"{where}.{key}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        rest = [o for o in options if o is not type(None)]
        return _convert(rest[0], value, where) if len(rest) == 1 else value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, where=where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        key_hint, value_hint = typing.get_args(hint)
        keys = [_check_scalar(key_hint, key, where) for key in value]
        return {key: _convert(value_hint, value[key], _inside(where, str(key))) for key in keys}
    return _check_scalar(hint, value, where)


def _check_scalar(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where}: {unknown_name('value', value, map(str, typing.get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
