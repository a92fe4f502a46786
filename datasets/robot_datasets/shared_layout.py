"""The shared layout: components of different robots at agreed places of one vector, the rest padded and masked.

A *layout* (``schemas/layouts/shared.yaml``) is an ordered list of slots. A schema says which of a robot's
components go into which slot. A mixture keeps the slots that one of its robots fills, so that two seven-joint arms
do not drag the legs of a humanoid along::

    slots in use        left_arm      left_gripper   right_arm     right_gripper
    width               7             1              7             1                16 in all
    agilex (6+1, 6+1)   v v v v v v . v              v v v v v v . v                v = valid, . = 0, masked
    franka (7+1)        . . . . . . . .              v v v v v v v v

`Placement` does it for one feature in both directions, `robot_datasets.shared_view` for whole stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, Feature
from robot_datasets.mapping import ConfigError, from_mapping

if TYPE_CHECKING:
    from robot_datasets.schemas import EmbodimentSchema

LAYOUTS = Path(__file__).parent / "schemas" / "layouts"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A named stretch of the vector: its number of components, and what it holds."""

    size: int
    holds: str = ""


@dataclass(frozen=True, kw_only=True)
class SharedLayout:
    """Slots in order."""

    slots: Mapping[str, Slot]

    @property
    def width(self) -> int:
        """Number of components W of all slots."""
        return sum(slot.size for slot in self.slots.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Component names, ``right_arm.0``, ...; (W,)."""
        return tuple(f"{name}.{i}" for name, slot in self.slots.items() for i in range(slot.size))

    def only(self, slots: Sequence[str]) -> SharedLayout:
        """Return the layout with these slots alone, in its own order; an unknown slot is an error."""
        for name in slots:
            if name not in self.slots:
                raise DatasetError(unknown_name("slot", name, self.slots))
        return SharedLayout(slots={name: slot for name, slot in self.slots.items() if name in slots})


@lru_cache(maxsize=8)
def load_layout(name: str = "shared") -> SharedLayout:
    """Read a layout that comes with the package.

    Raises:
        DatasetError: No such layout, with the nearest match.
    """
    from robot_datasets.schemas.reading import read_yaml

    files = {path.stem: path for path in LAYOUTS.glob("*.yaml")}
    if name not in files:
        raise DatasetError(unknown_name("layout", name, files))
    try:
        return from_mapping(SharedLayout, read_yaml(files[name]), where=f"{files[name].name}:")
    except ConfigError as error:
        raise DatasetError(str(error)) from error


def check_layout(schema: EmbodimentSchema) -> None:
    """Raise `SchemaError` unless the schema's slots exist and are large enough for its components."""
    from robot_datasets.schemas.reading import SchemaError

    described = {name: schema.feature(name) for name in schema.features}
    described |= {f"action={choice}": schema.action(choice) for choice in schema.actions}
    for name, feature in described.items():
        if not any(set(names) & set(feature.names) for names in schema.layout.values()):
            continue
        try:
            Placement.of(name, feature, schema.layout, load_layout())
        except DatasetError as error:
            raise SchemaError(f"{schema.name}: layout: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the components of one feature go.

    Attributes:
        feature: The robot's own feature (D,).
        layout: The layout, W wide.
        columns: Components of the feature that have a place, (P,).
        positions: Their places in the layout, (P,).
    """

    feature: Feature
    layout: SharedLayout
    columns: tuple[int, ...]
    positions: tuple[int, ...]

    @classmethod
    def of(
        cls, name: str, feature: Feature, components: Mapping[str, Sequence[str]], layout: SharedLayout
    ) -> Placement:
        """Place a feature by its component names.

        Args:
            name: Feature name, for messages. Every component of ``action`` must have a place; a component of
                another feature without one is left out.
            feature: A vector with component names.
            components: Slot -> component names, as in a schema; names of other features are skipped.
            layout: The layout.

        Raises:
            DatasetError: The feature has no names, a slot is unknown or too small, or nothing has a place.
        """
        if not feature.names:
            raise DatasetError(f"{name} has no component names, which the shared layout goes by; name them")
        starts = np.cumsum([0, *(slot.size for slot in layout.slots.values())])
        start_of = dict(zip(layout.slots, starts.tolist(), strict=False))
        places: dict[int, int] = {}
        for slot, listed in components.items():
            own = [component for component in listed if component in feature.names]
            if not own:
                continue
            if slot not in layout.slots:
                raise DatasetError(unknown_name("slot", slot, layout.slots))
            if len(own) > layout.slots[slot].size:
                raise DatasetError(
                    f"slot {slot} takes {layout.slots[slot].size} components, {name} has {len(own)} for it"
                )
            places |= {feature.names.index(component): start_of[slot] + i for i, component in enumerate(own)}
        homeless = [component for i, component in enumerate(feature.names) if i not in places]
        if not places or (name == ACTION and homeless):
            raise DatasetError(
                f"{name}: no place in the shared layout for {', '.join(homeless)}; add them to 'layout' of the schema"
            )
        columns = tuple(sorted(places))
        return cls(
            feature=feature, layout=layout, columns=columns, positions=tuple(places[c] for c in columns)
        )

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots that the feature fills, at least in part, in the order of the layout."""
        owners = [name for name, slot in self.layout.slots.items() for _ in range(slot.size)]
        filled = {owners[position] for position in self.positions}
        return tuple(name for name in self.layout.slots if name in filled)

    @property
    def padded_feature(self) -> Feature:
        """The feature as it looks in the layout; units and conventions stay those of each robot."""
        return Feature(dtype="float32", shape=(self.layout.width,), names=self.layout.names)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which places of the layout the robot fills, (W,)."""
        valid = np.zeros(self.layout.width, dtype=bool)
        valid[list(self.positions)] = True
        return valid

    def pad(self, values: NDArray[Any], *, fill: float = 0.0) -> NDArray[Any]:
        """Bring (..., D) to (..., W); places that the robot does not fill are `fill`."""
        padded = np.full((*values.shape[:-1], self.layout.width), fill, dtype=values.dtype)
        padded[..., list(self.positions)] = values[..., list(self.columns)]
        return padded

    def take(self, padded: NDArray[Any]) -> NDArray[Any]:
        """Bring (..., W) back to (..., D); components without a place are 0."""
        values = np.zeros((*padded.shape[:-1], self.feature.shape[0]), dtype=padded.dtype)
        values[..., list(self.columns)] = padded[..., list(self.positions)]
        return values
