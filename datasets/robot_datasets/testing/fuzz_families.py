"""Small healthy sources of every format, for `robot_datasets.testing.fuzzing`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robot_datasets.testing.fault_archives import ARCHIVE_FAULTS as _HOSTILE
from robot_datasets.testing.faults import BYTE_FAULTS, Fault
from robot_datasets.testing.fuzzing import Family

ARCHIVE_FAULTS = tuple(Fault(name, change) for name, change in _HOSTILE.items())


def _episode_files(suffix: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(suffix)


def _robomind(folder: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        from robot_datasets.testing.robomind import write_robomind

        for number in range(3):
            write_robomind(root / "tree", folder, episode=f"1014_{number}", n_steps=6, seed=number)
        return root / "tree"

    return write


def _robomind2(root: Path) -> Path:
    from robot_datasets.testing.robomind2 import write_robomind2

    for number in range(3):
        write_robomind2(root / "tree", stamp=f"2025_08_21_10_00_0{number}", cameras=2, seed=number)
    return root / "tree"


def _aloha(root: Path) -> Path:
    from robot_datasets.testing.aloha import write_aloha_episode

    for number in range(3):
        write_aloha_episode(root / "tree", number, 5, compressed=True, cameras=("cam_high", "cam_low"))
    return root / "tree"


def _robomimic(root: Path) -> Path:
    import h5py

    random = np.random.default_rng(0)
    path = root / "demos.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = (
            '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'
        )
        for number in range(3):
            demo = file.create_group(f"data/demo_{number}")
            n = 4 + number
            demo["actions"] = random.uniform(-1, 1, (n, 7))
            demo["rewards"], demo["dones"] = np.eye(n)[-1], np.eye(n)[-1].astype(int)
            demo["obs/robot0_eef_pos"] = random.normal(size=(n, 3))
            demo["obs/robot0_eef_quat"] = np.tile([0.0, 0.0, 0.0, 1.0], (n, 1))
            demo["obs/robot0_gripper_qpos"] = random.normal(size=(n, 2))
            demo["obs/agentview_image"] = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return path


def _lerobot(version: str, images: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        from robot_datasets.testing.lerobot import ToyEpisode, grey_frames, write_lerobot

        random = np.random.default_rng(0)
        episodes = []
        for number in range(3):
            n = 4 + number
            numbers = {
                "observation.state": random.normal(size=(n, 3)).astype(np.float32),
                "action": random.normal(size=(n, 2)).astype(np.float32),
            }
            episodes.append(
                ToyEpisode(numbers, {"observation.images.top": grey_frames(number, n)}, task=f"task {number}")
            )
        return write_lerobot(root / "set", episodes, version=version, images=images)

    return write


def _archived(kind: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        _lerobot("v2.1", "image")(root)
        archive = shutil.make_archive(str(root / "archive"), kind, root_dir=root, base_dir="set")
        shutil.rmtree(root / "set")
        return Path(archive)

    return write


def _interndata(root: Path) -> Path:
    from robot_datasets.testing.interndata import write_interndata_set

    write_interndata_set(root / "franka" / "Pick" / "set_0", lengths=(4, 5, 6))
    return root / "franka"


def _interndata_tar(root: Path) -> Path:
    from robot_datasets.testing.interndata import pack, write_interndata_set

    for number in range(3):
        folder = write_interndata_set(root / "set_0", lengths=(4 + number,), seed=number).root
        pack(folder, root / "franka" / f"Task_{number}.tar.gz")
    return root / "franka"


def _replay_buffer(root: Path) -> Path:
    import zarr

    random = np.random.default_rng(0)
    path = root / "buffer.zarr"
    group = zarr.create_group(str(path), zarr_format=2)
    values = {
        "action": random.normal(size=(12, 2)).astype(np.float32),
        "state": random.normal(size=(12, 3)).astype(np.float32),
        "img": random.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8),
    }
    data = group.create_group("data")
    for key, rows in values.items():
        data.create_array(key, shape=rows.shape, dtype=rows.dtype, chunks=(5, *rows.shape[1:]))[...] = rows
    ends = np.array([3, 7, 12])
    group.create_group("meta").create_array("episode_ends", shape=(3,), dtype="i8")[...] = ends
    return path


def _zipped_buffer(root: Path) -> Path:
    path = _replay_buffer(root)
    archive = shutil.make_archive(str(root / "buffer"), "zip", root_dir=root, base_dir=path.name)
    shutil.rmtree(path)
    return Path(archive)


def _rlds(root: Path) -> Path:
    from robot_datasets.testing.rlds import rlds_episode, rlds_keys, write_rlds

    episodes = [rlds_episode(3 + number, number) for number in range(4)]
    return write_rlds(root / "toy" / "0.1.0", episodes, keys=rlds_keys(), shards=2)


def _bags(storage: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        from robot_datasets.testing.rosbag import BagSpec, write_bag

        for number in range(3):
            write_bag(root / "bags" / f"take{number}", BagSpec(duration=0.5 + number / 10, storage=storage))
        return root / "bags"

    return write


_HDF5 = _episode_files(".hdf5")
_ARCHIVED = (*BYTE_FAULTS, *ARCHIVE_FAULTS, *ARCHIVE_FAULTS)
_BAG_MAP = {"map": str(Path(__file__).with_name("rosbag_map.yaml"))}


def _own_bag(name: str) -> bool:
    return "/" in name


def _own_lerobot(name: str) -> bool:
    return name.startswith(("data/", "videos/"))


def _own_interndata(name: str) -> bool:
    return "/data/" in name or "/videos/" in name


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("robomind_franka", "HDF5", _robomind("h5_franka_1rgb"), "robomind", is_own=_HDF5),
        Family("robomind_agilex", "HDF5", _robomind("h5_agilex_3rgb"), "robomind", is_own=_HDF5),
        Family("robomind_sim", "HDF5", _robomind("h5_simulation"), "robomind", is_own=_HDF5),
        Family("robomind2", "HDF5", _robomind2, "robomind2", is_own=_HDF5),
        Family("aloha", "HDF5", _aloha, "aloha", is_own=_HDF5),
        Family("robomimic", "HDF5", _robomimic, "robomimic_hdf5"),
        Family("lerobot_v21", "LeRobot", _lerobot("v2.1", "video"), "lerobot", is_own=_own_lerobot),
        Family("lerobot_v30", "LeRobot", _lerobot("v3.0", "video"), "lerobot"),
        Family("lerobot_images", "LeRobot", _lerobot("v2.0", "image"), "lerobot", is_own=_own_lerobot),
        Family("lerobot_zip", "archives", _archived("zip"), "lerobot", faults=_ARCHIVED),
        Family("lerobot_tar", "archives", _archived("tar"), "lerobot", faults=_ARCHIVED),
        Family("lerobot_tar_gz", "archives", _archived("gztar"), "lerobot", faults=_ARCHIVED),
        Family("interndata", "LeRobot", _interndata, "interndata", is_own=_own_interndata),
        Family("interndata_tar", "archives", _interndata_tar, "interndata", is_own=_episode_files(".tar.gz")),
        Family("replay_buffer", "zarr", _replay_buffer, "diffusion_policy_zarr", {"fps": "10"}),
        Family("replay_buffer_zip", "zarr", _zipped_buffer, "diffusion_policy_zarr", {"fps": "10"}),
        Family("rlds", "TFRecord", _rlds, "rlds", {"fps": "10"}),
        Family("rosbag2_mcap", "ROS 2 bags", _bags("mcap"), "rosbag2", _BAG_MAP, is_own=_own_bag),
        Family("rosbag2_sqlite", "ROS 2 bags", _bags("sqlite3"), "rosbag2", _BAG_MAP, is_own=_own_bag),
    )
}
"""By name."""
