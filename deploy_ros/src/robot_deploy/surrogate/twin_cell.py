"""A surrogate cell in step with real time: what the node of the surrogate drives."""

from __future__ import annotations

import numpy as np

from robot_datasets.errors import UserError
from robot_deploy.surrogate.audit import CommandAudit
from robot_deploy.surrogate.controllers import JointTrajectoryController
from robot_deploy.tracking.twin_run import published_limits
from robot_sim.twin.cell import Cell
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.surrogate import STEP_NS, SurrogateCell, SurrogateConfig

_MAX_LAG_NS = 200_000_000  # what is beyond is not simulated: a real arm's clock would not wait


class TwinCell:
    """See the module's docstring.

    Stamps and arrivals are in the clock that `advance` is called with; the controller holds where the episode starts.

    Args:
        cell: The cell file.
        config: What is different from it.
        seed: Episode of the task.

    Attributes:
        surrogate: The simulation.
        controller: Of the arm.
        audit: Judges what the arm was told, every millisecond or so.
        skipped_ns: Time that was not simulated, because the machine was too slow [ns].
    """

    def __init__(self, cell: Cell, config: SurrogateConfig | None = None, *, seed: int = 0) -> None:
        self.cell, self.surrogate = cell, SurrogateCell(cell, config)
        self.controller = JointTrajectoryController(cell.robot.joints)
        self.audit = CommandAudit(published_limits(cell))
        self.skipped_ns = 0
        self._copy = ParallelCell([cell], threads=0)
        self.start(seed)

    def start(self, seed: int) -> None:
        """Put everything where the task's episode `seed` starts."""
        self.surrogate.start(seed)
        self.controller.hold(self.surrogate.scene.joints[0])
        self.surrogate.follow(self._path)
        self.audit.forget()
        self._zero_ns: int | None = None  # the caller's clock when the surrogate's was zero

    def advance(self, now_ns: int) -> list[tuple[int, ObservedState]]:
        """Simulate up to now; return (stamp [ns], message) of what arrived meanwhile, in the caller's clock."""
        if self._zero_ns is None:
            self._zero_ns = now_ns - self.surrogate.time_ns
        behind = now_ns - self._zero_ns - self.surrogate.time_ns
        if behind > _MAX_LAG_NS:
            self.skipped_ns += behind - _MAX_LAG_NS
            self._zero_ns += behind - _MAX_LAG_NS
        elif behind < -_MAX_LAG_NS:  # the clock was set back
            self._zero_ns += behind
        zero_ns = self._zero_ns
        self._plan(now_ns - zero_ns)
        return [(m.stamp_ns + zero_ns, m) for m in self.surrogate.advance(now_ns - zero_ns)]

    def disturb(self, text: str) -> str:
        """Do to the cell what people do; return what was done.

        Args:
            text: ``move BODY X Y YAW`` moves a body along the table [m] and turns it [rad]; ``hide SECONDS`` stops
                the poses of objects for a while.

        Raises:
            UserError: It says something else.
        """
        word, *rest = text.split() or [""]
        try:
            if word == "move" and len(rest) == 4 and rest[0] in self.cell.objects:
                x, y, yaw = (_number(part) for part in rest[1:])
                self.surrogate.move_by_hand(rest[0], np.array([x, y]), yaw)
                return f"moved '{rest[0]}' by {x:g}, {y:g} m and {yaw:g} rad"
            if word == "hide" and len(rest) == 1:
                self.surrogate.hide(_number(rest[0]))
                return f"no poses for {rest[0]} s"
        except ValueError as error:
            raise UserError(f"'{text}': {error}") from error
        raise UserError(
            f"'{text}': expected 'move BODY X Y YAW' or 'hide SECONDS'; bodies: {', '.join(self.cell.objects)}"
        )

    def succeeds(self) -> bool:
        """Return whether the task is solved here."""
        scene = self.surrogate.scene
        self._copy.put(scene.data.qpos.copy(), scene.data.qvel.copy())
        return bool(self._copy.task.success(self._copy)[0])

    def _plan(self, until_ns: int) -> None:
        """Ask the controller for all steps up to a time of the surrogate's clock [ns]: faster than one by one."""
        first_ns = self.surrogate.time_ns + STEP_NS
        self._times = np.arange(first_ns, until_ns + 1, STEP_NS)
        if not len(self._times):
            return
        times = self._times + (self._zero_ns or 0)
        motion = self.controller.path(times)
        self.audit.look(times, motion)
        # Not a number commands a motor to do nothing sensible; the simulation must survive to be read.
        self._motion = [np.nan_to_num(part, posinf=0.0, neginf=0.0) for part in motion]

    def _path(self, time_ns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = (time_ns - int(self._times[0])) // STEP_NS
        q, v, a = (part[row] for part in self._motion)
        return q, v, a


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= 100.0:
        raise ValueError(f"{text} is no number of a table")
    return value
