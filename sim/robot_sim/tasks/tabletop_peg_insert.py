"""Tabletop peg insertion: an arm puts an upright square peg into a square hole.

The peg (24 x 24 x 100 mm) stands, and the block with the hole (29 mm wide, 40 mm deep) is fixed, anywhere in a field of
20 by 32 cm, at any angle, at least 14 cm apart. Success is the peg's lower end 25 mm below the rim, the peg let go.

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
from robot_sim.tasks.socket import DEPTH, add_socket, put_socket
from robot_sim.tasks.tabletop import Options, TabletopTask, spread

PEG = (0.012, 0.012, 0.05)  # half sizes [m]
HOLE = 0.0145  # half width of the hole [m]
LOW, HIGH = (-0.1, -0.16), (0.1, 0.16)  # where peg and hole may be [m]
APART = 0.14  # [m]
INSERTED = 0.025  # how far the peg's lower end is to be below the rim [m]
LET_GO = 0.5  # share of its opening beyond which the gripper counts as open


def make_task(options: Options) -> TabletopPegInsert:
    """Build the task; see `TabletopPegInsert`."""
    return TabletopPegInsert(options)


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
    """Build one environment of the task; see `TabletopPegInsert`."""
    options = Options.of(arm, control, images, cameras, image_size, joints)
    return MujocoTaskEnv(make_task(options), render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the scripted demonstrator; see `SkillExpert`."""
    return SkillExpert(one_arm(demonstrate), noise=noise, recovery=recovery)


def demonstrate(context: Context) -> Iterator[Waypoint]:
    """Grasp the peg near its top, lift it, let it down into the hole."""
    yield from grasping.grasp(context, "peg")
    yield from grasping.lift(context, height=0.08)
    yield from grasping.insert(context, "peg", into="socket", depth=0.035)


class TabletopPegInsert(TabletopTask):
    """Put the peg into the hole.

    Observations: see `TabletopTask`; tracked are ``peg`` and ``socket``.

    Args:
        options: See `Options`.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            name="tabletop_peg_insert",
            instruction="insert the peg into the hole",
            options=options,
            tracked=("peg", "socket"),
            max_steps=250,
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the peg and the block with the hole."""
        del visual
        add_box(scene, "peg", size=PEG, rgba=(0.85, 0.65, 0.15, 1.0))
        add_socket(scene, "socket", hole=HOLE)

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw peg and hole."""
        peg, hole = spread(random, 2, low=LOW, high=HIGH, distance=APART)
        self.put(qpos, "peg_joint", (*peg, PEG[2]), random.uniform(-np.pi, np.pi))
        put_socket(self.names, qpos, "socket", hole, random.uniform(-np.pi, np.pi))
        return {}

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach``, ``grasp``, ``align`` (over the hole) and ``insert`` (how deep), in [0, 1]."""
        aside, depth = self._where(sim)
        return {
            "reach": self.reach_term(sim, "peg"),
            "grasp": self.holds(sim, "peg").astype(float),
            "align": 1.0 - np.tanh(10.0 * aside),
            "insert": np.where(aside < HOLE, np.clip(depth / INSERTED, 0.0, 1.0), 0.0),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where the peg is in the hole and the gripper is open."""
        aside, depth = self._where(sim)
        return (aside < HOLE) & (depth > INSERTED) & (self.arm.opening(sim.physics) > LET_GO)

    def _where(self, sim: TaskSimulation) -> tuple[np.ndarray, np.ndarray]:
        """Return how far the peg's lower end is beside the hole's middle, and below its rim, (N,) each [m]."""
        body = self.names.body("peg")
        lower = sim.physics.xpos[:, body] - PEG[2] * sim.physics.xmat[:, body, :, 2]
        aside = np.linalg.norm(lower[:, :2] - self.body_position(sim, "socket")[:, :2], axis=1)
        return aside, DEPTH - lower[:, 2]
