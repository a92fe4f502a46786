"""Opening and closing a gripper."""

from __future__ import annotations

import numpy as np

from robot_sim.vector.physics import BatchedPhysics


class Gripper:
    """One action component: -1 opens, 1 closes, 0 is half way; it travels at a limited speed.

    Args:
        n_envs: Number of environments.
        actuators: Ids of its position actuators (n,).
        opened: Their inputs when open (n,).
        closed: Their inputs when closed (n,).
        speed: Largest change per control step, in action units; 0.2 takes ten steps from open to closed.
        name: Name of the action component.
    """

    hold = 0
    units = ("1",)

    def __init__(
        self,
        n_envs: int,
        *,
        actuators: np.ndarray,
        opened: np.ndarray,
        closed: np.ndarray,
        speed: float = 0.2,
        name: str = "gripper",
    ) -> None:
        self.low, self.high, self.names = -np.ones(1), np.ones(1), (name,)
        self.state = {"closure": np.full(n_envs, -1.0)}
        self._actuators, self._speed = actuators, speed
        self._opened, self._closed = np.asarray(opened, float), np.asarray(closed, float)

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Take up the opening that the actuators' inputs say, open where they say nothing."""
        span = self._closed[0] - self._opened[0]
        share = (physics.ctrl[indices, self._actuators[0]] - self._opened[0]) / span
        self.state["closure"][indices] = np.clip(2 * share - 1, -1.0, 1.0)

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Move towards the commanded closure (N, 1)."""
        del physics
        closure = self.state["closure"]
        closure += np.clip(action[:, 0] - closure, -self._speed, self._speed)

    def write(self, physics: BatchedPhysics) -> None:
        """Set the position actuators."""
        share = (self.state["closure"][:, None] + 1) / 2
        physics.ctrl[:, self._actuators] = self._opened + share * (self._closed - self._opened)
