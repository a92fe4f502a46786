"""Joint positions that bring an arm's tool to a pose: damped least squares (Wampler 1986)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.rotations import matrix_to_rotation_vector

_DAMPING = 0.05  # of the least squares; larger is slower and calmer near singular poses
_STEP = 0.3  # largest change of a joint in one iteration [rad]
_NULL_GAIN = 0.1  # pull to the rest pose, in the null space
_NULL_SHARE = 0.4  # of the iterations: later ones do not pull, as damping lets some of it through to the tool


@dataclass(frozen=True)
class IkSolution:
    """Where the iteration ended.

    Attributes:
        joints: Joint positions (J,) [rad].
        position_error: Distance that is left [m].
        rotation_error: Angle that is left [rad].
    """

    joints: np.ndarray
    position_error: float
    rotation_error: float


class InverseKinematics:
    """Solves for one arm of a scene.

    Args:
        model: Compiled ``mujoco.MjModel``.
        site: Id of the tool's site.
        qpos: Addresses of the arm's joints in ``qpos`` (J,).
        qvel: Addresses of the arm's joints in ``qvel`` (J,).
        limits: Range of the joints (J, 2) [rad].
        rest: Joint positions preferred where there is a choice (J,) [rad].
    """

    def __init__(
        self,
        model: Any,
        *,
        site: int,
        qpos: np.ndarray,
        qvel: np.ndarray,
        limits: np.ndarray,
        rest: np.ndarray,
    ) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._site, self._qpos, self._qvel = site, qpos, qvel
        self._limits, self._rest = limits, rest
        self._jacobian = np.zeros((6, model.nv))

    def solve(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        start: np.ndarray,
        *,
        iterations: int = 60,
        tolerance: float = 0.002,
    ) -> IkSolution:
        """Return joint positions for a tool pose.

        Args:
            position: Of the tool, world frame (3,) [m].
            rotation: Of the tool, world frame (3, 3).
            start: Full ``qpos`` (nq,) to start from; everything but the arm stays as it is there.
            iterations: Most iterations.
            tolerance: Distance [m], and a tenth of it angle [rad/cm], at which to stop.
        """
        self._data.qpos[:] = start
        eye = np.eye(len(self._qpos))
        for iteration in range(iterations):
            error = self._error(position, rotation)
            if np.linalg.norm(error[:3]) < tolerance and np.linalg.norm(error[3:]) < 10 * tolerance:
                break
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            jacobian = self._jacobian[:, self._qvel]
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + _DAMPING**2 * np.eye(6))
            joints = self._data.qpos[self._qpos]
            step = inverse @ error
            if iteration < _NULL_SHARE * iterations:
                step += _NULL_GAIN * (eye - inverse @ jacobian) @ (self._rest - joints)
            step *= min(1.0, _STEP / max(float(np.abs(step).max()), 1e-9))
            self._data.qpos[self._qpos] = np.clip(joints + step, self._limits[:, 0], self._limits[:, 1])
        left = self._error(position, rotation)
        return IkSolution(
            joints=self._data.qpos[self._qpos].copy(),
            position_error=float(np.linalg.norm(left[:3])),
            rotation_error=float(np.linalg.norm(left[3:])),
        )

    def _error(self, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        mujoco.mj_kinematics(self._model, self._data)
        current = self._data.site_xmat[self._site].reshape(3, 3)
        turn = matrix_to_rotation_vector(rotation @ current.T)
        return np.concatenate([position - self._data.site_xpos[self._site], turn])
