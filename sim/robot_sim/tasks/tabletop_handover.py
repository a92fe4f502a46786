"""Tabletop hand-over: the left arm picks a bar up and hands it to the right one.

The bar (24 x 24 x 240 mm) lies on the left side, within 5 cm of its place and 20 degrees of lying across. Success is
the right hand holding it 12 cm above the table, the left hand open and clear of it.

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
from robot_sim.skills.expert import DEFAULT_NOISE, SkillExpert
from robot_sim.skills.follower import Waypoint
from robot_sim.skills.poses import yaw_of
from robot_sim.skills.skill import Context
from robot_sim.skills.view import SceneView
from robot_sim.tasks.tabletop import Options, TabletopTask

BAR = (0.012, 0.12, 0.012)  # half sizes [m]
END = 0.085  # where each hand takes the bar, from its middle [m]
PLACE = (0.03, 0.17)  # of the bar [m]
SPREAD, TURN = 0.05, 0.35  # how far it is moved along x and y [m] and turned [rad]
MEETING = np.array([0.03, 0.0, 0.2])  # where the bar's middle is handed over [m]
HANDED = 0.12  # height that counts [m]


def make_task(options: Options) -> TabletopHandover:
    """Build the task; see `TabletopHandover`."""
    return TabletopHandover(options)


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
    """Build one environment of the task; see `TabletopHandover`."""
    options = Options.of(arm, control, images, cameras, image_size, joints)
    return MujocoTaskEnv(make_task(options), render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the scripted demonstrator; see `SkillExpert`."""
    return SkillExpert(plan, noise=noise, recovery=recovery)


def plan(scene: SceneView) -> list[Iterator[Waypoint]]:
    """Return what the left and the right arm do."""
    left, right = (Context(scene, arm) for arm in scene.arms)
    return [_give(left, right), _take(right, left)]


def _give(me: Context, other: Context) -> Iterator[Waypoint]:
    yield from grasping.grasp(me, "bar", axis="x", offset=(0.0, END, 0.0))
    yield from grasping.lift(me, height=0.12)
    for tolerance in (0.02, 0.006):
        yaw = yaw_of(me.scene.rotation("bar"))
        position, rotation = grasping.carry(me, "bar", MEETING, -yaw)
        yield Waypoint(
            position=position, rotation=rotation, speed=0.5, tolerance=tolerance, skill="hand_over"
        )
    while not other.arm.holds("bar"):
        yield Waypoint(timeout=1, skill="hand_over")
    yield Waypoint(dwell=8, timeout=12, tolerance=0.0, skill="hand_over")
    yield from grasping.release(me, height=0.1)


def _take(me: Context, other: Context) -> Iterator[Waypoint]:
    here = me.arm.position
    while np.linalg.norm(me.scene.position("bar") - MEETING) > 0.02 or not other.arm.holds("bar"):
        yield Waypoint(position=here, timeout=1, skill="hand_over")
    yield from grasping.grasp(me, "bar", axis="x", offset=(0.0, -END, 0.0))
    while other.arm.holds("bar"):
        yield Waypoint(timeout=1, skill="hand_over")
    yield from grasping.lift(me, height=0.06)


class TabletopHandover(TabletopTask):
    """Hand the bar over.

    Observations: see `TabletopTask`; two arms, left first; tracked is ``bar``.

    Args:
        options: See `Options`.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            name="tabletop_handover",
            instruction="hand the bar from the left arm to the right arm",
            options=options,
            tracked=("bar",),
            arms=2,
            max_steps=300,
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the bar."""
        del visual
        add_box(scene, "bar", size=BAR, rgba=(0.25, 0.45, 0.75, 1.0), density=300.0)

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw where the bar lies."""
        place = np.array(PLACE) + random.uniform(-SPREAD, SPREAD, 2)
        self.put(qpos, "bar_joint", (*place, BAR[2]), random.uniform(-TURN, TURN))
        return {}

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return ``reach`` and ``grasp`` of the left hand, ``lift``, ``take`` (the right hand holds) and ``handed``."""
        height = self.body_position(sim, "bar")[:, 2] - BAR[2]
        return {
            "reach": self.reach_term(sim, "bar"),
            "grasp": (self.holds(sim, "bar") | self.holds(sim, "bar", 1)).astype(float),
            "lift": np.clip(height / HANDED, 0.0, 1.0),
            "take": self.holds(sim, "bar", 1).astype(float),
            "handed": self.success(sim).astype(float),
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where only the right hand touches the bar, high enough, and the left hand is open."""
        geoms = self.names.body_geoms("bar")
        mount = self.arms[0].mount
        fingers = [mount.prefix + geom for side in mount.gripper_model.finger_geoms for geom in side]
        left = np.array([self.names.geom(name) for name in fingers])
        clear = ~sim.physics.touching(left, geoms) & (self.arms[0].opening(sim.physics) > 0.5)
        high = self.body_position(sim, "bar")[:, 2] - BAR[2] > HANDED
        return high & clear & self.holds(sim, "bar", 1)
