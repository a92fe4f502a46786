"""Tabletop lift: an arm picks a cube up; the example of an own MuJoCo task (``docs/simulation/tasks.md``).

The cube (edge 4 cm) lies anywhere in a square of 20 cm in front of the arm, at any angle; success is to hold its
centre more than 4 cm above where it rested, as in robosuite's task ``lift``, whose scene, inertia and table this
does not copy.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.controllers.controller import Controller
from robot_sim.mujoco_tasks.arms import Mount
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.mounted_arm import MountedArm, state_feature
from robot_sim.mujoco_tasks.scene import add_box, tabletop
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import InitialState, MujocoTask
from robot_sim.rotations import wxyz_to_xyzw, yaw_to_quaternion
from robot_sim.task import Observation, TaskSpec
from robot_sim.vector.mujoco_names import ModelNames

HALF_EDGE = 0.02  # of the cube [m]
SPREAD = 0.1  # the cube starts within so much of the origin along x and y [m]
LIFTED = 0.04  # height above its resting place that counts [m]
JOINT_NOISE = 0.02  # standard deviation of the arm's start [rad]


def make_task(
    *, arm: str = "panda", control: str = "osc_delta", cameras: Sequence[str] = (), image_size: int = 84
) -> TabletopLift:
    """Build the task; see `TabletopLift`."""
    return TabletopLift(arm=arm, control=control, cameras=tuple(cameras), image_size=image_size)


def make_env(
    *,
    arm: str = "panda",
    control: str = "osc_delta",
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
) -> MujocoTaskEnv:
    """Build one environment of the task; see `TabletopLift`."""
    chosen = cameras if images else ()
    task = make_task(arm=arm, control=control, cameras=chosen, image_size=image_size)
    return MujocoTaskEnv(task, render_size=render_size)


class TabletopLift(MujocoTask):
    """Pick up the cube.

    Observations: ``observation.state`` = tool position (3), orientation xyzw (4), share of the gripper's opening (1);
    ``observation.environment_state`` = cube position (3), orientation xyzw (4), vector from tool to cube (3).

    Args:
        arm: Name out of `robot_sim.mujoco_tasks.arms.ARMS`.
        control: Name out of `robot_sim.mujoco_tasks.mounted_arm.CONTROLS`.
        cameras: Cameras to observe, see `robot_sim.mujoco_tasks.scene.tabletop`.
        image_size: Side of the images [px].
    """

    def __init__(self, *, arm: str, control: str, cameras: tuple[str, ...], image_size: int) -> None:
        self.arm = MountedArm(Mount(arm=arm), control=control)
        self.cameras, self.image_size = cameras, image_size
        self.spec = TaskSpec(
            name="tabletop_lift",
            observation={
                STATE: state_feature([self.arm]),
                ENVIRONMENT_STATE: Feature(
                    dtype="float32",
                    shape=(10,),
                    names=(
                        *("cube_x", "cube_y", "cube_z", "cube_qx", "cube_qy", "cube_qz", "cube_qw"),
                        *("tool_to_cube_x", "tool_to_cube_y", "tool_to_cube_z"),
                    ),
                    units=("m", "m", "m", "1", "1", "1", "1", "m", "m", "m"),
                    frame="world",
                    rotation="quat_xyzw",
                ),
            },
            action=self.arm.action_feature(),
            fps=20.0,
            max_steps=150,
            score="success",
            seed_start=100_000,
            embodiment=arm,
            instruction="lift the cube",
        )

    def build_scene(self, *, visual: bool) -> Any:
        """Return the table, the arm and the cube."""
        scene = tabletop([self.arm.mount], actuation=self.arm.actuation, visual=visual)
        add_box(scene, "cube", size=(HALF_EDGE,) * 3, rgba=(0.8, 0.15, 0.12, 1.0))
        return scene

    def make_controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return the arm's controller."""
        return self.arm.controller(names, n_envs)

    def sample(self, random: np.random.Generator) -> InitialState:
        """Draw the cube's place and angle and the arm's joints."""
        qpos, ctrl = self.arm.initial(self.names, random, noise=JOINT_NOISE)
        place = random.uniform(-SPREAD, SPREAD, 2)
        turn = yaw_to_quaternion(random.uniform(-np.pi, np.pi))
        qpos[self.names.qpos("cube_joint")] = [*place, HALF_EDGE, *turn]
        return InitialState(qpos=qpos, ctrl=ctrl)

    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the two features of the class's docstring."""
        physics, body = sim.physics, self.names.body("cube")
        position, tool = physics.xpos[:, body], self.arm.position(physics)
        turn = wxyz_to_xyzw(physics.xquat[:, body])
        return {
            STATE: self.arm.state(physics),
            ENVIRONMENT_STATE: np.concatenate([position, turn, position - tool], axis=1),
        }

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach`` (near the cube), ``grasp`` (both fingers touch it) and ``lift`` (its height), in [0, 1]."""
        physics, body = sim.physics, self.names.body("cube")
        cube = physics.xpos[:, body]
        distance = np.linalg.norm(cube - self.arm.position(physics), axis=1)
        return {
            "reach": 1.0 - np.tanh(10.0 * distance),
            "grasp": self.arm.grasps(physics, self.names.body_geoms("cube")).astype(float),
            "lift": np.clip((cube[:, 2] - HALF_EDGE) / LIFTED, 0.0, 1.0),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where the cube is held high enough."""
        height = sim.physics.xpos[:, self.names.body("cube"), 2] - HALF_EDGE
        return (height > LIFTED) & self.arm.grasps(sim.physics, self.names.body_geoms("cube"))
