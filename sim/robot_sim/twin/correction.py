"""What pulls simulated bodies to where they are observed: the contract, and the registered kinds.

Once per tick of the twin a correction is told what is known (`Correction.begin`); then, before every physics step,
it is asked for the wrenches of that step (`Correction.wrenches`), so that a force can follow the body while it
moves. Several corrections add up: poses and images side by side. Wrenches act at a body's centre of mass, in the
world frame, for one physics step, and the contact solver has the last word: no correction sets a pose, except
`reset`, which exists to be compared with.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError, from_mapping
from robot_sim.twin.geometry import length
from robot_sim.twin.observed import ObservedState

if TYPE_CHECKING:
    from robot_sim.twin.world import TwinWorld


@dataclass(frozen=True, kw_only=True, eq=False)
class Wrench:
    """A force and a torque on a body at its centre of mass, world frame.

    Attributes:
        force: (3,) [N].
        torque: (3,) [N m].
    """

    force: np.ndarray
    torque: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """Where a body should be after one physics step: what the physics alone would lead to, plus the known error.

    Attributes:
        position: (3,) of the body frame [m].
        quaternion: (4,) wxyz.
        linear: (3,) velocity that the physics alone would lead to [m/s].
        angular: (3,) [rad/s], world frame.
    """

    position: np.ndarray
    quaternion: np.ndarray
    linear: np.ndarray
    angular: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class TickContext:
    """What a correction is told at the start of a tick.

    Attributes:
        now_ns: Time of the twin's state [ns].
        period: Length of the tick [s].
        observed: Messages that arrived since the last tick, by stamp.
        goals: Body -> one `Goal` per physics step of this tick; only bodies whose error is known.
        fresh: Bodies with a new observation.
    """

    now_ns: int
    period: float
    observed: Sequence[ObservedState]
    goals: Mapping[str, Sequence[Goal]]
    fresh: frozenset[str]


class Correction(Protocol):
    """Turns what is known into wrenches; see the module's docstring."""

    def begin(self, world: TwinWorld, context: TickContext) -> None:
        """Take what is known, before the physics steps of a tick."""
        ...

    def wrenches(self, world: TwinWorld, step: int) -> Mapping[str, Wrench]:
        """Return body -> wrench for physics step `step` of this tick, from the world as it is now."""
        ...


CorrectionBuilder = Callable[[Any], Correction]
Builder = TypeVar("Builder", bound=CorrectionBuilder)
_KINDS: dict[str, tuple[type, CorrectionBuilder]] = {}
# Kinds that are registered by a module of their own, loaded when asked for: they need torch.
_ELSEWHERE = {"images": "robot_sim.twin.gaussians.image_correction"}


def register_correction(name: str, config: type) -> Callable[[Builder], Builder]:
    """Register ``builder(config) -> Correction`` for ``{"type": name, ...fields of config}``."""

    def decorator(builder: Builder) -> Builder:
        if name in _KINDS:
            raise ValueError(f"correction '{name}' is registered twice")
        _KINDS[name] = (config, builder)
        return builder

    return decorator


def correction_names() -> list[str]:
    """Return the kinds there are, sorted."""
    return sorted({*_KINDS, *_ELSEWHERE})


def build_correction(values: Mapping[str, Any], *, where: str = "correction") -> Correction:
    """Build the correction that ``{"type": ..., ...}`` describes.

    Raises:
        ConfigError: Unknown type or key, with the nearest match.
    """
    kind = values.get("type") if isinstance(values, Mapping) else None
    if kind in _ELSEWHERE:
        importlib.import_module(_ELSEWHERE[kind])
    if kind not in _KINDS:
        raise ConfigError(f"{where}.type: {unknown_name('correction', kind, correction_names())}")
    config, builder = _KINDS[kind]
    rest = {key: value for key, value in values.items() if key != "type"}
    return builder(from_mapping(config, rest, where=where))


def clipped(vector: np.ndarray, longest: float) -> np.ndarray:
    """Return a vector (3,) shortened to at most `longest`, its direction kept."""
    size = length(vector)
    return vector if size <= longest else vector * (longest / size)
