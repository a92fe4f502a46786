"""Following waypoints with one arm, one action per control step, by feedback alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robot_sim.rotations import matrix_to_rotation_vector
from robot_sim.skills.view import ArmView

OPEN, CLOSED = -1.0, 1.0
SCALE_POSITION = 0.05  # metres per action unit
SCALE_ROTATION = 0.5  # radians per action unit
_GAIN = 1.3  # share of the remaining way to ask for in one step
_TOP_ROTATION = 0.6  # largest rotation asked for, in action units


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where a tool shall be, and when that counts as done.

    Attributes:
        position: Of the tool, world frame (3,) [m]; None stays where it is.
        rotation: Of the tool, world frame (3, 3); None keeps the last one asked for.
        gripper: -1 open to 1 closed; None keeps it.
        speed: Largest translation asked for, in action units (1 is 5 cm ahead, about 0.3 m/s).
        tolerance: Distance at which it counts as reached [m].
        angle_tolerance: Angle at which it counts as reached [rad].
        dwell: Steps to stay after it was reached, e.g. for the gripper to close.
        timeout: Steps after which to go on in any case.
        skill: Name of the skill, for the episode's segments.
    """

    position: np.ndarray | None = None
    rotation: np.ndarray | None = None
    gripper: float | None = None
    speed: float = 0.8
    tolerance: float = 0.008
    angle_tolerance: float = 0.06
    dwell: int = 0
    timeout: int = 60
    skill: str = ""


class Follower:
    """Turns an arm's waypoints into its actions.

    Args:
        arm: The arm.
        waypoints: Asked for one by one, when the one before is done: a skill sees the scene as it is then.
    """

    def __init__(self, arm: ArmView, waypoints: Iterator[Waypoint]) -> None:
        self._arm, self._waypoints = arm, waypoints
        self._position, self._rotation = arm.position, arm.rotation
        self._gripper = OPEN
        self._current: Waypoint | None = None
        self._steps = self._dwelled = 0
        self.finished = False
        self._advance()

    @property
    def skill(self) -> str:
        """Name of the skill under way."""
        return "" if self._current is None else self._current.skill

    def act(self) -> np.ndarray:
        """Return the next action (7,): translation, rotation vector, gripper."""
        for _ in range(8):  # waypoints that are reached already take no step
            if self.finished or not self._is_done():
                break
            self._advance()
        self._steps += 1
        error = self._position - self._arm.position
        ahead = _GAIN * error / SCALE_POSITION
        speed = self._current.speed if self._current is not None else 0.5
        ahead *= min(1.0, speed / max(float(np.linalg.norm(ahead)), 1e-9))
        turn = _GAIN * matrix_to_rotation_vector(self._rotation @ self._arm.rotation.T) / SCALE_ROTATION
        turn *= min(1.0, _TOP_ROTATION / max(float(np.linalg.norm(turn)), 1e-9))
        return np.concatenate([ahead, turn, [self._gripper]])

    def _is_done(self) -> bool:
        waypoint = self._current
        if waypoint is None:
            return True
        if self._steps >= waypoint.timeout:
            return True
        near = np.linalg.norm(self._position - self._arm.position) < waypoint.tolerance
        turn = matrix_to_rotation_vector(self._rotation @ self._arm.rotation.T)
        if not (near and np.linalg.norm(turn) < waypoint.angle_tolerance):
            return False
        self._dwelled += 1
        return self._dwelled > waypoint.dwell

    def _advance(self) -> None:
        self._steps = self._dwelled = 0
        waypoint = next(self._waypoints, None)
        if waypoint is None:
            self.finished = True
            return
        self._current = waypoint
        if waypoint.position is not None:
            self._position = np.asarray(waypoint.position, float)
        if waypoint.rotation is not None:
            self._rotation = waypoint.rotation
        if waypoint.gripper is not None:
            self._gripper = waypoint.gripper
        if waypoint.position is not None or waypoint.rotation is not None:
            self._arm.require_reach(self._position, self._rotation)
