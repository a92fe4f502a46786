"""What moves the simulated arm of a twin or a surrogate: a joint motion, or a pull on the tool."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robot_sim.controllers.osc import osc_torques, rotation_error
from robot_sim.engine import mujoco
from robot_sim.twin.scene import CellScene

NULL_STIFFNESS = 10.0  # as in `robot_sim.controllers.osc.OscPose` [1/s²]


class Drive(Protocol):
    """Sets the motors of a scene's arm."""

    def write(self, scene: CellScene) -> None:
        """Set the torques for the next physics step; the scene's derived quantities are up to date."""
        ...


class JointTracking:
    """Computed torque towards a joint motion: decoupled, critically damped.

    Args:
        stiffness: Of the error's dynamics [1/s²].
    """

    def __init__(self, stiffness: float = 3600.0) -> None:
        self._kp, self._kd = stiffness, 2.0 * float(np.sqrt(stiffness))
        self._q: np.ndarray | None = None

    def set(self, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray | None = None) -> None:
        """Say where the joints should be at the end of the next physics step, (n,) each [rad, s]."""
        self._q, self._v, self._a = position, velocity, acceleration

    def write(self, scene: CellScene) -> None:
        """Set the torques; without a target the arm holds where it is."""
        data, dofs = scene.data, scene.arm_dofs
        q, v = data.qpos[scene.arm_qpos], data.qvel[dofs]
        if self._q is None:
            self._q, self._v, self._a = q.copy(), np.zeros_like(v), None
        wanted, force = scene.scratch
        pull = self._kp * (self._q - q) + self._kd * (self._v - v)
        wanted[dofs] = pull if self._a is None else pull + self._a
        mujoco.mj_mulM(scene.model, data, force, wanted)
        torque = force[dofs] + data.qfrc_bias[dofs]
        data.ctrl[scene.arm_motors] = np.minimum(np.maximum(torque, -scene.strength), scene.strength)


class ToolPull:
    """The task's controller: operational space control that pulls the tool to a pose.

    Args:
        scene: The scene; the tool is held where it is.
        stiffness: k_p [1/s²].
        hold: Physics steps that torques are held for.
    """

    def __init__(self, scene: CellScene, *, stiffness: float, hold: int) -> None:
        self._site = scene.task.names.site(f"{scene.arm.mount.prefix}tcp")
        self._rest = np.array(scene.arm.mount.arm_model.home)
        self._gains = (stiffness, 2 * np.sqrt(stiffness), NULL_STIFFNESS, 2 * np.sqrt(NULL_STIFFNESS))
        self._hold, self._count = hold, 0
        self.position = scene.data.site_xpos[self._site].copy()
        self.rotation = scene.data.site_xmat[self._site].reshape(3, 3).copy()

    def set(self, position: np.ndarray, rotation: np.ndarray) -> None:
        """Pull to a position (3,) [m] and a rotation matrix (3, 3), world frame."""
        self.position, self.rotation = position, rotation

    def write(self, scene: CellScene) -> None:
        """Set the torques, at every `hold`-th call."""
        self._count += 1
        if (self._count - 1) % self._hold:
            return
        model, data, dofs = scene.model, scene.data, scene.qvel
        jacobian, mass = np.zeros((6, model.nv)), np.zeros((model.nv, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
        mujoco.mj_fullM(model, mass, data.qM)
        q, v = scene.joints
        turned = data.site_xmat[self._site].reshape(1, 3, 3)
        torque = osc_torques(
            jacobian=jacobian[None][:, :, dofs],
            mass=mass[None][:, dofs[:, None], dofs],
            bias=data.qfrc_bias[None, dofs],
            velocity=v[None],
            posture=(self._rest - q)[None],
            position_error=(self.position - data.site_xpos[self._site])[None],
            rotation_error=rotation_error(self.rotation[None], turned),
            gains=self._gains,
            decoupled=scene.arm.mount.arm_model.decoupled,
            ahead=0.5 * (self._hold - 1) * model.opt.timestep,
        )[0]
        data.ctrl[scene.motors] = np.clip(torque, -scene.strength, scene.strength)
