"""Tabletop drawer: an arm draws a drawer out by its handle.

A low cabinet stands at the far side of the table, moved by up to 8 cm to either side and turned by up to 15 degrees.
Success is a drawer that is open by 12 cm.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.skills import pushing
from robot_sim.skills.expert import DEFAULT_NOISE, SkillExpert, one_arm
from robot_sim.skills.follower import Waypoint
from robot_sim.skills.skill import Context
from robot_sim.tasks.cabinet import HANDLE, JOINT, add_cabinet, put_cabinet
from robot_sim.tasks.tabletop import Options, TabletopTask

OPENED = 0.12  # [m]
PLACE = (0.19, 0.0)  # of the cabinet's front [m]
ASIDE, TURN = 0.08, 0.26  # how far it is moved along y [m] and turned [rad]


def make_task(options: Options) -> TabletopDrawer:
    """Build the task; see `TabletopDrawer`."""
    return TabletopDrawer(options)


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
    """Build one environment of the task; see `TabletopDrawer`."""
    options = Options.of(arm, control, images, cameras, image_size, joints)
    return MujocoTaskEnv(make_task(options), render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the scripted demonstrator; see `SkillExpert`."""
    return SkillExpert(one_arm(demonstrate), noise=noise, recovery=recovery)


def demonstrate(context: Context) -> Iterator[Waypoint]:
    """Take the handle from above and draw."""
    yield from pushing.open_(context, handle=HANDLE, joint=JOINT)


class TabletopDrawer(TabletopTask):
    """Open the drawer.

    Observations: see `TabletopTask`; tracked is ``handle``, extra is how far the drawer is open.

    Args:
        options: See `Options`.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            name="tabletop_drawer",
            instruction="open the drawer",
            options=options,
            tracked=("handle",),
            extras={"drawer_opening": "m"},
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the cabinet."""
        del visual
        add_cabinet(scene)

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw where the cabinet stands; the drawer is shut."""
        aside = random.uniform(-ASIDE, ASIDE)
        put_cabinet(self.names, qpos, (PLACE[0], PLACE[1] + aside), random.uniform(-TURN, TURN), opened=0.0)
        return {}

    def observe_extras(self, sim: TaskSimulation) -> np.ndarray:
        """Return how far the drawer is open (N, 1)."""
        return self.joint(sim, JOINT)[:, None].copy()

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach``, ``grasp`` and ``open``, in [0, 1]."""
        return {
            "reach": self.reach_term(sim, "handle"),
            "grasp": self.holds(sim, "handle").astype(float),
            "open": np.clip(self.joint(sim, JOINT) / OPENED, 0.0, 1.0),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where the drawer is open."""
        return self.joint(sim, JOINT) > OPENED
