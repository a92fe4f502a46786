"""Writes RoboMIND 2.0 trees: every embodiment's streams, poses of known arms, a known picture, and faults on demand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.kinematics import PANDA, UR5E
from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.scene import depth_frame, scene_frame

if TYPE_CHECKING:
    import h5py

FAULTS = (
    "skeleton",  # groups without a single dataset
    "first_stream_only",  # the write ended after the first stream
    "half_rate",  # frames come half as fast as they should
    "backwards",  # the clock jumps back once
    "frozen_clock",  # the times do not advance
    "empty_poses",  # pose streams of shape (0,)
    "raw_only",  # streams of the form *_raw only
    "other_flag",  # the colour flag, and the frames, of the other kind
    "spaced_flag",  # the flag with spaces around it
    "no_flag",  # no colour flag
    "no_metadata",  # no instruction in the file
    "gbk_metadata",  # an instruction that is not UTF-8
    "attribute_metadata",  # the instruction as an attribute
    "intervention",  # a human takes over from a third to a half
    "invalid_tactile",  # some tactile values are 65535
    "frozen_pose",  # poses do not move
    "mixed_lengths",  # one stream has a row more
    "plain_force",  # force streams as datasets, without a group
    "truncated",  # the file ends in the middle
)
"""Faults that `write_robomind2` knows."""


@dataclass(frozen=True)
class Layout:
    """What an embodiment's files hold: cameras, joints per arm, widths of puppet's and master's hand, rate, extras."""

    cameras: tuple[str, ...]
    joints: int
    hand: int
    rate: float
    arm_width: int = 0
    master_hand: int = 0
    poses: bool = True
    extras: tuple[str, ...] = ()
    simulated: bool = False


_SIX = ("front", "left", "right", "top", "wrist_left", "wrist_right")
LAYOUTS: dict[str, Layout] = {
    "franka": Layout(_SIX, 7, 1, 12.0, arm_width=8),
    "ur": Layout(_SIX, 6, 1, 7.0),
    "ur_dex": Layout(_SIX, 6, 12, 8.0),
    "agilex": Layout(("front", "left", "right"), 6, 1, 101.0),
    "agilex_mobile": Layout(
        ("front", "left", "right"), 6, 1, 65.0, extras=("chassis_pose", "chassis_twist", "tactile")
    ),
    "ark": Layout(("left", "right", "top"), 6, 1, 58.0),
    "ark_mobile": Layout(("left", "right", "top"), 6, 1, 27.0, extras=("chassis_pose", "chassis_twist")),
    "tienkung": Layout(("top",), 7, 1, 25.0, poses=False),
    "tienyi": Layout(("top",), 7, 1, 48.0, poses=False),
    "tienyi_mobile": Layout(("top",), 7, 1, 19.0, poses=False, extras=("chassis_twist", "head_position")),
    "franka_sim": Layout(_SIX, 7, 1, 30.0, simulated=True),
    "tienkung_sim": Layout(("head",), 7, 12, 30.0, master_hand=6, simulated=True),
}
"""Embodiment folders of 2.0, all of them."""

_WIDTHS = {"chassis_twist": 6, "head_position": 3}


@dataclass(frozen=True)
class WrittenEpisode2:
    """What was written: the file, its id, the two arms' trajectories, the cameras, and the instruction that counts."""

    path: Path
    source_id: str
    arms: tuple[ArmTrajectory, ArmTrajectory]
    cameras: tuple[str, ...]
    instruction: str


def write_robomind2(
    root: Path,
    embodiment: str = "franka",
    *,
    task: str = "101-put_the_apple",
    stamp: str = "2025_08_21_10_00_00",
    n_steps: int = 24,
    rate: float = 0.0,
    size: tuple[int, int] = (32, 48),
    description: str = "",
    depth: bool = True,
    force: bool = False,
    cameras: int = 99,
    seed: int = 0,
    faults: Collection[str] = (),
) -> WrittenEpisode2:
    """Write one episode at its place in a tree.

    Args:
        root: Folder of the tree; ``data/`` is made in it.
        embodiment: One of `LAYOUTS`.
        task: Task folder.
        stamp: Episode folder.
        n_steps: Frames.
        rate: Frames per second [Hz]; 0 = the embodiment's.
        size: (height, width) of colour and depth frames [px].
        description: Content of the task's ``zh_description.txt``; empty for none.
        depth: Whether there are depth frames.
        force: Whether there are force streams, as in newer exports.
        cameras: How many of the embodiment's cameras to write.
        seed: Equal arguments give equal files.
        faults: Any of `FAULTS`.
    """
    import h5py

    for fault in faults:
        if fault not in FAULTS:
            raise ValueError(f"unknown fault '{fault}'")
    layout = LAYOUTS[embodiment]
    name = f"{stamp}.hdf5" if layout.simulated else "trajectory.hdf5"
    folder = root / "data" / embodiment / task / "success_episodes" / stamp / "data"
    folder.mkdir(parents=True)
    if description:
        (folder.parents[2] / "zh_description.txt").write_text(description, encoding="utf-8")
    model = UR5E if embodiment.startswith("ur") else PANDA
    arms = (
        arm_trajectory(n_steps, seed=seed * 10, arm=model),
        arm_trajectory(n_steps, seed=seed * 10 + 1, arm=model),
    )
    names = layout.cameras[:cameras]
    rate = (rate or layout.rate) / (2 if "half_rate" in faults else 1)
    with h5py.File(folder / name, "w") as file:
        if "skeleton" in faults:
            for group in (
                "camera_color_channel",
                "camera_model",
                "master/arm_left_position_align",
                "metadata",
                "puppet",
            ):
                file.create_group(group)
        elif "first_stream_only" in faults:
            file["master/arm_left_position_align/data"] = arms[0].joints
        else:
            stamps = _stamps(n_steps, rate, layout.simulated, faults)
            _write_streams(file, layout, arms, stamps, faults)
            _write_extras(file, layout, n_steps, stamps, force, faults)
            _write_cameras(file, layout, names, n_steps, size, depth, stamps, faults)
            _write_metadata(file, layout, faults)
    if "truncated" in faults:
        (folder / name).write_bytes((folder / name).read_bytes()[: (folder / name).stat().st_size // 2])
    in_file = layout.simulated and not {"no_metadata", "gbk_metadata"} & set(faults)
    text = "pick the apple" if in_file or "attribute_metadata" in faults else description or "put the apple"
    source_id = f"{embodiment}/{task}/success_episodes/{stamp}"
    return WrittenEpisode2(folder / name, source_id, arms, names, text)


def _stamps(n_steps: int, rate: float, simulated: bool, faults: Collection[str]) -> np.ndarray:
    if "frozen_clock" in faults:
        return np.full(n_steps, 1_755_000_000, np.int64)
    seconds = np.arange(n_steps) / rate
    if simulated:
        stamps = np.round(seconds * 1000).astype(np.int64)
        if "backwards" in faults:
            stamps[n_steps // 2 :] -= 260
        return stamps
    return 1_755_000_000 + np.floor(seconds + 0.4).astype(np.int64)


def _write_streams(
    file: h5py.File,
    layout: Layout,
    arms: tuple[ArmTrajectory, ...],
    stamps: np.ndarray,
    faults: Collection[str],
) -> None:
    for who, dtype in (("puppet", np.float32), ("master", np.float64)):
        for side, arm in zip(("left", "right"), arms, strict=True):
            joints = arm.joints[:, : layout.joints] + (0.01 if who == "master" else 0.0)
            if layout.arm_width > layout.joints:
                joints = np.concatenate([joints, arm.gripper[:, None]], axis=1)
            hand = layout.master_hand if who == "master" and layout.master_hand else layout.hand
            closure = arm.gripper * 0.16 if layout.simulated and hand == 1 else arm.gripper
            fingers = closure if hand == 1 else closure[:, None] * np.linspace(0.5, 1.5, hand)
            if "mixed_lengths" in faults and who == "puppet" and side == "right":
                fingers = np.concatenate([fingers, fingers[-1:]])
            _write_stream(file, f"{who}/arm_{side}_position", joints.astype(dtype), stamps, layout, faults)
            _write_stream(
                file, f"{who}/end_effector_{side}_position", fingers.astype(dtype), stamps, layout, faults
            )
            if who == "master" and layout.simulated:
                continue
            pose = np.concatenate([arm.position, arm.quaternions("xyzw")], axis=1).astype(dtype)
            if "frozen_pose" in faults:
                pose[:] = pose[0]
            if not layout.poses or "empty_poses" in faults:
                pose = np.zeros(0, dtype)
            _write_stream(file, f"{who}/end_effector_{side}_pose", pose, stamps, layout, faults)


def _write_stream(
    file: h5py.File, key: str, values: np.ndarray, stamps: np.ndarray, layout: Layout, faults: Collection[str]
) -> None:
    if "raw_only" not in faults:
        file[f"{key}_align/data"] = values
        file[f"{key}_align/timestamp"] = stamps
        file[f"{key}_align/is_intervene"] = np.zeros(len(stamps), bool)
    if layout.simulated or "raw_only" in faults:  # a copy at twice the rate, with its own clock
        file[f"{key}_raw/data"] = np.repeat(values, 2, axis=0)
        file[f"{key}_raw/timestamp"] = np.repeat(stamps, 2)


def _write_extras(
    file: h5py.File, layout: Layout, n_steps: int, stamps: np.ndarray, force: bool, faults: Collection[str]
) -> None:
    wave = np.sin(np.arange(n_steps) / 5.0)
    for name in layout.extras:
        if name == "tactile":
            for side in ("left", "right"):
                values = np.abs(wave)[:, None, None] * np.ones((1, 2, 6))
                if "invalid_tactile" in faults:
                    values[::3, 1, 2] = 65535.0
                _write_stream(file, f"tactile_observations/tactile_{side}", values, stamps, layout, ())
        elif name == "chassis_pose":
            pose = np.tile([0.0, 0, 0, 0, 0, 0, 1], (n_steps, 1))
            pose[:, 0] = wave
            _write_stream(file, "puppet/chassis_pose", pose, stamps, layout, faults)
        else:
            values = wave[:, None] * np.linspace(0.1, 1, _WIDTHS[name])
            _write_stream(file, f"puppet/{name}", values, stamps, layout, faults)
    if force:
        for side in ("left", "right"):
            key = f"force_observations/force_{side}_end_effector_align"
            file[key if "plain_force" in faults else f"{key}/data"] = wave[:, None] * np.ones(6)


def _write_cameras(
    file: h5py.File,
    layout: Layout,
    cameras: tuple[str, ...],
    n_steps: int,
    size: tuple[int, int],
    depth: bool,
    stamps: np.ndarray,
    faults: Collection[str],
) -> None:
    import h5py

    vlen: Any = h5py.vlen_dtype(np.uint8)
    flag = "bgr" if layout.simulated != ("other_flag" in faults) else "rgb"
    order = "rgb" if flag == "bgr" else "bgr"  # the flag is of OpenCV's array, `order` of a true decoder's
    claimed = size[::-1] if layout.simulated else size
    for camera in cameras:
        name = f"camera_{camera}"
        if "no_flag" not in faults:
            file[f"camera_color_channel/{name}"] = f" {flag} " if "spaced_flag" in faults else flag
        file[f"camera_color_resolution/{name}"] = np.array(claimed, np.int64)
        file[f"camera_model/{name}"] = "RealSense_D435if"
        colour = file.create_dataset(f"camera_observations/color_images/{name}", (n_steps,), dtype=vlen)
        for step in range(n_steps):
            colour[step] = np.frombuffer(scene_frame(step, size, order=order), np.uint8)
        if depth:
            ramp = file.create_dataset(f"camera_observations/depth_images/{name}", (n_steps,), dtype=vlen)
            for step in range(n_steps):
                ramp[step] = np.frombuffer(depth_frame(step, (size[0] - 8, size[1])), np.uint8)
    file["camera_observations/timestamp"] = stamps
    flags = np.zeros(n_steps, bool)
    if "intervention" in faults:
        flags[n_steps // 3 : n_steps // 2] = True
    file["camera_observations/is_intervene"] = flags


def _write_metadata(file: h5py.File, layout: Layout, faults: Collection[str]) -> None:
    metadata = file.create_group("metadata")
    if "attribute_metadata" in faults:
        metadata.attrs["language_instruction"] = "pick the apple"
    elif "gbk_metadata" in faults:
        metadata["language_instruction"] = np.bytes_("把苹果放好".encode("gbk"))
    elif layout.simulated and "no_metadata" not in faults:
        metadata["language_instruction"] = "pick the apple"
