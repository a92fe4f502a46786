"""Tabletop PushT: an arm pushes the T-shaped block over a table onto its target, with a rod in its hand.

Block, rod (radius 15 mm) and target are those of the planar task; the field is 40 by 40 cm in front of the arm. As
there, the action is the place that the rod is pulled to; height and orientation of the hand are the controller's
business, whatever the arm. The block's mass and friction are parameters of the model
(`robot_sim.tasks.push_t_block.set_block_parameters`), for twins and for identification.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.controllers.controller import Controller
from robot_sim.engine import mujoco
from robot_sim.experts.push_t import DEFAULT_NOISE, PushTExpert, Situation
from robot_sim.mujoco_tasks.arms import Mount
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.mujoco_tasks.scene import tabletop
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import InitialState, MujocoTask
from robot_sim.rotations import matrix_to_rotation_vector
from robot_sim.skills.inverse_kinematics import InverseKinematics
from robot_sim.skills.poses import pointing_down
from robot_sim.task import Observation, TaskEnv, TaskSpec
from robot_sim.tasks.push_t_block import (
    CORNER_NAMES,
    FRICTION,
    HALF_HEIGHT,
    MASS,
    add_block,
    add_target,
    block_pose,
    corners,
    covered,
    place_block,
)
from robot_sim.tasks.push_t_geometry import OUTLINE, SUCCESS_COVERAGE, TARGET_YAW, turned
from robot_sim.vector.mujoco_names import ModelNames
from robot_sim.vector.physics import BatchedPhysics

RADIUS = 0.015  # of the rod [m]
ROD = 0.1  # its length below the tool centre point [m]
GAP = 0.004  # between rod and table [m]
HEIGHT = ROD + GAP  # of the tool centre point over the table [m]
LOW, HIGH = np.array([-0.22, -0.24]), np.array([0.26, 0.24])  # where the rod may be sent [m]
SPREAD = 0.1  # the block starts within so much of the origin along x and y [m]
TARGET = np.array([0.0, 0.0, TARGET_YAW])
FINGERS = np.pi / 2  # angle of the line of the fingers [rad]


def make_task(
    *, arm: str = "panda", friction: float = FRICTION, mass: float = MASS, cameras: Sequence[str] = (),
    image_size: int = 96,
) -> TabletopPushT:  # fmt: skip
    """Build the task for a batch; see `TabletopPushT`."""
    return TabletopPushT(arm=arm, friction=friction, mass=mass, cameras=tuple(cameras), image_size=image_size)


def make_env(
    *, arm: str = "panda", friction: float = FRICTION, mass: float = MASS, images: bool = False,
    cameras: Sequence[str] = ("topview",), image_size: int = 96, render_size: int = 256,
) -> MujocoTaskEnv:  # fmt: skip
    """Build one environment of the task; see `TabletopPushT`."""
    chosen = cameras if images else ()
    task = make_task(arm=arm, friction=friction, mass=mass, cameras=chosen, image_size=image_size)
    return MujocoTaskEnv(task, render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE) -> PushTExpert:
    """Build the scripted demonstrator; see `PushTExpert`."""
    return PushTExpert(_View(), noise=noise)


class TabletopPushT(MujocoTask):
    """Push the block onto its target.

    Observations: ``observation.state`` = the rod's axis (2); ``observation.environment_state`` = the eight corners of
    the block's outline (16). The action is the place that the rod is pulled to (2) [m].

    Args:
        arm: Name out of `robot_sim.mujoco_tasks.arms.ARMS`.
        friction: Sliding friction between block and table.
        mass: Of the block [kg].
        cameras: Cameras to observe, see `robot_sim.mujoco_tasks.scene.tabletop`.
        image_size: Side of the images [px].
    """

    timestep = 0.004

    def __init__(
        self, *, arm: str, friction: float, mass: float, cameras: tuple[str, ...], image_size: int
    ) -> None:
        self.arm = MountedArm(Mount(arm=arm), control="osc_absolute")
        self._friction, self._mass = friction, mass
        self.cameras, self.image_size = cameras, image_size
        self.spec = TaskSpec(
            name="tabletop_push_t",
            observation={
                STATE: Feature(
                    dtype="float32", shape=(2,), names=("pusher_x", "pusher_y"), units=("m",), frame="world"
                ),
                ENVIRONMENT_STATE: Feature(
                    dtype="float32", shape=(16,), names=CORNER_NAMES, units=("m",), frame="world"
                ),
            },
            action=Feature(
                dtype="float32", shape=(2,), names=("x", "y"), units=("m",), frame="world",
                meaning="absolute position",
            ),
            fps=10.0,
            max_steps=300,
            score="max_reward",
            seed_start=100_000,
            embodiment=arm,
            instruction="push the T-shaped block onto the T-shaped target",
            goal=(ENVIRONMENT_STATE,),
        )  # fmt: skip

    def build_scene(self, *, visual: bool) -> Any:
        """Return table, arm with rod, block and target."""
        scene = tabletop([self.arm.mount], actuation=self.arm.actuation, visual=visual)
        tool = scene.site(f"{self.arm.mount.prefix}tcp")
        middle = np.asarray(tool.pos) + np.array([0.0, 0.0, ROD / 2 - 0.01])
        rod = tool.parent.add_body(name="pusher", pos=middle)
        rod.add_geom(
            name="pusher", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[RADIUS, ROD / 2 + 0.01, 0], mass=0.1,
            rgba=[0.25, 0.41, 0.88, 1], contype=0, conaffinity=0,
        )  # fmt: skip
        add_target(scene, TARGET[:2], float(TARGET[2]))
        add_block(scene, mass=self._mass, friction=self._friction)
        return scene

    def make_controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return what pulls the rod."""
        return PlanarPull(self.arm.controller(names, n_envs))

    def tool_goal(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where actions (..., 2) pull the tool: positions (..., 3) [m], one rotation (3, 3), world frame."""
        place = np.clip(action, LOW, HIGH)
        height = np.full((*place.shape[:-1], 1), HEIGHT)
        return np.concatenate([place, height], axis=-1), pointing_down(FINGERS)

    def sample(self, random: np.random.Generator) -> InitialState:
        """Draw the block's pose, any angle, and the rod's place beside it."""
        qpos, ctrl = self.arm.initial(self.names, random)
        place, yaw = random.uniform(-SPREAD, SPREAD, 2), random.uniform(-np.pi, np.pi)
        centre = place + turned(np.array([[0.0, 0.04]]), np.array([yaw]))[0, 0]
        rod = random.uniform(LOW + 0.04, HIGH - 0.04)
        for _ in range(1000):
            if np.linalg.norm(rod - centre) > 0.13:
                break
            rod = random.uniform(LOW + 0.04, HIGH - 0.04)
        place_block(self.names, qpos, place, yaw)
        qpos[self.names.qpos(*self.arm.mount.joints)] = self._joints_at(rod, qpos)
        ctrl[self.names.actuators(*self.arm.mount.gripper_actuators)] = self.arm.mount.gripper_model.closed
        return InitialState(qpos=qpos, ctrl=ctrl)

    def _joints_at(self, rod: np.ndarray, qpos: np.ndarray) -> np.ndarray:
        names, mount, model = self.names, self.arm.mount, self.model
        joints = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in mount.joints]
        kinematics = InverseKinematics(
            model,
            site=names.site(f"{mount.prefix}tcp"),
            qpos=names.qpos(*mount.joints),
            qvel=names.qvel(*mount.joints),
            limits=model.jnt_range[joints],
            rest=np.array(mount.arm_model.home),
        )
        goal = np.array([*rod, HEIGHT])
        return kinematics.solve(goal, pointing_down(FINGERS), qpos, iterations=200, tolerance=5e-4).joints

    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the two features of the class's docstring."""
        return {
            STATE: self.arm.position(sim.physics)[:, :2].copy(),
            ENVIRONMENT_STATE: corners(sim),
        }

    def goal(self, sim: TaskSimulation) -> Observation:
        """Return the corners of the block on its target."""
        flat = (turned(OUTLINE, TARGET[2:])[0] + TARGET[:2]).reshape(-1).astype(np.float32)
        return {ENVIRONMENT_STATE: np.tile(flat, (sim.n_envs, 1))}

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``coverage``: the share of the target covered, over 0.95, at most 1."""
        return {"coverage": np.clip(covered(sim, TARGET) / SUCCESS_COVERAGE, 0.0, 1.0)}

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where more than 95 per cent of the target are covered."""
        return covered(sim, TARGET) > SUCCESS_COVERAGE


class PlanarPull:
    """A place on the table (N, 2) as the action: the hand goes there, pointing down, at one height, gripper closed.

    Args:
        arm: Controller of arm and gripper with absolute poses as actions.
    """

    low, high = LOW, HIGH
    names, units = ("x", "y"), ("m", "m")

    def __init__(self, arm: Controller) -> None:
        self._arm = arm
        self.hold = arm.hold
        self._fixed = np.array([HEIGHT, *matrix_to_rotation_vector(pointing_down(FINGERS)), 1.0])

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the arm's controller remembers."""
        return self._arm.state

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Forget the past of environments that have just been put into a new state."""
        self._arm.reset(physics, indices)

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Pull the rod to `action` (N, 2)."""
        fixed = np.tile(self._fixed, (len(action), 1))
        self._arm.set_goal(physics, np.concatenate([action, fixed], axis=1))

    def write(self, physics: BatchedPhysics) -> None:
        """Set the actuator inputs."""
        self._arm.write(physics)


class _View:
    """What the expert is told."""

    pusher_radius = RADIUS
    low, high = LOW, HIGH

    def situation(self, env: TaskEnv) -> Situation:
        """Return where everything is."""
        assert isinstance(env, MujocoTaskEnv)
        task, physics = env.simulation.task, env.simulation.physics
        assert isinstance(task, TabletopPushT)
        place, yaw = block_pose(env.simulation)
        # Where the rod meets the block, not the tool above: pushing tilts a hand by a degree or two, and the rod's end
        # lags by 2 to 4 mm, which is as long as the last pushes are.
        along = task.arm.rotation(physics)[0, :, 2]
        pusher = (task.arm.position(physics)[0] + (HEIGHT - HALF_HEIGHT) * along)[:2]
        return Situation(pusher=pusher, block=np.array([*place[0], yaw[0]]), target=TARGET)
