"""The robots whose stores can be written as InternData-A1 sets, and what their columns are made with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_datasets.errors import DatasetError
from robot_datasets.kinematics import PANDA, UR5E, SerialArm
from robot_datasets.store import EpisodeStore


@dataclass(frozen=True)
class Layout:
    """What tells the robots apart. Numbers of Pandas are those of InternDataEngine's converters and robot files.

    Attributes:
        schema: Name of the schema.
        robots: Embodiments of stores that are this robot.
        arm: Its kinematics.
        width: Opening of the gripper [m].
        binary: The gripper's position is 1 or 0 instead of the opening in metres.
        turn: Turn of the end effector's frame about the flange's z axis [rad].
        tcp: Distance of the tool centre point from the end effector along its z axis [m].
        prefixes: What the names of each arm's components and columns begin with; of a single arm nothing.
    """

    schema: str
    robots: tuple[str, ...]
    arm: SerialArm
    width: float
    binary: bool
    turn: float
    tcp: float
    prefixes: tuple[str, ...] = ("",)

    def poses(self, prefix: str) -> dict[str, str]:
        """Return column -> ``"flange"``, ``"ee"`` or ``"tcp"``: the poses that follow from the joints of an arm."""
        found = {f"states.{prefix}gripper.pose": "flange"}
        for tool in ("ee", "tcp"):
            found[f"states.{prefix}{tool}_to_{prefix}armbase_pose"] = tool
            if not prefix:  # where each of two arms stands on its robot is in no store
                found[f"states.{tool}_to_robot_pose"] = tool
        return found


_LAYOUTS = (
    # The end effector is the frame panda_hand.
    Layout("interndata_franka", ("panda", "franka", "fr3"), PANDA, 0.08, False, -math.pi / 4, 0.095),
    # The end effector is the frame panda_link8, which is the flange.
    Layout(
        "interndata_franka_robotiq",
        ("panda_robotiq_85", "panda+robotiq_85", "franka_robotiq"),
        PANDA,
        0.085,
        True,
        0.0,
        0.145,
    ),
    # No published sets are of the following two, so they are ours to define: each like the nearest one that is.
    Layout("interndata_ur5e", ("ur5e",), UR5E, 0.085, False, 0.0, 0.145),
    Layout(
        "interndata_dual_franka",
        ("panda+panda", "dual_franka"),
        PANDA,
        0.08,
        False,
        -math.pi / 4,
        0.095,
        ("left_", "right_"),
    ),
)
ROBOTS = tuple(layout.schema for layout in _LAYOUTS)
"""Schemas that can be written."""


def layout_of(store: EpisodeStore, robot: str) -> Layout:
    """Return the layout for a store.

    Args:
        store: The store.
        robot: One of `ROBOTS`, or ``"auto"`` to go by the store's embodiment.

    Raises:
        DatasetError: The store is of a robot that has no layout.
    """
    for layout in _LAYOUTS:
        if robot == layout.schema or (robot == "auto" and store.embodiment in layout.robots):
            return layout
    known = "; ".join(f"{layout.schema}: {', '.join(layout.robots)}" for layout in _LAYOUTS)
    raise DatasetError(
        f"{store.path} is of the robot '{store.embodiment}'; sets in InternData-A1's layout are written of Pandas "
        f"and UR5e ({known}). Choose one when generating, or say that it is one under another name "
        f"with --option robot={ROBOTS[0]}"
    )
