"""Writing RoboMIND 1.x trees: what goes in comes back by the importer, what the layout cannot hold is refused."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX, STATE, Feature
from robot_datasets.importers.robomind_pose import pose_matrices
from robot_datasets.kinematics import PANDA, UR5E
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import tree_digest
from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.robomind import write_robomind
from robot_datasets.testing.scene import assert_scene, depth_frame, scene_frame

POSE = "observation.end_effector"
LENGTHS = (24, 20)
TASKS = ("Pick the cup up!", "pick the cup, up")
SEGMENTS = [Segment(0, 10, "grasp"), Segment(10, 18, "lift", "lift the cup")]
_POSES: dict[str, Callable[[ArmTrajectory], np.ndarray]] = {
    "quat_xyzw": lambda truth: truth.quaternions("xyzw"),
    "quat_wxyz": lambda truth: truth.quaternions("wxyz"),
    "rpy_extrinsic": lambda truth: truth.rpy(),
    "axis_angle": lambda truth: truth.rotation.as_rotvec(),
}


def _truth(episode: int, arm: Any = PANDA) -> ArmTrajectory:
    return arm_trajectory(LENGTHS[episode], seed=episode, arm=arm)


def _write(
    path: Path,
    *,
    robot: str = "panda",
    arm: Any = PANDA,
    rotation: str = "quat_xyzw",
    frame: str = "robot_base",
    polarity: str = "0=closed,0.08=open",
    cameras: tuple[str, ...] = ("agentview",),
    encoding: Literal["jpeg", "png", "raw"] = "jpeg",
    depth: str = "",
    action: str = "delta joint position",
    joints: bool = True,
    tasks: tuple[str, ...] = TASKS,
    success: bool | None = True,
) -> EpisodeStore:
    """Write a store of two episodes of a known arm, as simulated tasks record them."""
    names = (*(f"joint{i}" for i in range(1, len(arm.links) + 1)), "gripper")
    units = (*["rad"] * len(arm.links), "m")
    width = len(_POSES[rotation](_truth(0))[0]) + 3 if rotation else 0
    features = {
        STATE: Feature(
            dtype="float64", shape=(len(names),), names=names if joints else (), units=units, gripper=polarity
        ),
        ACTION: Feature(
            dtype="float64",
            shape=(len(names),),
            names=names,
            units=units,
            gripper="-1=open,1=closed",
            meaning=action,
        ),
    }
    if rotation:
        features[POSE] = Feature(dtype="float64", shape=(width,), frame=frame, rotation=rotation)
    for camera in cameras:
        features[IMAGE_PREFIX + camera] = Feature(dtype="uint8", shape=(32, 48, 3))
        if depth:
            features[DEPTH_PREFIX + camera] = Feature(dtype="uint16", shape=(32, 48, 1), units=("mm",))
    encodings = {IMAGE_PREFIX + camera: encoding for camera in cameras}
    with EpisodeStoreWriter(
        path, features=features, fps=20, embodiment=robot, image_encodings=encodings
    ) as writer:
        for e, n in enumerate(LENGTHS):
            truth = _truth(e, arm)
            data = {
                STATE: np.concatenate([truth.joints, 0.08 * (1 - truth.gripper[:, None])], axis=1),
                ACTION: np.concatenate([truth.joints + 0.01, 2 * truth.gripper[:, None] - 1], axis=1),
            }
            if rotation:
                data[POSE] = np.concatenate([truth.position, _POSES[rotation](truth)], axis=1)
            images: dict[str, Iterable[bytes]] = {
                IMAGE_PREFIX + c: [scene_frame(t, (32, 48), encoding=encoding) for t in range(n)]
                for c in cameras
            }
            if depth:
                images |= {
                    DEPTH_PREFIX + c: [depth_frame(t, (32, 48), metres=depth == "m") for t in range(n)]
                    for c in cameras
                }
            writer.add_episode(
                Episode(
                    f"seed-{e}",
                    data,
                    images,
                    task=tasks[e],
                    success=success,
                    split=("train", "val")[e],
                    segments=list(SEGMENTS),
                )
            )
        writer.publish()
    return EpisodeStore.open(path)


def _back(store: EpisodeStore, tmp_path: Path, convert_with: dict[str, str], **options: str) -> EpisodeStore:
    export(store, tmp_path / "tree", format="robomind", options=options)
    convert(tmp_path / "tree", tmp_path / "back.zarr", options={"fps": "20"} | convert_with)
    return EpisodeStore.open(tmp_path / "back.zarr")


def _rows(store: EpisodeStore, name: str, episode: int) -> np.ndarray:
    return store.column(name)[int(store.episode_starts[episode]) : int(store.episode_ends[episode])]


@pytest.mark.parametrize("rotation", _POSES)
def test_what_goes_in_comes_back(rotation: str, tmp_path: Path) -> None:
    """Joints, closure of the gripper, poses in every convention, words, success and split survive the round trip."""
    store = _write(tmp_path / "in.zarr", rotation=rotation)
    back = _back(store, tmp_path, {"action": "puppet_same"})
    assert back.n_episodes == 2
    assert back.features[POSE].rotation == "rpy_extrinsic"
    for e, n in enumerate(LENGTHS):
        truth, rows = _truth(e), _rows(back, STATE, e)
        assert len(rows) == n
        np.testing.assert_allclose(rows[:, :7], truth.joints, atol=1e-6)
        np.testing.assert_allclose(rows[:, 7], truth.gripper, atol=1e-6)
        pose = _rows(back, POSE, e)
        truth.assert_same_poses(pose[:, :3], Rotation.from_euler("xyz", pose[:, 3:]))
        assert back.tasks[int(back.episodes["task_index"][e])] == TASKS[e]
        assert back.episodes["segments"][e] == [
            Segment(0, 10, "step", "grasp"),
            Segment(10, 18, "step", "lift the cup"),
        ]
    assert list(back.episodes["success"]) == [1, 1]
    assert list(back.episodes["split"]) == ["train", "val"]
    assert back.attributes["source"]["tasks_without_instruction"] == []


def test_jpeg_bytes_and_depth_pass_through(tmp_path: Path) -> None:
    """JPEG and 16-bit depth are not encoded anew on the way, and colours are true."""
    store = _write(tmp_path / "in.zarr", depth="mm")
    back = _back(store, tmp_path, {"action": "puppet_same"})
    for kind in (IMAGE_PREFIX, DEPTH_PREFIX):
        before, after = store.images(kind + "agentview"), back.images(kind + "top")
        assert all(before.encoded(i) == after.encoded(i) for i in range(sum(LENGTHS)))
    assert_scene(back.images(IMAGE_PREFIX + "top").decode([3])[0])


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_other_encodings_become_jpeg_or_stay_exact(encoding: Literal["png", "raw"], tmp_path: Path) -> None:
    """Frames that are no JPEG are within the codec's tolerance as published, and exact with frames=keep."""
    store = _write(tmp_path / "in.zarr", encoding=encoding)
    before = store.images(IMAGE_PREFIX + "agentview").decode([0, 30])
    published = _back(store, tmp_path, {"action": "puppet_same"}).images(IMAGE_PREFIX + "top")
    assert bytes(published.encoded(0)[:3]) == b"\xff\xd8\xff"
    difference = published.decode([0, 30]).astype(int) - before
    assert np.abs(difference).mean() < 3
    (tmp_path / "kept").mkdir()
    kept = _back(store, tmp_path / "kept", {"action": "puppet_same"}, frames="keep")
    np.testing.assert_array_equal(kept.images(IMAGE_PREFIX + "top").decode([0, 30]), before)


def test_commands_become_the_master(tmp_path: Path) -> None:
    """Actions that are absolute joint positions are what the teleoperation device did; three cameras by name."""
    cameras = ("left", "right", "top")
    store = _write(tmp_path / "in.zarr", cameras=cameras, action="absolute joint position")
    back = _back(store, tmp_path, {"action": "master"})
    assert back.attributes["conversion"]["options"]["embodiment"] == "h5_franka_3rgb"
    assert {name.rpartition(".")[2] for name in back.spec.image_features} == set(cameras)
    truth = _truth(1)
    np.testing.assert_allclose(_rows(back, ACTION, 1)[:, :7], truth.joints + 0.01, atol=1e-6)
    np.testing.assert_allclose(_rows(back, ACTION, 1)[:, 7], truth.gripper, atol=1e-6)


@pytest.mark.parametrize(("rotation", "frame"), [("", ""), ("quat_xyzw", "world")])
def test_without_a_pose_in_the_base_the_flange_is_computed(rotation: str, frame: str, tmp_path: Path) -> None:
    """A UR5e whose poses are missing, or in the world, gets its flange by forward kinematics, and is told."""
    store = _write(tmp_path / "in.zarr", robot="ur5e", arm=UR5E, rotation=rotation, frame=frame)
    report = export(store, tmp_path / "told", format="robomind")
    assert any("flange, computed from the joints" in warning for warning in report.warnings)
    pose = _rows(_back(store, tmp_path, {"action": "puppet_same"}), POSE, 0)
    flange = UR5E.flange_poses(_truth(0, UR5E).joints)
    np.testing.assert_allclose(pose_matrices(pose, "rpy_extrinsic"), flange, atol=1e-5)


def test_an_undeclared_gripper_is_written_as_it_is(tmp_path: Path) -> None:
    """Without a polarity nothing is turned round, and the report says so."""
    store = _write(tmp_path / "in.zarr", polarity="")
    report = export(store, tmp_path / "tree", format="robomind")
    assert any("polarity" in warning for warning in report.warnings)
    (file, _) = sorted((tmp_path / "tree").rglob("trajectory.hdf5"))
    with h5py.File(file) as root:
        joints: Any = root["puppet/joint_position"]
        np.testing.assert_allclose(joints[:, 7], 0.08 * (1 - _truth(0).gripper), atol=1e-12)


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ({"success": False}, {}, "2 episodes did not succeed, first episode 0"),
        ({"tasks": ("", "lift")}, {}, "1 episodes have no instruction, first episode 0"),
        ({"cameras": ()}, {}, "no colour camera"),
        ({"joints": False}, {}, "no feature has components joint1 to joint7"),
        ({"robot": "iiwa"}, {}, "robot 'iiwa'; there are layouts for panda"),
        ({"cameras": ("front", "side")}, {}, "say which is which with --option cameras=top=front"),
        ({"depth": "m"}, {}, "has nothing beyond 100 mm"),
        ({}, {"cameras": "top=agentveiw"}, "did you mean 'agentview'"),
        ({}, {"cameras": "agentview"}, "expected CAMERA_OF_THE_LAYOUT=CAMERA_OF_THE_STORE"),
        ({}, {"layout": "h5_ur_1rgb"}, "no feature has components joint1 to joint6"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(
    how: dict[str, Any], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Each with what was found and what to do; nothing is left behind."""
    store = _write(tmp_path / "in.zarr", **how)
    with pytest.raises(DatasetError, match=message):
        export(store, tmp_path / "tree", format="robomind", options=options)
    assert not (tmp_path / "tree").exists()


def test_cameras_are_chosen_by_name(tmp_path: Path) -> None:
    """Of two cameras the one that is named becomes the layout's; the other is reported as left out."""
    store = _write(tmp_path / "in.zarr", cameras=("front", "side"))
    report = export(store, tmp_path / "t", format="robomind", options={"cameras": "top=side"})
    assert any("left out: observation.images.front" in warning for warning in report.warnings)


def test_tree_is_as_published_and_the_same_each_time(tmp_path: Path) -> None:
    """Folders of instructions that look alike stay apart, names are recorded, and bytes depend on the store alone."""
    store = _write(tmp_path / "in.zarr")
    for name in ("a", "b"):
        report = export(store, tmp_path / name, format="robomind")
    assert any("--option fps=20" in warning for warning in report.warnings)
    files = [p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*.hdf5")]
    assert sorted(files) == [
        "h5_franka_1rgb/pick_the_cup_up/success_episodes/train/000000/data/trajectory.hdf5",
        "h5_franka_1rgb/pick_the_cup_up_2/success_episodes/val/000001/data/trajectory.hdf5",
    ]
    record = json.loads((tmp_path / "a" / "robot_policies.json").read_text())
    assert list(record["episodes"].values()) == ["seed-0", "seed-1"]
    assert tree_digest(tmp_path / "a") == tree_digest(tmp_path / "b")


def test_downloaded_trees_are_never_replaced(tmp_path: Path) -> None:
    """Only what this exporter wrote is overwritten."""
    store = _write(tmp_path / "in.zarr")
    for _ in range(2):
        export(store, tmp_path / "tree", format="robomind", overwrite=True)
    write_robomind(tmp_path / "theirs")
    with pytest.raises(DatasetError, match="not a dataset of this format"):
        export(store, tmp_path / "theirs", format="robomind", overwrite=True)
