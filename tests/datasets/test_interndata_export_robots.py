"""Sets in InternData-A1's layout of robots that no published set has: what goes in comes back, nothing is mistaken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, STATE
from robot_datasets.importers import detect_importer
from robot_datasets.kinematics import pose_errors
from robot_datasets.store import EpisodeStore
from robot_datasets.testing.interndata import write_interndata_set
from robot_datasets.testing.joint_store import JOINT_POSITION, JOINT_ROBOTS, joint_truth, write_joint_store

SCHEMAS = {"ur5e": "ur5e", "panda+panda": "dual_franka"}


def _poses(pose: np.ndarray) -> np.ndarray:
    found = np.tile(np.eye(4), (len(pose), 1, 1))
    found[:, :3, 3] = pose[:, :3]
    turn = (
        Rotation.from_quat(np.roll(pose[:, 3:], -1, axis=1))
        if pose.shape[1] == 7
        else Rotation.from_euler("xyz", pose[:, 3:])
    )
    found[:, :3, :3] = turn.as_matrix()
    return found


@pytest.mark.parametrize(("robot", "width"), [("ur5e", 0.085), ("panda+panda", 0.08)])
def test_what_goes_in_comes_back(robot: str, width: float, tmp_path: Path) -> None:
    """Joints and commands to the bit, openings in metres, each arm under its own side, words and boundaries."""
    store = write_joint_store(tmp_path / "in.zarr", robot)
    export(store, tmp_path / "out", format="interndata")
    assert detect_importer(tmp_path / "out").name == "interndata"
    convert(tmp_path / "out", tmp_path / "next.zarr")
    convert(tmp_path / "out", tmp_path / "told.zarr", options={"action": "command"})
    back, told = EpisodeStore.open(tmp_path / "next.zarr"), EpisodeStore.open(tmp_path / "told.zarr")
    assert (back.embodiment, back.fps, back.tasks) == (SCHEMAS[robot], 20.0, store.tasks)
    assert back.features[STATE].names == store.features[JOINT_POSITION].names
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    before, state, command = store.column(JOINT_POSITION), back.column(STATE), told.column(ACTION)
    grippers = np.array([name.endswith("gripper") for name in back.features[STATE].names])
    np.testing.assert_array_equal(state[:, ~grippers], before[:, ~grippers])
    np.testing.assert_allclose(state[:, grippers], width * before[:, grippers], atol=1e-7)
    np.testing.assert_array_equal(command[:, ~grippers], store.column(ACTION)[:, ~grippers])
    np.testing.assert_array_equal(command[:, grippers], store.column(ACTION)[:, grippers] < 0)
    for start, end in zip(back.episode_starts, back.episode_ends, strict=True):
        rows = state[start:end]
        np.testing.assert_array_equal(back.column(ACTION)[start:end], np.concatenate([rows[1:], rows[-1:]]))
    assert back.warnings == {}


@pytest.mark.parametrize(("robot", "turn", "ahead"), [("ur5e", 0.0, 0.145), ("panda+panda", -45.0, 0.095)])
def test_poses_follow_from_the_joints_of_each_arm(
    robot: str, turn: float, ahead: float, tmp_path: Path
) -> None:
    """Flange, end effector and tool of every arm in its own base; where two bases stand is not made up."""
    export(write_joint_store(tmp_path / "in.zarr", robot), tmp_path / "out", format="interndata")
    arm, sides = JOINT_ROBOTS[robot]
    table = pq.read_table(tmp_path / "out" / "data" / "chunk-000" / "episode_000000.parquet")
    hand = np.eye(4)
    hand[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    tool = hand.copy()
    tool[2, 3] = ahead
    for index, side in enumerate(sides):
        flange = arm.flange_poses(joint_truth(arm, index, 0).joints)
        for column, offset in (
            (f"{side}gripper.pose", np.eye(4)),
            (f"{side}ee_to_{side}armbase_pose", hand),
            (f"{side}tcp_to_{side}armbase_pose", tool),
        ):
            found = np.array(table[f"states.{column}"].to_pylist())
            distance, angle = pose_errors(_poses(found), flange @ offset)
            assert max(distance.max(), angle.max()) < 1e-5
            following = np.array(table[f"actions.{column}"].to_pylist())
            np.testing.assert_array_equal(following, np.concatenate([found[1:], found[-1:]]))
    assert any("to_robot_pose" in name for name in table.column_names) == (robot == "ur5e")


def test_a_set_that_was_read_is_written_as_it_was(tmp_path: Path) -> None:
    """A second way out and in changes no number: each part of a pose returns to its own column."""
    export(write_joint_store(tmp_path / "in.zarr", "panda+panda"), tmp_path / "one", format="interndata")
    convert(tmp_path / "one", tmp_path / "one.zarr", options={"action": "command"})
    once = EpisodeStore.open(tmp_path / "one.zarr")
    export(once, tmp_path / "two", format="interndata")
    convert(tmp_path / "two", tmp_path / "two.zarr", options={"action": "command"})
    twice = EpisodeStore.open(tmp_path / "two.zarr")
    assert twice.features == once.features
    for name in once.spec.low_dim:
        np.testing.assert_array_equal(twice.column(name), once.column(name), err_msg=name)


def test_two_robots_of_the_same_columns_are_not_mistaken(tmp_path: Path) -> None:
    """Two Pandas have Genie-1's columns, a UR5e those of any six-joint arm: without their label they are not taken."""
    export(write_joint_store(tmp_path / "two.zarr", "panda+panda"), tmp_path / "two", format="interndata")
    export(write_joint_store(tmp_path / "ur.zarr", "ur5e"), tmp_path / "ur", format="interndata")
    write_interndata_set(tmp_path / "genie", "genie1", robot_type="mystery", lengths=(3,))
    for name, robot in (("two", "dual_franka"), ("ur", "ur5e"), ("genie", "genie1")):
        convert(tmp_path / name, tmp_path / f"{name}_told.zarr")
        assert EpisodeStore.open(tmp_path / f"{name}_told.zarr").embodiment == robot
    _forget_the_robot(tmp_path / "ur")
    with pytest.raises(
        DatasetError, match=r"'mystery' is not known and its columns fit interndata_ur5e; choose"
    ):
        convert(tmp_path / "ur", tmp_path / "unknown.zarr")
    convert(tmp_path / "ur", tmp_path / "chosen.zarr", options={"robot": "interndata_ur5e"})
    assert EpisodeStore.open(tmp_path / "chosen.zarr").embodiment == "ur5e"


def _forget_the_robot(folder: Path) -> None:
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace('"UR5e"', '"mystery"'))


def test_cameras_of_the_hands_have_sides(tmp_path: Path) -> None:
    """A wrist camera of two arms is named by its side."""
    store = write_joint_store(tmp_path / "in.zarr", "panda+panda", cameras=("left_wrist",))
    export(store, tmp_path / "out", format="interndata", options={"cameras": "hand_left=left_wrist"})
    assert (tmp_path / "out" / "videos" / "chunk-000" / "images.rgb.hand_left").is_dir()
    with pytest.raises(DatasetError, match="unknown camera of the set 'hand'"):
        export(store, tmp_path / "no", format="interndata", options={"cameras": "hand=left_wrist"})


def test_what_is_not_published_is_said(tmp_path: Path) -> None:
    """The report names what two arms go without, each column once, and that readers elsewhere do not know the robot."""
    store = write_joint_store(tmp_path / "in.zarr", "panda+panda", action="delta joint position")
    told = "\n".join(export(store, tmp_path / "out", format="interndata").warnings)
    assert "no published set is of this robot; readers other than ours do not know DualFranka" in told
    assert "master_actions.left_joint.position, master_actions.right_joint.position, because" in told
    assert "states.left_ee_to_robot_pose, states.right_ee_to_robot_pose" in told
    shutil.rmtree(tmp_path / "out")
    told = "\n".join(
        export(write_joint_store(tmp_path / "u.zarr", "ur5e"), tmp_path / "out", format="interndata").warnings
    )
    assert "do not know UR5e" in told
