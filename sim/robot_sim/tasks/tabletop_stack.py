"""Tabletop stack: an arm puts a red cube (edge 4 cm) on a green one (edge 5 cm).

Both lie anywhere in a field of 20 by 32 cm, at any angle, at least 12 cm apart. Success is the red cube resting on the
green one, let go.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.scene import add_box
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.skills import grasping
from robot_sim.skills.expert import DEFAULT_NOISE, SkillExpert, one_arm
from robot_sim.tasks.tabletop import Options, TabletopTask, spread

UPPER, LOWER = 0.02, 0.025  # half edges of the cubes [m]
LOW, HIGH = (-0.1, -0.16), (0.1, 0.16)  # where the cubes may lie [m]
APART = 0.12  # [m]
BESIDE = 0.02  # the upper cube's middle is at most this far beside the lower one's, along x and y [m]
LET_GO = 0.5  # share of its opening beyond which the gripper counts as open


def make_task(options: Options) -> TabletopStack:
    """Build the task; see `TabletopStack`."""
    return TabletopStack(options)


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
    """Build one environment of the task; see `TabletopStack`."""
    options = Options.of(arm, control, images, cameras, image_size, joints)
    return MujocoTaskEnv(make_task(options), render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the scripted demonstrator; see `SkillExpert`."""
    return SkillExpert(
        one_arm(lambda context: grasping.stack(context, "upper", onto="lower")),
        noise=noise,
        recovery=recovery,
    )


class TabletopStack(TabletopTask):
    """Put the red cube on the green one.

    Observations: see `TabletopTask`; tracked are ``upper`` and ``lower``.

    Args:
        options: See `Options`.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            name="tabletop_stack",
            instruction="stack the red cube on the green cube",
            options=options,
            tracked=("upper", "lower"),
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the cubes."""
        del visual
        add_box(scene, "upper", size=(UPPER,) * 3, rgba=(0.8, 0.15, 0.12, 1.0))
        add_box(scene, "lower", size=(LOWER,) * 3, rgba=(0.15, 0.6, 0.25, 1.0))

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw both cubes."""
        upper, lower = spread(random, 2, low=LOW, high=HIGH, distance=APART)
        self.put(qpos, "upper_joint", (*upper, UPPER), random.uniform(-np.pi, np.pi))
        self.put(qpos, "lower_joint", (*lower, LOWER), random.uniform(-np.pi, np.pi))
        return {}

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach``, ``grasp``, ``align`` (over the lower cube, while held) and ``stack``, in [0, 1]."""
        held = self.holds(sim, "upper").astype(float)
        beside = self.body_position(sim, "upper")[:, :2] - self.body_position(sim, "lower")[:, :2]
        return {
            "reach": self.reach_term(sim, "upper"),
            "grasp": held,
            "align": held * (1.0 - np.tanh(10.0 * np.linalg.norm(beside, axis=1))),
            "stack": self.success(sim).astype(float),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where the red cube rests on the green one and the gripper is open."""
        upper, lower = self.body_position(sim, "upper"), self.body_position(sim, "lower")
        beside = np.abs(upper[:, :2] - lower[:, :2]).max(axis=1) < BESIDE
        height = np.abs(upper[:, 2] - lower[:, 2] - (UPPER + LOWER)) < 0.006
        geoms = [self.names.body_geoms(name) for name in ("upper", "lower")]
        touching = sim.physics.touching(*geoms)
        return beside & height & touching & (self.arm.opening(sim.physics) > LET_GO)
