"""The robots whose stores can be written as InternData-A1 sets, and what their columns are made with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_datasets.errors import DatasetError
from robot_datasets.store import EpisodeStore


@dataclass(frozen=True)
class Layout:
    """What tells the two arms apart. The numbers are those of InternDataEngine's converters and robot files.

    Attributes:
        schema: Name of the schema.
        robots: Embodiments of stores that are this robot.
        width: Opening of the gripper [m].
        binary: The gripper's position is 1 or 0 instead of the opening in metres.
        turn: Turn of the end effector's frame about the flange's z axis [rad].
        tcp: Distance of the tool centre point from the end effector along its z axis [m].
    """

    schema: str
    robots: tuple[str, ...]
    width: float
    binary: bool
    turn: float
    tcp: float


_LAYOUTS = (
    # The end effector is the frame panda_hand.
    Layout("interndata_franka", ("panda", "franka", "fr3"), 0.08, False, -math.pi / 4, 0.095),
    # The end effector is the frame panda_link8, which is the flange.
    Layout(
        "interndata_franka_robotiq",
        ("panda_robotiq_85", "panda+robotiq_85", "franka_robotiq"),
        0.085,
        True,
        0.0,
        0.145,
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
        f"{store.path} is of the robot '{store.embodiment}'; InternData-A1 sets are written of a Panda with its own "
        f"hand or a Robotiq 2F-85 ({known}). Choose one when generating, or say that it is one under another name "
        f"with --option robot={ROBOTS[0]}"
    )
