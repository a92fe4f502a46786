"""Joint position control of robosuite's Panda: computed torque towards a reference motion.

robosuite's own controllers are written for learning, not for following a trajectory. Industrial arms track
commanded joint motions within a fraction of a degree; so does this one. Gravity and Coriolis forces are
compensated and the joints are decoupled by the mass matrix, which leaves damping, friction and contacts as
disturbances.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINT = "panda_finger_joint1"
BASE = "robot0_base"
STIFFNESS = 900.0  # of the error's dynamics: 30 rad/s, critically damped [1/s²]
DAMPING = 60.0  # [1/s]
ARMATURE = 0.1
"""Inertia of the motors at the joints [kg m²]. robosuite's is up to 5, which its motors of 80 N m cannot accelerate
by the 15 rad/s² that a Panda's maker publishes."""


class JointServo:
    """Drives arm and fingers of a compiled scene, one model time step per call.

    Attributes:
        model: The scene's ``mujoco.MjModel``.
        data: Its state.
        time_step: Of the model [s].
    """

    def __init__(self, model: Any, data: Any) -> None:
        """Find joints and actuators of robosuite's Panda.

        Args:
            model: A compiled robosuite scene with one Panda and its gripper.
            data: Its state.
        """
        # Imported here: a task chooses how to render before anything imports mujoco.
        self._mujoco = importlib.import_module("mujoco")
        self.model, self.data = model, data
        self.time_step = float(model.opt.timestep)
        joints = [model.joint(f"robot0_joint{i}") for i in range(1, 8)]
        self._q = np.array([int(joint.qposadr[0]) for joint in joints])
        self._v = np.array([int(joint.dofadr[0]) for joint in joints])
        model.dof_armature[self._v] = ARMATURE
        self._motors = np.array([model.actuator(f"robot0_torq_j{i}").id for i in range(1, 8)])
        fingers = [model.joint(f"gripper0_right_finger_joint{i}") for i in (1, 2)]
        self._fingers_q = np.array([int(joint.qposadr[0]) for joint in fingers])
        self._fingers_v = np.array([int(joint.dofadr[0]) for joint in fingers])
        self._finger_motors = [model.actuator(f"gripper0_right_gripper_finger_joint{i}").id for i in (1, 2)]
        self._strength = model.actuator_ctrlrange[self._motors, 1]
        self._wanted, self._force = np.zeros(model.nv), np.zeros(model.nv)

    @property
    def positions(self) -> np.ndarray:
        """(8,) arm joints [rad] and the first finger [m], 0 when closed."""
        return np.append(self.data.qpos[self._q], self.data.qpos[self._fingers_q[0]])

    @property
    def velocities(self) -> np.ndarray:
        """(8,) [rad/s] and [m/s]."""
        return np.append(self.data.qvel[self._v], self.data.qvel[self._fingers_v[0]])

    @property
    def base(self) -> np.ndarray:
        """(3,) position of the arm's base in the world [m]; its axes are the world's."""
        return self.data.body(BASE).xpos.copy()

    def place(self, positions: np.ndarray) -> None:
        """Put arm and fingers somewhere (8,), at rest."""
        self.data.qpos[self._q], self.data.qvel[self._v] = positions[:7], 0.0
        self.data.qpos[self._fingers_q] = positions[7], -positions[7]
        self.data.qvel[self._fingers_v] = 0.0

    def step(
        self, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, finger: float
    ) -> None:
        """Simulate one time step towards a reference.

        Args:
            position: (7,) where the joints should be [rad].
            velocity: (7,) how fast they should go [rad/s].
            acceleration: (7,) [rad/s²].
            finger: Where each finger should be, 0 closed to 0.04 open [m].
        """
        model, data = self.model, self.data
        self._mujoco.mj_step1(model, data)
        pull = STIFFNESS * (position - data.qpos[self._q]) + DAMPING * (velocity - data.qvel[self._v])
        self._wanted[self._v] = acceleration + pull
        self._mujoco.mj_mulM(model, data, self._force, self._wanted)  # mass matrix times acceleration
        torque = self._force[self._v] + data.qfrc_bias[self._v]
        data.ctrl[self._motors] = np.clip(torque, -self._strength, self._strength)
        data.ctrl[self._finger_motors] = finger, -finger
        self._mujoco.mj_step2(model, data)
