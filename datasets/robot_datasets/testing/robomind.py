"""Writes RoboMIND 1.x trees: every embodiment's layout, poses of a known arm, a known picture, and faults on demand.

::

    written = write_robomind(folder, "h5_ur_1rgb", episode="1014_141231", faults={"frozen_pose"})
    written.path        # .../h5_ur_1rgb/<task>/success_episodes/train/1014_141231/data/trajectory.hdf5
    written.arms[0]     # the `ArmTrajectory` behind puppet/joint_position and puppet/end_effector
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.kinematics import FR3, PANDA, UR5E, SerialArm
from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.scene import depth_frame, scene_frame

if TYPE_CHECKING:
    import h5py

FAULTS = (
    "frozen_pose",  # the end effector does not move at all
    "stuck_pose",  # it stands still from the middle on
    "frozen_joints",  # joints and pose stand still while the video moves
    "swapped_colours",  # red and blue in the other order than this embodiment's
    "metres_depth",  # depth in whole metres
    "grey8_depth",  # depth as 8-bit PNG
    "raw_frames",  # colour and depth as raw pixels (480 x 640)
    "missing_top",  # early Franka episodes: left and right camera only, no depth
    "other_size",  # frames of twice the size
    "mixed_sizes",  # from the middle on
    "mixed_lengths",  # one more row of joints than frames
    "damaged_frame",  # bytes that are no picture
    "cut_frame",  # a JPEG that ends early
    "empty_frame",  # a frame of no bytes
    "nan",  # one joint angle is NaN
    "missing_key",  # no puppet/joint_position
    "text_dtype",  # joints as text
    "external_link",  # joints in another file
    "no_steps",  # arrays of length 0
    "truncated",  # the file ends in the middle
    "not_hdf5",  # the file is text
    "uneven_clock",  # simulated: a pause in sim_time_seq
    "no_sim_time",  # simulated: no sim_time_seq
)
"""Faults that `write_robomind` knows."""

_ARMS: dict[str, SerialArm] = {"h5_ur_1rgb": UR5E, "h5_franka_fr3_dual": FR3}
_CAMERAS = {
    "h5_franka_3rgb": ("top", "left", "right"),
    "h5_franka_fr3_dual": ("front", "left", "right", "top"),
    "h5_agilex_3rgb": ("front", "left_wrist", "right_wrist"),
    "h5_simulation": ("front_external", "handeye", "left_external", "right_external"),
    "h5_sim_franka_3rgb": ("front_external", "handeye", "left_external", "right_external"),
    "h5_sim_tienkung_1rgb": ("chest", "head"),
}
_TRUE_COLOURS = ("h5_franka_1rgb", "h5_franka_3rgb", "h5_franka_fr3_dual", "h5_ur_1rgb")
SIM_STATES_PER_FRAME = 4.25
"""States of the simulated Franka per colour frame, as in the documented file (720 to 170)."""


@dataclass(frozen=True)
class WrittenEpisode:
    """What was written.

    Attributes:
        path: The file.
        source_id: As the importer names it.
        arms: The arms' trajectories, at the rate of the states.
        master: What the teleoperation device did, likewise; empty if there is none.
        cameras: Short names of the colour cameras in the file.
        size: (height, width) of the frames [px].
    """

    path: Path
    source_id: str
    arms: tuple[ArmTrajectory, ...]
    master: tuple[ArmTrajectory, ...]
    cameras: tuple[str, ...]
    size: tuple[int, int]


def write_robomind(
    root: Path,
    folder: str = "h5_franka_1rgb",
    *,
    task: str = "bread_in_basket",
    episode: str = "1014_144602",
    split: str = "train",
    release: str = "benchmark1_0_release",
    n_steps: int = 12,
    size: tuple[int, int] = (32, 48),
    depth: bool = True,
    seed: int = 0,
    faults: Collection[str] = (),
) -> WrittenEpisode:
    """Write one episode at its place in a release tree.

    Args:
        root: Folder of the releases.
        folder: Embodiment folder.
        task: Task folder.
        episode: Name of the episode.
        split: ``"train"``, ``"val"``, or empty for a tree without this level.
        release: Top folder; empty for none.
        n_steps: Steps of a real robot, colour frames of a simulated one.
        size: (height, width) of colour and depth frames [px].
        depth: Whether there are depth frames.
        seed: Equal arguments give equal files.
        faults: Any of `FAULTS`.
    """
    import h5py

    for fault in faults:
        if fault not in FAULTS:
            raise ValueError(f"unknown fault '{fault}'")
    parts = [
        *([release] if release else []),
        folder,
        task,
        "success_episodes",
        *([split] if split else []),
        episode,
    ]
    path = root.joinpath(*parts, "data", "trajectory.hdf5")
    path.parent.mkdir(parents=True)
    n_steps = 0 if "no_steps" in faults else n_steps
    size = (
        (480, 640)
        if "raw_frames" in faults
        else (size[0] * 2, size[1] * 2)
        if "other_size" in faults
        else size
    )
    simulated = "sim" in folder
    n_states = round(n_steps * SIM_STATES_PER_FRAME) if simulated else n_steps
    arm = _ARMS.get(folder, PANDA)
    arms = tuple(arm_trajectory(n_states, seed=seed * 10 + i, arm=arm) for i in range(2))
    master = tuple(_following(trajectory) for trajectory in arms)
    cameras = _CAMERAS.get(folder, ("top",))
    if "missing_top" in faults:
        cameras = tuple(c for c in cameras if c != "top")
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = simulated, True
        _LAYOUTS[folder](file, arms, master)
        _write_cameras(file, folder, cameras, n_steps, size, depth and "missing_top" not in faults, faults)
        if simulated:
            _write_sim_time(file, n_steps, "tienkung" in folder, faults)
        _spoil_arrays(file, faults)
    _spoil_file(path, faults)
    n_arms = (
        1
        if folder in ("h5_franka_1rgb", "h5_franka_3rgb", "h5_ur_1rgb", "h5_simulation", "h5_sim_franka_3rgb")
        else 2
    )
    return WrittenEpisode(
        path, "/".join(parts), arms[:n_arms], () if simulated else master[:n_arms], cameras, size
    )


def _following(trajectory: ArmTrajectory) -> ArmTrajectory:
    """Return what a teleoperator does: the same, ten steps ahead and a little off."""
    ahead = np.minimum(np.arange(len(trajectory)) + 10, max(0, len(trajectory) - 1))
    return replace(trajectory, joints=trajectory.joints[ahead] + 0.01, gripper=trajectory.gripper[ahead])


def _pose6(arm: ArmTrajectory) -> np.ndarray:
    return np.concatenate([arm.position, arm.rpy()], axis=1)


def _pose7(arm: ArmTrajectory) -> np.ndarray:
    return np.concatenate([arm.position, arm.quaternions("xyzw")], axis=1)


def _with_gripper(arm: ArmTrajectory, joints: int | None = None) -> np.ndarray:
    return np.concatenate([arm.joints[:, :joints], arm.gripper[:, None]], axis=1)


Arms = tuple[ArmTrajectory, ...]


def _single(file: h5py.File, arms: Arms, master: Arms) -> None:
    file["puppet/joint_position"] = _with_gripper(arms[0])
    file["puppet/end_effector"] = _pose6(arms[0])
    file["master/joint_position"] = _with_gripper(master[0])


def _fr3_dual(file: h5py.File, arms: Arms, master: Arms) -> None:
    file["puppet/joint_position"] = np.concatenate([_with_gripper(a) for a in arms], axis=1)
    file["puppet/end_effector"] = np.concatenate([_pose6(a) for a in arms], axis=1)
    file["master/joint_position"] = np.concatenate([_with_gripper(a) for a in master], axis=1)


def _agilex(file: h5py.File, arms: Arms, master: Arms) -> None:
    for who, both in (("puppet", arms), ("master", master)):
        for side, arm in zip(("left", "right"), both, strict=True):
            joints = _with_gripper(arm, 6)
            file[f"{who}/joint_position_{side}"] = joints
            file[f"{who}/joint_velocity_{side}"] = (
                np.gradient(joints, axis=0) * 30 if len(joints) > 1 else joints
            )
            file[f"{who}/joint_effort_{side}"] = joints * 2
            file[f"{who}/end_effector_{side}"] = np.concatenate([_pose6(arm), arm.gripper[:, None]], axis=1)


def _gello(file: h5py.File, arms: Arms, master: Arms) -> None:
    for who, both in (("puppet", arms), ("master", master)):
        file[f"{who}/joint_position"] = np.concatenate([_with_gripper(a) for a in both], axis=1)


def _xsens(file: h5py.File, arms: Arms, master: Arms) -> None:
    for who, both in (("puppet", arms), ("master", master)):
        file[f"{who}/joint_position"] = np.concatenate([a.joints for a in both], axis=1)
        file[f"{who}/end_effector"] = np.concatenate([_hand(a, 6) for a in both], axis=1)


def _hand(arm: ArmTrajectory, n: int) -> np.ndarray:
    """Return (T, n) finger joints: the closure of the gripper, scaled differently for each joint."""
    return arm.gripper[:, None] * np.linspace(0.5, 1.5, n)


def _sim_franka(file: h5py.File, arms: Arms, master: Arms) -> None:
    joints = _with_gripper(arms[0])
    file["franka/joint_position"] = joints
    file["franka/joint_velocity"] = np.gradient(joints, axis=0) * 120 if len(joints) > 1 else joints
    file["franka/joint_effort"] = joints * 2
    file["franka/end_effector"] = _pose7(arms[0])


def _sim_tienkung(file: h5py.File, arms: Arms, master: Arms) -> None:
    """Lengths differ by one or two rows between the arrays, as documented; one name has an s too many."""
    for side, arm in zip(("left", "right"), arms, strict=True):
        cut = {"pos": -2 if side == "left" else None, "vel": -1, "effort": None}
        effort = "effort_seqs" if side == "left" else "effort_seq"
        file[f"tiangong/{side}_arm_joint_pos_seq"] = arm.joints[: cut["pos"]]
        file[f"tiangong/{side}_arm_joint_vel_seq"] = (arm.joints * 0.5)[: cut["vel"]]
        file[f"tiangong/{side}_arm_joint_{effort}"] = arm.joints * 2
        file[f"tiangong/{side}_hand_joint_pos_seq"] = _hand(arm, 12)[: cut["pos"]]
        file[f"tiangong/{side}_hand_joint_vel_seq"] = (_hand(arm, 12) * 0.1)[: cut["vel"]]
        file[f"tiangong/{side}_end_effector_waist"] = _pose7(arm)


_LAYOUTS: dict[str, Callable[[h5py.File, Arms, Arms], None]] = {
    "h5_franka_1rgb": _single,
    "h5_franka_3rgb": _single,
    "h5_ur_1rgb": _single,
    "h5_franka_fr3_dual": _fr3_dual,
    "h5_agilex_3rgb": _agilex,
    "h5_tienkung_gello_1rgb": _gello,
    "h5_tienkung_prod1_gello_1rgb": _gello,
    "h5_tienkung_xsens_1rgb": _xsens,
    "h5_simulation": _sim_franka,
    "h5_sim_franka_3rgb": _sim_franka,
    "h5_sim_tienkung_1rgb": _sim_tienkung,
}
FOLDERS = tuple(_LAYOUTS)
"""Embodiment folders that `write_robomind` knows: all of 1.x."""


def _write_cameras(
    file: h5py.File,
    folder: str,
    cameras: tuple[str, ...],
    n_steps: int,
    size: tuple[int, int],
    depth: bool,
    faults: Collection[str],
) -> None:
    file.create_group("observations/rgb_images")
    file.create_group("observations/depth_images")
    order = "rgb" if (folder in _TRUE_COLOURS) != ("swapped_colours" in faults) else "bgr"
    raw = "raw_frames" in faults
    opposite = "bgr" if order == "rgb" else "rgb"  # raw pixels are in the order that OpenCV returns
    for camera in cameras:
        frames = [
            scene_frame(step, size, encoding="raw", order=opposite)
            if raw
            else scene_frame(step, size, order=order)
            for step in range(n_steps)
        ]
        if "mixed_sizes" in faults:
            half = n_steps // 2
            frames[half:] = [
                scene_frame(s, (size[0] * 2, size[1] * 2), order=order) for s in range(half, n_steps)
            ]
        _write_frames(file, f"observations/rgb_images/camera_{camera}", _spoilt_frames(frames, faults))
        if not depth:
            continue
        n_depth = n_steps + (n_steps // 28 if "sim" in folder else 0)  # 176 to 170 in the documented file
        _write_frames(
            file,
            f"observations/depth_images/camera_{camera}",
            [_depth_frame(step, size, faults) for step in range(n_depth)],
        )


def _write_frames(file: h5py.File, key: str, frames: list[bytes]) -> None:
    import h5py

    dataset = file.create_dataset(key, (len(frames),), dtype=h5py.vlen_dtype(np.uint8))
    for step, frame in enumerate(frames):
        dataset[step] = np.frombuffer(frame, np.uint8)


def _depth_frame(step: int, size: tuple[int, int], faults: Collection[str]) -> bytes:
    from robot_datasets.image_codec import encode_frame

    if "raw_frames" in faults:
        return bytes(np.full(size, 120 + step % 100, np.uint8).tobytes())
    if "grey8_depth" in faults:
        return encode_frame(np.full((*size, 1), 120 + step % 100, np.uint8), "png")
    return depth_frame(step, size, metres="metres_depth" in faults)


def _spoilt_frames(frames: list[bytes], faults: Collection[str]) -> list[bytes]:
    middle = len(frames) // 2
    if "damaged_frame" in faults:
        frames[middle] = b"not a frame"
    if "cut_frame" in faults:
        frames[middle] = frames[middle][: len(frames[middle]) // 2]
    if "empty_frame" in faults:
        frames[middle] = b""
    return frames


def _write_sim_time(file: h5py.File, n_frames: int, per_frame: bool, faults: Collection[str]) -> None:
    if "no_sim_time" in faults:
        return
    count = n_frames if per_frame else 4 * n_frames
    times = 2.0 + np.arange(count) / (30.0 if per_frame else 120.0)
    if "uneven_clock" in faults:
        times[count // 2 :] += 0.5
    file["sim_time_seq"] = times


def _spoil_arrays(file: h5py.File, faults: Collection[str]) -> None:
    import h5py

    states = "franka" if "franka" in file else "tiangong" if "tiangong" in file else "puppet"
    group: Any = file[states]
    for key in list(group):
        values = np.asarray(group[key])
        pose = "end_effector" in key
        frozen = ("frozen_pose" in faults and pose) or "frozen_joints" in faults
        if frozen and len(values):
            values[:] = values[0]
        if "stuck_pose" in faults and pose:
            values[len(values) // 2 :] = values[len(values) // 2]
        if "nan" in faults and "joint_pos" in key:
            values[len(values) // 2, 0] = np.nan
        if "mixed_lengths" in faults and "joint_pos" in key:
            values = np.concatenate([values, values[-1:]])
        del group[key]
        group[key] = values
    key = next((k for k in group if "joint_pos" in k), "")
    if "missing_key" in faults:
        del group[key]
    if "text_dtype" in faults:
        del group[key]
        group[key] = np.array([b"1.0"] * 3)
    if "external_link" in faults:
        del group[key]
        group[key] = h5py.ExternalLink("elsewhere.hdf5", "/secret")


def _spoil_file(path: Path, faults: Collection[str]) -> None:
    if "truncated" in faults:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if "not_hdf5" in faults:
        path.write_text("an error page instead of the file")
