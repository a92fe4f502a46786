"""Small InternData-A1 sets in every documented layout, with the documented faults on demand.

The arms are synthetic ones whose poses are known (`robot_datasets.testing.arm`)::

    written = write_interndata_set(folder / "Pick_up" / "set_0", "franka")
    ...
    written.arms["right"][0].assert_same_poses(...)
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.lerobot import ToyEpisode, grey_frames, write_lerobot

ROBOT_TYPES = {
    "franka": "Franka",
    "franka_robotiq": "FrankaRobotiq",
    "genie1": "Genie-1",
    "lift2": "ARX Lift-2",
    "split_aloha": "AgileX Split Aloha",
    "ac_one": "ARX AC One",
    "real_genie1": "a2d",
}
"""Robot -> what info.json usually says."""

_JOINTS = {"genie1": 7, "lift2": 6, "split_aloha": 6, "ac_one": 6}
_PANDA_WIDTH_M = 0.08
_FPS = 30.0


@dataclass
class WrittenSet:
    """What was written.

    Attributes:
        root: Folder of the set.
        arms: ``"left"`` and ``"right"`` (of one arm: ``"right"``) -> trajectory of each episode as stored.
        columns: Columns of each episode as stored.
    """

    root: Path
    arms: dict[str, list[ArmTrajectory]]
    columns: list[dict[str, np.ndarray]]


def write_interndata_set(
    root: Path,
    robot: str = "franka",
    *,
    lengths: Sequence[int] = (6, 4, 5),
    version: str = "v2.1",
    robot_type: str | None = None,
    task: str = "Pick up the cup.",
    paraphrases: tuple[str, ...] = (),
    without: Sequence[str] = (),
    thinned: int = 1,
    hand_pose_as_head: bool = False,
    bad_quaternions: bool = False,
    seed: int = 0,
    **options: Any,
) -> WrittenSet:
    """Write one set.

    Args:
        root: Its folder.
        robot: A key of `ROBOT_TYPES`.
        lengths: Stored steps of each episode.
        version: ``"v2.1"`` or ``"v3.0"``.
        robot_type: What info.json says; None = the usual spelling.
        task: Instruction.
        paraphrases: Other texts for it.
        without: Columns and cameras to leave out.
        thinned: Keep every so-manieth recorded step; actions were made before, so they are one recorded step ahead.
        hand_pose_as_head: Overwrite the head camera's pose with the hand camera's, as a published converter does.
        bad_quaternions: Write zeros instead of the quaternion of the first tool pose.
        seed: Of the arms' motion.
        options: For `write_lerobot`.
    """
    sides = ["right"] if robot.startswith("franka") else ["left", "right"]
    written = WrittenSet(root, {side: [] for side in sides}, [])
    episodes = []
    for e, length in enumerate(lengths):
        arms = {s: arm_trajectory(length * thinned, seed=seed * 100 + e * 2 + i) for i, s in enumerate(sides)}
        columns = _real_genie1(arms) if robot == "real_genie1" else _simulated(robot, arms, seed)
        if hand_pose_as_head:
            columns["head_camera_to_robot_extrinsics"] = columns["hand_camera_to_robot_extrinsics"]
        if bad_quaternions:
            columns["states.tcp_to_robot_pose"][0, 3:] = 0
        columns = {k: v[::thinned].astype(np.float32) for k, v in columns.items() if k not in without}
        for side, arm in arms.items():
            written.arms[side].append(_thinned(arm, thinned))
        written.columns.append(columns)
        cameras = {
            key: grey_frames(e, length, size) for key, size in _cameras(robot).items() if key not in without
        }
        flat = {
            k: v[:, 0] if v.shape[1] == 1 else v for k, v in columns.items()
        }  # shape [1] is a scalar column
        episodes.append(ToyEpisode(flat, cameras, task, paraphrases))
    told = ROBOT_TYPES[robot] if robot_type is None else robot_type
    write_lerobot(root, episodes, version=version, fps=_FPS / thinned, robot_type=told, **options)
    return written


def pack(
    folder: Path,
    archive: Path,
    *,
    inside: str = "set_0",
    order: Sequence[str] = ("data", "meta", "videos"),
    keep: float = 1.0,
) -> Path:
    """Pack a set as it is published, and delete the folder.

    Args:
        folder: The set.
        archive: Path of the ``.tar.gz`` (or ``.tar``, ``.tar.xz``, ...).
        inside: Its folder inside the archive.
        order: Which of its folders come first.
        keep: Fraction of the file to keep; less than 1 is a download that broke off.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    mode: Any = f"w:{archive.suffix[1:]}" if archive.suffix in (".gz", ".xz", ".bz2") else "w"
    with tarfile.open(archive, mode) as packed:
        for part in order:
            if (folder / part).exists():
                packed.add(folder / part, f"{inside}/{part}" if inside else part)
    if keep < 1:
        archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    shutil.rmtree(folder)
    return archive


def _thinned(arm: ArmTrajectory, every: int) -> ArmTrajectory:
    return ArmTrajectory(
        arm.arm, arm.joints[::every], arm.gripper[::every], arm.position[::every], arm.rotation[::every]
    )


def _cameras(robot: str) -> dict[str, tuple[int, int]]:
    """Return video key -> frame size; wrist cameras are larger than the head's."""
    if robot == "real_genie1":
        return {f"observation.images.{name}": (32, 48) for name in ("head", "hand_left", "hand_right")}
    if robot.startswith("franka"):
        return {"images.rgb.head": (32, 48), "images.rgb.hand": (48, 64)}
    return {"images.rgb.head": (32, 48), "images.rgb.hand_left": (48, 64), "images.rgb.hand_right": (48, 64)}


def _next(values: np.ndarray) -> np.ndarray:
    """Shift by one step, the last one repeated, as the converters do."""
    return np.concatenate([values[1:], values[-1:]])


def _pose(arm: ArmTrajectory, offset: float = 0.0) -> np.ndarray:
    """Return (T, 7) x, y, z, qw, qx, qy, qz; `offset` moves it along x, as another frame of reference would."""
    return np.concatenate([arm.position + np.array([offset, 0, 0]), arm.quaternions("wxyz")], axis=1)


def _simulated(robot: str, arms: dict[str, ArmTrajectory], seed: int) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    n_joints = _JOINTS.get(robot, 7)
    scale = 1.0 if robot == "franka_robotiq" else _PANDA_WIDTH_M
    for side, arm in arms.items():
        part = f"{side}_" if len(arms) == 2 else ""
        opening = (1.0 - arm.gripper)[:, None] * scale
        width = np.round(opening) if robot == "franka_robotiq" else opening
        states = {f"{part}joint.position": arm.joints[:, :n_joints], f"{part}gripper.position": width}
        for what, offset in (("ee", -0.1), ("tcp", 0.0)):
            states[f"{part}{what}_to_{part}armbase_pose"] = _pose(arm, offset + 0.3)
            states[f"{part}{what}_to_robot_pose"] = _pose(arm, offset)
        if not part:
            states["gripper.pose"] = np.concatenate([arm.position, arm.rpy()], axis=1)
        columns |= {f"states.{key}": values for key, values in states.items()}
        columns |= {f"actions.{key}": _next(values) for key, values in states.items()}
        openness = (arm.gripper < 0.5).astype(float)[:, None]
        columns[f"master_actions.{part}joint.position"] = arm.joints[:, :n_joints] + 0.01
        columns[f"master_actions.{part}gripper.position"] = _next(width)
        columns[f"master_actions.{part}gripper.openness"] = openness
        if not part:
            columns["actions.gripper.openness"] = openness
            columns["master_actions.gripper.pose"] = columns["states.gripper.pose"]
    first = next(iter(arms.values()))
    standing = np.array([0.1 * (seed + 1), 0.2, 0.0, np.cos(0.3), 0.0, 0.0, np.sin(0.3)])
    columns["states.robot_to_env_pose"] = np.tile(standing, (len(first), 1))
    for camera in ("head", "hand") if len(arms) == 1 else ("head", "hand_left", "hand_right"):
        columns[f"{camera}_camera_intrinsics"] = np.tile([300.0, 301.0, 160.0, 90.0], (len(first), 1))
        pose = np.tile([0.5, 0.0, 0.6, 0.5, -0.5, 0.5, -0.5], (len(first), 1))
        columns[f"{camera}_camera_to_robot_extrinsics"] = pose if camera == "head" else _pose(first, 0.05)
    return columns


def _real_genie1(arms: dict[str, ArmTrajectory]) -> dict[str, np.ndarray]:
    left, right = arms["left"], arms["right"]
    joints = np.concatenate([left.joints, right.joints], axis=1)
    grippers = np.stack([left.gripper, right.gripper], axis=1)
    return {
        "observation.states.joint.position": joints,
        "observation.states.effector.position": grippers,
        "observation.states.head.position": np.zeros((len(left), 2)),
        "actions.joint.position": _next(joints),
        "actions.effector.position": _next(grippers),
    }
