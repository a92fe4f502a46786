"""The twin's world: the cell's scene in physics steps, with an arm that is driven and bodies that can be pushed."""

from __future__ import annotations

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.twin.cell import Cell
from robot_sim.twin.drive import Drive, JointTracking
from robot_sim.twin.scene import CellScene


class TwinWorld(CellScene):
    """What corrections see and act on.

    ``bodies`` are the names of the movable objects; ``pose(body)`` returns position (3,) [m] and quaternion wxyz (4,),
    ``velocity(body)`` linear [m/s] and angular [rad/s] velocity (3,) each, ``mass`` and ``inertia`` what resists;
    ``apply_wrench(body, force, torque)`` adds a force [N] and a torque [N m] at the centre of mass to the next physics
    step, all in the world frame; ``step()`` makes it and forgets the wrenches.

    Args:
        cell: The cell; its ``rates.physics`` is the physics rate.
        drive: What moves the arm; None tracks measured joints.

    Attributes:
        drive: What moves the arm.
        timestep: Physics step [s].
    """

    def __init__(self, cell: Cell, *, drive: Drive | None = None) -> None:
        self.timestep = 1.0 / cell.rates.physics
        super().__init__(cell, timestep=self.timestep)
        self.drive: Drive = drive or JointTracking()

    def step(self) -> None:
        """Advance by one physics step: torques, wrenches, contacts; the wrenches are forgotten afterwards."""
        mujoco.mj_step1(self.model, self.data)
        self.drive.write(self)
        mujoco.mj_step2(self.model, self.data)
        self.data.xfrc_applied[:] = 0.0

    @property
    def finite(self) -> bool:
        """Whether the physics is still stable; MuJoCo starts anew without a word when it is not."""
        warning, kinds = self.data.warning, mujoco.mjtWarning
        restarts = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        state = np.concatenate([self.data.qpos, self.data.qvel])
        return bool(np.isfinite(state).all()) and not any(warning[kind].number for kind in restarts)
