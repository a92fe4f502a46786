"""Joint position control: servos pull every joint to its target."""

from __future__ import annotations

from typing import Literal

import numpy as np

from robot_sim.vector.physics import BatchedPhysics


class JointPosition:
    """Targets of the joints, for arms with position actuators (``actuation="position"``).

    Absolute: the action is the target [rad], clipped to the joints' range. Delta: the action in [-1, 1] moves the
    *target* by so many times `scale`, so that an arm that is held back goes on pulling, and a sequence of zeros
    holds it where it was told to be.

    Args:
        n_envs: Number of environments.
        qpos: Addresses of the joints in ``qpos`` (J,).
        actuators: Ids of their position actuators (J,).
        limits: Range of the joints (J, 2) [rad].
        joints: Names of the joints.
        mode: See above.
        scale: Largest change of the target per control step in delta mode [rad].
    """

    hold = 0

    def __init__(
        self,
        n_envs: int,
        *,
        qpos: np.ndarray,
        actuators: np.ndarray,
        limits: np.ndarray,
        joints: tuple[str, ...],
        mode: Literal["absolute", "delta"] = "absolute",
        scale: float = 0.05,
    ) -> None:
        n = len(qpos)
        self._lower, self._upper = limits[:, 0].copy(), limits[:, 1].copy()
        self.low, self.high = (self._lower, self._upper) if mode == "absolute" else (-np.ones(n), np.ones(n))
        self.names = joints if mode == "absolute" else tuple(f"d_{name}" for name in joints)
        self.units = ("rad" if mode == "absolute" else "1",) * n
        self.state = {"target": np.zeros((n_envs, n))}
        self._qpos, self._actuators, self._mode, self._scale = qpos, actuators, mode, scale

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Hold the joints where they are."""
        self.state["target"][indices] = physics.qpos[indices][:, self._qpos]

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Set the targets from the action (N, J)."""
        del physics
        target = self.state["target"]
        target[:] = np.clip(
            action if self._mode == "absolute" else target + self._scale * action, self._lower, self._upper
        )

    def write(self, physics: BatchedPhysics) -> None:
        """Set the position actuators."""
        physics.ctrl[:, self._actuators] = self.state["target"]
