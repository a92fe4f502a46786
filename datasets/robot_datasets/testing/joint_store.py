"""Stores as simulated tasks record them with ``task.joints=true``, of arms whose poses are known.

One arm or two, each with its joints and the opening of its gripper::

    store = write_joint_store(folder / "in.zarr", "panda+panda")
    joint_truth(PANDA, 1, 0).joints                     # the right arm's in the first episode
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, IMAGE_PREFIX, Feature
from robot_datasets.kinematics import PANDA, UR5E, SerialArm
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.scene import scene_frame

JOINT_POSITION = "observation.joint_position"
JOINT_LENGTHS = (6, 4)
"""Steps of the episodes."""
JOINT_ROBOTS = {"panda": (PANDA, ("",)), "ur5e": (UR5E, ("",)), "panda+panda": (PANDA, ("left_", "right_"))}
"""Embodiment -> kinematics, and what the names of each arm begin with."""

_SIZE = (32, 48)
_TASKS = ("hand it over", "take it back")


def joint_truth(arm: SerialArm, index: int, episode: int) -> ArmTrajectory:
    """Return the motion of one of the arms in an episode of `write_joint_store`."""
    return arm_trajectory(JOINT_LENGTHS[episode], seed=10 * episode + index, arm=arm)


def write_joint_store(
    path: Path,
    robot: str,
    *,
    cameras: Sequence[str] = ("agentview",),
    action: str = "absolute joint position",
) -> EpisodeStore:
    """Write a store of two successful episodes of two tasks.

    Args:
        path: Where.
        robot: A key of `JOINT_ROBOTS`.
        cameras: Names of the cameras, none for a store without pictures.
        action: Meaning of the action: joints [rad] and grippers, -1 = open, 1 = closed.
    """
    arm, sides = JOINT_ROBOTS[robot]
    count = len(arm.links)
    own = (*(f"joint{i}" for i in range(1, count + 1)), "gripper")
    names = tuple(f"{side}{name}" for side in sides for name in own)
    units = (*["rad"] * count, "1") * len(sides)
    shape = (len(names),)
    features = {
        JOINT_POSITION: Feature(
            dtype="float32", shape=shape, names=names, units=units, gripper="0=closed,1=open"
        ),
        ACTION: Feature(
            dtype="float32", shape=shape, names=names, units=units, gripper="-1=open,1=closed", meaning=action
        ),
    }
    features |= {IMAGE_PREFIX + camera: Feature(dtype="uint8", shape=(*_SIZE, 3)) for camera in cameras}
    with EpisodeStoreWriter(path, features=features, fps=20, embodiment=robot) as writer:
        for e, length in enumerate(JOINT_LENGTHS):
            truths = [joint_truth(arm, index, e) for index in range(len(sides))]
            seen = [part for truth in truths for part in (truth.joints, 1 - truth.gripper[:, None])]
            told = [
                part
                for truth in truths
                for part in (truth.joints + 0.01, np.sign(truth.gripper - 0.4)[:, None])
            ]
            data = {JOINT_POSITION: np.concatenate(seen, axis=1), ACTION: np.concatenate(told, axis=1)}
            frames = [scene_frame(t, _SIZE, encoding="png") for t in range(length)]
            numbers = {name: values.astype(np.float32) for name, values in data.items()}
            writer.add_episode(
                Episode(
                    f"seed-{e}",
                    numbers,
                    {IMAGE_PREFIX + camera: frames for camera in cameras},
                    task=_TASKS[e],
                    success=True,
                )
            )
        writer.publish()
    return EpisodeStore.open(path)
