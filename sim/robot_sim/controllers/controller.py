"""The contract of a batched controller, and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from robot_sim.vector.physics import BatchedPhysics


class Controller(Protocol):
    """Turns actions of N environments into actuator inputs.

    Once per control step `set_goal` receives the action; then, `hold` physics steps apart, `write` sets the
    actuator inputs from the current state. Everything a controller remembers between calls is in `state`, arrays
    (N, ...) that a simulation saves, restores and resets row by row.
    """

    @property
    def low(self) -> np.ndarray:
        """Smallest action (A,), which actions are clipped to."""
        ...

    @property
    def high(self) -> np.ndarray:
        """Largest action (A,)."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the action's components (A,)."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """Their units (A,)."""
        ...

    @property
    def hold(self) -> int:
        """Physics steps between two calls of `write`; 0 if once per control step is enough."""
        ...

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What is remembered, by name, (N, ...) each."""
        ...

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Forget the past of environments that have just been put into a new state."""
        ...

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Take the actions (N, A), already clipped."""
        ...

    def write(self, physics: BatchedPhysics) -> None:
        """Set the actuator inputs in ``physics.ctrl``."""
        ...


class Controllers:
    """Controllers of different parts, whose actions are concatenated.

    Args:
        parts: The controllers, in the order of their actions.
    """

    def __init__(self, parts: Sequence[Controller]) -> None:
        self.parts = tuple(parts)
        self.low = np.concatenate([part.low for part in parts])
        self.high = np.concatenate([part.high for part in parts])
        self.names = tuple(name for part in parts for name in part.names)
        self.units = tuple(unit for part in parts for unit in part.units)
        holds = sorted({part.hold for part in parts if part.hold})
        if any(hold % holds[0] for hold in holds):
            raise ValueError(f"controllers that hold for {holds} physics steps have no common beat")
        self.hold = holds[0] if holds else 0
        ends = np.cumsum([len(part.low) for part in parts])
        self._slices = [slice(end - len(part.low), end) for part, end in zip(parts, ends, strict=True)]

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the parts remember; names are preceded by the part's number."""
        return {
            f"{i}.{name}": value for i, part in enumerate(self.parts) for name, value in part.state.items()
        }

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Reset all parts."""
        for part in self.parts:
            part.reset(physics, indices)

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Give each part its share of the action."""
        for part, share in zip(self.parts, self._slices, strict=True):
            part.set_goal(physics, action[:, share])

    def write(self, physics: BatchedPhysics) -> None:
        """Let all parts set their actuators."""
        for part in self.parts:
            part.write(physics)
