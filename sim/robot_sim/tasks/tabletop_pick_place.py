"""Tabletop pick and place: an arm puts a cube into the square that is marked on the table.

The cube (edge 4 cm) and the square (edge 9 cm) lie anywhere in a field of 24 by 40 cm, at least 13 cm apart. Success
is a cube that rests in the square, let go.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.scene import add_box
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.skills import grasping
from robot_sim.skills.expert import DEFAULT_NOISE, SkillExpert, one_arm
from robot_sim.skills.follower import Waypoint
from robot_sim.skills.skill import Context
from robot_sim.tasks.mark import add_mark, put_mark
from robot_sim.tasks.tabletop import Options, TabletopTask, spread

HALF_EDGE = 0.02  # of the cube [m]
HALF_SQUARE = 0.045  # of the marked square [m]
LOW, HIGH = (-0.12, -0.2), (0.12, 0.2)  # where cube and square may be [m]
APART = 0.13  # [m]
LET_GO = 0.5  # share of its opening beyond which the gripper counts as open


def make_task(options: Options) -> TabletopPickPlace:
    """Build the task; see `TabletopPickPlace`."""
    return TabletopPickPlace(options)


def make_env(
    *,
    arm: str = "panda",
    control: str = "osc_delta",
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
    joints: bool = False,
) -> MujocoTaskEnv:
    """Build one environment of the task; see `TabletopPickPlace`."""
    options = Options.of(arm, control, images, cameras, image_size, joints)
    return MujocoTaskEnv(make_task(options), render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the scripted demonstrator; see `SkillExpert`."""
    return SkillExpert(one_arm(demonstrate), noise=noise, recovery=recovery)


def demonstrate(context: Context) -> Iterator[Waypoint]:
    """Grasp the cube, lift it, put it into the square."""
    yield from grasping.grasp(context, "cube")
    yield from grasping.lift(context, height=0.07)
    yield from grasping.place(context, "cube", at="target")


class TabletopPickPlace(TabletopTask):
    """Put the cube into the square.

    Observations: see `TabletopTask`; tracked is ``cube``, extras are the square's middle.

    Args:
        options: See `Options`.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            name="tabletop_pick_place",
            instruction="put the cube into the marked square",
            options=options,
            tracked=("cube",),
            extras={"target_x": "m", "target_y": "m"},
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the cube, and the square as a body that follows nothing and touches nothing."""
        del visual
        add_box(scene, "cube", size=(HALF_EDGE,) * 3, rgba=(0.8, 0.15, 0.12, 1.0))
        add_mark(scene, "target", half=(HALF_SQUARE, HALF_SQUARE), rgba=(0.2, 0.6, 0.3, 1.0))

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw cube and square."""
        cube, target = spread(random, 2, low=LOW, high=HIGH, distance=APART)
        self.put(qpos, "cube_joint", (*cube, HALF_EDGE), random.uniform(-np.pi, np.pi))
        put_mark(self.names, qpos, "target", target)
        return {}

    def observe_extras(self, sim: TaskSimulation) -> np.ndarray:
        """Return the square's middle (N, 2)."""
        return self.body_position(sim, "target")[:, :2].copy()

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach``, ``grasp``, ``carry`` (near the square) and ``place`` (in it, let go), in [0, 1]."""
        cube, target = self.body_position(sim, "cube"), self.body_position(sim, "target")
        way = np.linalg.norm(cube[:, :2] - target[:, :2], axis=1)
        return {
            "reach": self.reach_term(sim, "cube"),
            "grasp": self.holds(sim, "cube").astype(float),
            "carry": 1.0 - np.tanh(5.0 * way),
            "place": self.success(sim).astype(float),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where the cube's middle is over the square, at rest on the table, and the gripper is open."""
        cube, target = self.body_position(sim, "cube"), self.body_position(sim, "target")
        inside = (np.abs(cube[:, :2] - target[:, :2]) < HALF_SQUARE).all(axis=1)
        down = cube[:, 2] < HALF_EDGE + 0.005
        return inside & down & (self.arm.opening(sim.physics) > LET_GO)
