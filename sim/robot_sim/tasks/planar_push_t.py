"""Planar PushT in MuJoCo: a disc pushes a T-shaped block onto its target, with the public benchmark's geometry.

Sizes are the benchmark's with 1 px = 1 mm: a field of 512 mm, a disc of radius 15 mm that is pulled to where the
action says by the same proportional-derivative law (100 / s^2, 20 / s), the target in the middle at 45 degrees, 10 Hz,
300 steps, reward ``min(coverage / 0.95, 1)``. What differs from gym-pusht: dry friction on a table instead of
pymunk's velocity damping, y points up, and the block starts where it is said to (see `robot_sim.tasks.pusht`).

World frame: x to the right, y up on the picture, origin in the field's lower left corner.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.controllers.controller import Controller
from robot_sim.engine import mujoco
from robot_sim.experts.push_t import DEFAULT_NOISE, PushTExpert, Situation
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import InitialState, MujocoTask
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

FIELD = 0.512  # [m]
RADIUS = 0.015  # of the disc [m]
PUSHER_MASS = 10.0  # so heavy that the block hardly slows it: the benchmark's disc is not slowed at all [kg]
STIFFNESS, DAMPING = 100.0, 20.0  # of the disc's pull, per mass [1/s^2, 1/s]
TARGET = np.array([FIELD / 2, FIELD / 2, TARGET_YAW])


def make_env(
    *, friction: float = FRICTION, mass: float = MASS, images: bool = False, image_size: int = 96,
    render_size: int = 256,
) -> MujocoTaskEnv:  # fmt: skip
    """Build one environment of the task; see `PlanarPushT`."""
    task = PlanarPushT(friction=friction, mass=mass, images=images, image_size=image_size)
    return MujocoTaskEnv(task, render_size=render_size)


def make_task(*, friction: float = FRICTION, mass: float = MASS) -> PlanarPushT:
    """Build the task for a batch; see `PlanarPushT`."""
    return PlanarPushT(friction=friction, mass=mass, images=False, image_size=96)


def make_expert(*, noise: float = DEFAULT_NOISE) -> PushTExpert:
    """Build the scripted demonstrator; see `PushTExpert`."""
    return PushTExpert(_View(), noise=noise)


class PlanarPushT(MujocoTask):
    """Push the block onto its target.

    Observations: ``observation.state`` = the disc's middle (2); ``observation.environment_state`` = the eight corners
    of the block's outline (16). The action is the place that the disc is pulled to (2) [m].

    Args:
        friction: Sliding friction between block and table.
        mass: Of the block [kg].
        images: Observe ``observation.images.top``.
        image_size: Side of the image [px].
    """

    timestep = 0.005
    view = "top"

    def __init__(self, *, friction: float, mass: float, images: bool, image_size: int) -> None:
        self._friction, self._mass = friction, mass
        self.cameras, self.image_size = (("top",) if images else ()), image_size
        self.spec = TaskSpec(
            name="planar_push_t",
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
            embodiment="disc",
            instruction="push the T-shaped block onto the T-shaped target",
            goal=(ENVIRONMENT_STATE,),
        )  # fmt: skip

    def build_scene(self, *, visual: bool) -> Any:
        """Return the field with walls, disc, block and target."""
        del visual
        scene = mujoco.MjSpec()
        scene.compiler.degree = False
        scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        scene.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        scene.visual.headlight.ambient[:] = 0.5
        world = scene.worldbody
        middle, half = FIELD / 2, FIELD / 2
        world.add_geom(
            name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], pos=[middle, middle, 0],
            rgba=[0.96, 0.96, 0.95, 1],
        )  # fmt: skip
        for name, x, y, size in (
            ("left", -0.005, middle, (0.005, half)), ("right", FIELD + 0.005, middle, (0.005, half)),
            ("lower", middle, -0.005, (half, 0.005)), ("upper", middle, FIELD + 0.005, (half, 0.005)),
        ):  # fmt: skip
            world.add_geom(
                name=f"wall_{name}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[*size, HALF_HEIGHT],
                pos=[x, y, HALF_HEIGHT], rgba=[0.4, 0.4, 0.42, 1],
            )  # fmt: skip
        add_target(scene, TARGET[:2], float(TARGET[2]))
        pusher = world.add_body(name="pusher", pos=[0, 0, HALF_HEIGHT])
        for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
            pusher.add_joint(name=f"pusher_{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction)
            actuator = scene.add_actuator(
                name=f"pusher_{axis}", target=f"pusher_{axis}", trntype=mujoco.mjtTrn.mjTRN_JOINT
            )
            actuator.set_to_position(kp=STIFFNESS * PUSHER_MASS, kv=DAMPING * PUSHER_MASS)
        pusher.add_geom(
            name="pusher", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[RADIUS, HALF_HEIGHT - 0.001, 0],
            mass=PUSHER_MASS, rgba=[0.25, 0.41, 0.88, 1],
        )  # fmt: skip
        scene.add_exclude(bodyname1="world", bodyname2="pusher")
        add_block(scene, mass=self._mass, friction=self._friction)
        world.add_camera(name="top", pos=[middle, middle, 0.7], fovy=2 * np.degrees(np.arctan(half / 0.7)))
        return scene

    def make_controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return what pulls the disc."""
        return _Pull(names.actuators("pusher_x", "pusher_y"))

    def sample(self, random: np.random.Generator) -> InitialState:
        """Draw disc and block as the benchmark does: uniform, the block at any angle."""
        qpos = self.names.model.qpos0.copy()
        disc, place = random.uniform(0.05, 0.45, 2), random.uniform(0.1, 0.4, 2)
        yaw = random.uniform(-np.pi, np.pi)
        for _ in range(1000):
            if _apart(disc, place):
                break
            disc = random.uniform(0.05, 0.45, 2)
        place_block(self.names, qpos, place, yaw)
        qpos[self.names.qpos("pusher_x", "pusher_y")] = disc
        return InitialState(qpos=qpos, ctrl=disc.copy())

    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the two features of the class's docstring."""
        return {STATE: _pusher(sim), ENVIRONMENT_STATE: corners(sim)}

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


def _apart(disc: np.ndarray, place: np.ndarray) -> bool:
    return bool(np.linalg.norm(disc - place) > 0.14)


def _pusher(sim: TaskSimulation) -> np.ndarray:
    return sim.physics.qpos[:, sim.task.names.qpos("pusher_x", "pusher_y")].copy()


class _Pull:
    """The action is the place that the disc is pulled to."""

    low, high = np.zeros(2), np.full(2, FIELD)
    names, units, hold = ("x", "y"), ("m", "m"), 0

    def __init__(self, actuators: np.ndarray) -> None:
        self._actuators = actuators
        self.state: dict[str, np.ndarray] = {}

    def reset(self, physics: BatchedPhysics, indices: np.ndarray) -> None:
        """Nothing is remembered."""

    def set_goal(self, physics: BatchedPhysics, action: np.ndarray) -> None:
        """Pull to `action` (N, 2)."""
        physics.ctrl[:, self._actuators] = action

    def write(self, physics: BatchedPhysics) -> None:
        """Nothing to do: the actuators pull by themselves."""


class _View:
    """What the expert is told."""

    pusher_radius = RADIUS
    low, high = np.full(2, RADIUS + 0.002), np.full(2, FIELD - RADIUS - 0.002)

    def situation(self, env: TaskEnv) -> Situation:
        """Return where everything is."""
        assert isinstance(env, MujocoTaskEnv)
        place, yaw = block_pose(env.simulation)
        return Situation(
            pusher=_pusher(env.simulation)[0], block=np.array([*place[0], yaw[0]]), target=TARGET
        )
