"""Parts of a configuration by registered name, and the mappings that describe them.

Configuration never names Python objects: a part is chosen by a registered ``type``, so reading a
configuration or a checkpoint cannot run code. An unknown key is an error with the nearest match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError, from_mapping, to_mapping

__all__ = ["ConfigError", "Registry", "from_mapping", "to_mapping"]

T = TypeVar("T")


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
