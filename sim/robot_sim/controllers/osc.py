r"""Operational space control of a tool's pose (Khatib 1987), as robosuite's ``OSC_POSE`` computes it.

With tool error :math:`e`, tool velocity :math:`v`, joint inertia :math:`M` and Jacobian :math:`J`:

.. math::
    \tau = J_p^T \Lambda_p (k_p e_p - k_d v_p) + J_r^T \Lambda_r (k_p e_r - k_d v_r) + h
           + (I - \bar J J)^T M (k_n (q_0 - q) - 2 \sqrt{k_n} \dot q),
    \qquad \Lambda = (J M^{-1} J^T)^{-1}

translation and rotation decoupled as there (or not: then one :math:`\Lambda` for both),
:math:`h` gravity and Coriolis forces, and the last term pulling the arm to its
rest pose :math:`q_0` without moving the tool.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robot_sim.rotations import cross, rotation_vector_to_matrix
from robot_sim.vector.physics import BatchedPhysics

_RIDGE = (
    1e-12  # added to the small inverses' diagonals, relative to their trace: a singular pose stays finite
)


class OscPose:
    """Pose of a tool site, for arms with torque actuators.

    Delta: the action in [-1, 1] asks for a translation of so many times `scale_position` and a turn, a rotation
    vector, of so many times `scale_rotation`, both from where the tool *is* and in the world frame. Absolute: the
    action is the position [m] and the rotation vector [rad], world frame.

    Args:
        n_envs: Number of environments.
        site: Id of the tool's site.
        qpos: Addresses of the arm's joints in ``qpos`` (J,).
        qvel: Addresses of the arm's joints in ``qvel`` (J,).
        actuators: Ids of its motors (J,).
        limits: Their torque limits (J, 2) [N m].
        rest: Joint positions that the null space is drawn to (J,) [rad].
        mode: See above.
        hold: Physics steps a torque is held for. 1 is what robosuite does; 5 at a time-step of 2 ms (100 Hz)
            costs a fifth.
        stiffness: k_p [1/s^2]; damping is critical.
        null_stiffness: k_n [1/s^2].
        decoupled: Whether translation and rotation are controlled as if the other were not there. On an arm with
            much coupling, such as a UR5e, that is badly damped.
        scale_position: Metres per action unit.
        scale_rotation: Radians per action unit.
        workspace: Smallest and largest position of an absolute action (2, 3) [m].
        prefix: Put before the names of the action's components.
    """

    def __init__(
        self,
        n_envs: int,
        *,
        site: int,
        qpos: np.ndarray,
        qvel: np.ndarray,
        actuators: np.ndarray,
        limits: np.ndarray,
        rest: np.ndarray,
        mode: Literal["absolute", "delta"] = "delta",
        hold: int = 5,
        stiffness: float = 150.0,
        null_stiffness: float = 10.0,
        decoupled: bool = True,
        scale_position: float = 0.05,
        scale_rotation: float = 0.5,
        workspace: np.ndarray | None = None,
        prefix: str = "",
    ) -> None:
        self._site, self._qpos, self._qvel, self._actuators = site, qpos, qvel, actuators
        self._limits, self._rest, self._mode, self.hold = limits, np.asarray(rest, float), mode, hold
        self._kp, self._kd = stiffness, 2.0 * np.sqrt(stiffness)
        self._null_kp, self._null_kd = null_stiffness, 2.0 * np.sqrt(null_stiffness)
        self._decoupled = decoupled
        self._scale = np.repeat([scale_position, scale_rotation], 3)
        if mode == "delta":
            self.low, self.high = -np.ones(6), np.ones(6)
            names, self.units = ("dx", "dy", "dz", "drx", "dry", "drz"), ("1",) * 6
        else:
            box = np.array([[-2.0] * 3, [2.0] * 3]) if workspace is None else np.asarray(workspace, float)
            self.low = np.concatenate([box[0], np.full(3, -np.pi)])
            self.high = np.concatenate([box[1], np.full(3, np.pi)])
            names, self.units = ("x", "y", "z", "rx", "ry", "rz"), ("m",) * 3 + ("rad",) * 3
        self.names = tuple(prefix + name for name in names)
        self.state = {"position": np.zeros((n_envs, 3)), "rotation": np.tile(np.eye(3), (n_envs, 1, 1))}

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Hold the tool where it is."""
        self.state["position"][indices] = physics.site_xpos[indices, self._site]
        self.state["rotation"][indices] = physics.site_xmat[indices, self._site]

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Set the goal pose from the action (N, 6)."""
        if self._mode == "absolute":
            self.state["position"][:] = action[:, :3]
            self.state["rotation"][:] = rotation_vector_to_matrix(action[:, 3:])
            return
        delta = action * self._scale
        self.state["position"][:] = physics.site_xpos[:, self._site] + delta[:, :3]
        turn = rotation_vector_to_matrix(delta[:, 3:])
        self.state["rotation"][:] = turn @ physics.site_xmat[:, self._site]

    def write(self, physics: BatchedPhysics) -> None:
        """Set the torques (N, J)."""
        torque = osc_torques(
            jacobian=physics.site_jacobian(self._site)[:, :, self._qvel],
            mass=physics.mass_matrix[:, self._qvel[:, None], self._qvel],
            bias=physics.qfrc_bias[:, self._qvel],
            velocity=physics.qvel[:, self._qvel],
            posture=self._rest - physics.qpos[:, self._qpos],
            position_error=self.state["position"] - physics.site_xpos[:, self._site],
            rotation_error=rotation_error(self.state["rotation"], physics.site_xmat[:, self._site]),
            gains=(self._kp, self._kd, self._null_kp, self._null_kd),
            decoupled=self._decoupled,
            ahead=0.5 * (self.hold - 1) * physics.model.opt.timestep,
        )
        physics.ctrl[:, self._actuators] = np.clip(torque, self._limits[:, 0], self._limits[:, 1])


def osc_torques(
    *,
    jacobian: np.ndarray,
    mass: np.ndarray,
    bias: np.ndarray,
    velocity: np.ndarray,
    posture: np.ndarray,
    position_error: np.ndarray,
    rotation_error: np.ndarray,
    gains: tuple[float, float, float, float],
    decoupled: bool = True,
    ahead: float = 0.0,
) -> np.ndarray:
    """Return the joint torques (N, J) of the module's formula.

    Args:
        jacobian: Of the tool, linear rows first (N, 6, J).
        mass: Joint-space inertia (N, J, J).
        bias: Gravity and Coriolis forces (N, J).
        velocity: Joint velocities (N, J).
        posture: Rest pose minus joint positions (N, J).
        position_error: Goal minus tool position (N, 3) [m].
        rotation_error: Rotation from tool to goal (N, 3) [rad].
        gains: k_p, k_d, k_n and null-space damping.
        decoupled: Whether translation and rotation are controlled as if the other were not there.
        ahead: Time from now to the middle of the period the torque is held for [s]: errors and velocities are
            those the law itself will have led to by then.
    """
    kp, kd, null_kp, null_kd = gains
    transposed = jacobian.swapaxes(1, 2)
    speed = _apply(jacobian, velocity)
    inverse_mass_jt = np.linalg.solve(mass, transposed)  # (N, J, 6)
    mobility = jacobian @ inverse_mass_jt  # (N, 6, 6)
    error = np.concatenate([position_error, rotation_error], axis=1)
    # a = kp (e - v t - a t^2 / 2) - kd (v + a t), solved for a
    acceleration = (kp * (error - ahead * speed) - kd * speed) / (1.0 + kd * ahead + 0.5 * kp * ahead**2)
    if decoupled:
        linear = _solve(mobility[:, :3, :3], acceleration[:, :3])
        force = np.concatenate([linear, _solve(mobility[:, 3:, 3:], acceleration[:, 3:])], axis=1)
    else:
        force = _solve(mobility, acceleration)
    rest_torque = _apply(mass, null_kp * posture - null_kd * velocity)
    # (I - Jbar J)^T t = t - J^T Lambda J M^-1 t
    removed = _solve(mobility, _apply(inverse_mass_jt.swapaxes(1, 2), rest_torque))
    return _apply(transposed, force - removed) + rest_torque + bias


def rotation_error(goal: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return the rotation (N, 3) from current to goal matrices (N, 3, 3): sine of the angle times the axis."""
    return 0.5 * cross(current.swapaxes(1, 2), goal.swapaxes(1, 2)).sum(axis=1)


def _apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return (matrix @ vector[..., None])[..., 0]


def _solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    size = matrix.shape[-1]
    ridge = _RIDGE * np.trace(matrix, axis1=1, axis2=2)[:, None, None] * np.eye(size)
    return np.linalg.solve(matrix + ridge, vector[..., None])[..., 0]
