"""Lift with joint targets: the scene of `robot_sim.tasks.lift`, commanded as an arm under ROS is.

Actions are absolute joint positions, observations are what a robot's joint states and a tracker of the cube say,
in the frame of the arm's base. The arm follows its reference closely (`robot_sim.joint_servo`), which between
two actions is a straight line, no faster than the arm's velocity limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_sim.actions import checked_action
from robot_sim.experts.lift_joint import DEFAULT_NOISE, JointLiftExpert, tool_positions
from robot_sim.joint_servo import ARM_JOINTS, FINGER_JOINT, JointServo
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskSpec
from robot_sim.tasks.lift import LiftTask

TOP_SPEED = np.array([2.175] * 4 + [2.61] * 3)
"""Velocity limits of a Panda's joints [rad/s]."""

FEATURES: Mapping[str, Feature] = {
    STATE: Feature(
        dtype="float32",
        shape=(11,),
        names=(*ARM_JOINTS, FINGER_JOINT, "tool_x", "tool_y", "tool_z"),
        units=(*["rad"] * 7, "m", "m", "m", "m"),
        frame="robot_base",
        gripper="0=closed,0.04=open",
    ),
    ENVIRONMENT_STATE: Feature(
        dtype="float32",
        shape=(7,),
        names=("cube_x", "cube_y", "cube_z", "cube_qx", "cube_qy", "cube_qz", "cube_qw"),
        units=("m", "m", "m", "1", "1", "1", "1"),
        frame="robot_base",
        rotation="quat_xyzw",
    ),
}
ACTION_FEATURE = Feature(
    dtype="float32",
    shape=(8,),
    names=(*ARM_JOINTS, FINGER_JOINT),
    units=(*["rad"] * 7, "m"),
    gripper="0=closed,0.04=open",
    meaning="absolute position",
)


def make_env(
    *,
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
) -> JointLiftTask:
    """Build the task; see `JointLiftTask`."""
    return JointLiftTask(
        cameras=tuple(cameras) if images else (), image_size=image_size, render_size=render_size
    )


def make_expert(*, noise: float = DEFAULT_NOISE) -> JointLiftExpert:
    """Build the scripted demonstrator; see `JointLiftExpert`."""
    return JointLiftExpert(noise)


class JointLiftTask(LiftTask):
    """Pick up the cube with joint position commands.

    Observations: ``observation.state`` = arm joints (7), one finger (1), the point between the finger tips by
    forward kinematics (3); ``observation.environment_state`` = cube position (3), quaternion xyzw (4).

    Attributes:
        servo: What drives the arm; the surrogate robot under ROS shares it.
    """

    def __init__(
        self, *, cameras: tuple[str, ...] = (), image_size: int = 84, render_size: int = 256
    ) -> None:
        super().__init__(cameras=cameras, image_size=image_size, render_size=render_size)
        images = {n: f for n, f in self.task_spec.observation.items() if n.startswith(IMAGE_PREFIX)}
        features = {**FEATURES, **images}
        self.task_spec = TaskSpec(
            name="lift_joint",
            observation=features,
            action=ACTION_FEATURE,
            fps=20.0,
            max_steps=150,
            score="success",
            seed_start=100_000,
            embodiment="panda",
            instruction="lift the cube",
        )
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(-np.pi * 2, np.pi * 2, (8,), np.float32)
        self.servo = JointServo(self._scene.sim.model._model, self._scene.sim.data._data)
        self._reference = self.servo.positions

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: robosuite's, with the gripper opened."""
        _, info = super().reset(seed=seed, options=options)
        self.servo.place(np.append(self.servo.positions[:7], 0.039))
        self._scene.synchronise()
        self._reference = self.servo.positions
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Go to joint targets (7,) [rad] and a finger target [m] within 0.05 s, or as near as the limits allow."""
        target = checked_action(action, ACTION_FEATURE, task="lift_joint")
        begin, span = self._reference[:7], 1.0 / self.task_spec.fps
        speed = np.clip((target[:7] - begin) / span, -TOP_SPEED, TOP_SPEED)
        finger, still = float(np.clip(target[7], 0.0, 0.04)), np.zeros(7)
        substeps = round(span / self.servo.time_step)
        for substep in range(1, substeps + 1):
            self.servo.step(begin + speed * (substep * self.servo.time_step), speed, still, finger)
        self._reference = np.append(begin + speed * span, finger)
        self._scene.synchronise()
        return self._after_step()

    def cube(self) -> np.ndarray:
        """Return the cube in the frame of the arm's base: position [m] and quaternion xyzw, (7,)."""
        data = self._scene.sim.data
        place = data.body_xpos[self._scene.cube_body_id] - self.servo.base
        return np.concatenate([place, data.body_xquat[self._scene.cube_body_id][[1, 2, 3, 0]]])

    def _after_step(self) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        info = self._info()
        terms, success = info["reward_terms"], info["is_success"]
        reward = 1.0 if success else (terms["reach"] + 0.25 * terms["grasp"]) / 2.25
        return self._observe(), reward, success, self._steps >= self.task_spec.max_steps, info

    def _observe(self) -> Observation:
        if not hasattr(self, "servo"):  # while the base class is being built
            return super()._observe()
        positions = self.servo.positions
        state = np.concatenate([positions, tool_positions(positions[None, :7])[0]])
        observation = {STATE: state.astype(np.float32), ENVIRONMENT_STATE: self.cube().astype(np.float32)}
        for camera in self._cameras:
            observation[IMAGE_PREFIX + camera] = self._draw(camera, self._image_size)
        return observation
