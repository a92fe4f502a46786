"""Actions that take effect some control steps after they were given."""

from __future__ import annotations

import numpy as np

from robot_sim.controllers.controller import Controller
from robot_sim.vector.physics import BatchedPhysics


class LateActions:
    """Holds back the actions of each environment by its own number of control steps.

    Until the first action arrives, the controller goes on with what it was reset to: staying in place.

    Args:
        n_envs: Number of environments.
        size: Size of an action.
        most: Largest number of steps.
    """

    def __init__(self, n_envs: int, size: int, most: int) -> None:
        self._steps = np.zeros(n_envs, dtype=np.int64)
        self._waiting = np.full((n_envs, most, size), np.nan)  # NaN: nothing was given yet

    def reset(self, row: int, steps: int) -> None:
        """Start an episode whose actions come `steps` late."""
        self._steps[row] = steps
        self._waiting[row] = np.nan

    def give(self, controller: Controller, physics: BatchedPhysics, actions: np.ndarray) -> None:
        """Take the actions (N, A) and hand the controller those that are due."""
        if not self._waiting.shape[1]:
            controller.set_goal(physics, actions)
            return
        row = np.arange(len(actions))
        line = np.concatenate([actions[:, None], self._waiting], axis=1)  # newest first
        due = line[row, self._steps]
        self._waiting[:] = line[:, :-1]
        nothing = np.isnan(due[:, 0])
        kept = {name: value[nothing].copy() for name, value in controller.state.items()}
        controller.set_goal(physics, np.where(nothing[:, None], 0.0, due))
        for name, value in kept.items():
            controller.state[name][nothing] = value

    def save(self, indices: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of what waits in these environments."""
        return self._steps[indices].copy(), self._waiting[indices].copy()

    def restore(self, saved: tuple[np.ndarray, np.ndarray], indices: np.ndarray | slice) -> None:
        """Put it back."""
        self._steps[indices], self._waiting[indices] = saved
