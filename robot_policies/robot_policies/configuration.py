"""Turn plain mappings (YAML, JSON, Hydra) into validated dataclasses.

Configuration never names Python objects: a part is chosen by a registered ``type``, so reading a
configuration or a checkpoint cannot run code. An unknown key is an error with the nearest match.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from robot_datasets.errors import UserError, unknown_name

T = TypeVar("T")


class ConfigError(UserError):
    """A configuration value is missing, unknown or out of range."""


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build dataclass `cls` from a mapping, recursively for fields that are dataclasses.

    Args:
        cls: The dataclass; its ``__post_init__`` may validate and raise `ConfigError`.
        values: Field values; a field left out takes its default.
        where: Path of this mapping in the configuration, for error messages (``"policy.network"``).

    Raises:
        ConfigError: Unknown key (with the nearest match), missing key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping of {cls.__name__} fields, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: {unknown_name('key', key, fields)}")
    built = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in built:
            raise ConfigError(f"{where}.{name}: missing; it has no default")
    return cls(**built)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: a plain tree of dicts, lists and scalars, ready for JSON or YAML."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


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
        return dict(value)
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


class Registry(Generic[T]):
    """Named builders of one kind of part; each has a config dataclass.

    >>> networks = Registry("network")
    >>> @networks.register("mlp", MlpConfig)
    ... def build_mlp(config, **context): ...

    A part is chosen by ``{"type": "mlp", ...fields of MlpConfig}``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, tuple[type, Callable[..., T]]] = {}

    def register(self, name: str, config_class: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Register ``builder(config, **context) -> part`` under `name`."""

        def decorator(builder: Callable[..., T]) -> Callable[..., T]:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = (config_class, builder)
            return builder

        return decorator

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._entries)

    def config(self, values: Mapping[str, Any], *, where: str) -> Any:
        """Validate ``{"type": name, ...}`` into the part's config dataclass."""
        return self._entry(values, where)[1]

    def build(self, values: Mapping[str, Any], *, where: str, **context: Any) -> T:
        """Validate ``{"type": name, ...}`` and build the part."""
        builder, config = self._entry(values, where)
        return builder(config, **context)

    def _entry(self, values: Mapping[str, Any], where: str) -> tuple[Callable[..., T], Any]:
        if not isinstance(values, Mapping) or "type" not in values:
            raise ConfigError(f"{where}: missing 'type'. Available: {', '.join(self.names())}")
        name = values["type"]
        if name not in self._entries:
            raise ConfigError(f"{where}.type: {unknown_name(self.kind, name, self.names())}")
        config_class, builder = self._entries[name]
        rest = {k: v for k, v in values.items() if k != "type"}
        return builder, from_mapping(config_class, rest, where=where)
