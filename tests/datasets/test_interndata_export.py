"""Writing InternData-A1 sets: what goes in comes back by the importer, what the columns cannot hold is refused."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.kinematics import PANDA, pose_errors
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import tree_digest
from robot_datasets.testing.arm import ArmTrajectory, arm_trajectory
from robot_datasets.testing.interndata import write_interndata_set
from robot_datasets.testing.scene import assert_scene, scene_frame

LENGTHS = (10, 7)
TASKS = ("pick the cup up", "put the cup down")
SEGMENTS = [Segment(0, 4, "grasp"), Segment(4, 6, "lift", "lift the cup")]
JOINTS = tuple(f"joint{i}" for i in range(1, 8))
UNITS = ("rad",) * 7


def _share(truth: ArmTrajectory) -> np.ndarray:
    return 1 - truth.gripper


def _truth(episode: int) -> ArmTrajectory:
    return arm_trajectory(LENGTHS[episode], seed=episode)


def _write(
    path: Path,
    *,
    robot: str = "panda",
    polarity: str = "0=closed,1=open",
    unit: str = "1",
    opening: Callable[[ArmTrajectory], np.ndarray] = _share,
    action: str = "absolute joint position",
    told: str = "-1=open,1=closed",
    cameras: tuple[str, ...] = ("agentview",),
    size: tuple[int, int] = (32, 48),
    joints: bool = True,
    success: bool | None = True,
) -> EpisodeStore:
    """Write a store of two episodes of a known arm, float32, as simulated tasks record them."""
    names = (*JOINTS, "gripper")
    shape = {"dtype": "float32", "shape": (8,)}
    features = {
        STATE: Feature(**shape, names=names if joints else (), units=(*UNITS, unit), gripper=polarity),
        ACTION: Feature(**shape, names=names, units=(*UNITS, "1"), gripper=told, meaning=action),
        "observation.end_effector": Feature(dtype="float32", shape=(3,), frame="robot_base"),
    }
    features |= {IMAGE_PREFIX + camera: Feature(dtype="uint8", shape=(*size, 3)) for camera in cameras}
    with EpisodeStoreWriter(path, features=features, fps=20, embodiment=robot) as writer:
        for e, n in enumerate(LENGTHS):
            truth = _truth(e)
            data = {
                STATE: np.concatenate([truth.joints, opening(truth)[:, None]], axis=1),
                ACTION: np.concatenate([truth.joints + 0.01, np.sign(truth.gripper - 0.4)[:, None]], axis=1),
                "observation.end_effector": truth.position,
            }
            images: dict[str, Iterable[bytes]] = {
                IMAGE_PREFIX + camera: [scene_frame(t, size, encoding="png") for t in range(n)]
                for camera in cameras
            }
            episode = Episode(f"seed-{e}", {k: v.astype(np.float32) for k, v in data.items()}, images)
            episode.task, episode.success, episode.split = TASKS[e], success, ("train", "val")[e]
            episode.segments = list(SEGMENTS)
            writer.add_episode(episode)
        writer.publish()
    return EpisodeStore.open(path)


def _back(store: EpisodeStore, tmp_path: Path, action: str = "", **options: str) -> EpisodeStore:
    export(store, tmp_path / "out", format="interndata", options=options, overwrite=True)
    convert(tmp_path / "out", tmp_path / "back.zarr", options={"action": action}, overwrite=True)
    return EpisodeStore.open(tmp_path / "back.zarr")


def _rows(store: EpisodeStore, name: str, episode: int) -> np.ndarray:
    return store.column(name)[int(store.episode_starts[episode]) : int(store.episode_ends[episode])]


def _columns(folder: Path) -> dict[str, Any]:
    """Return the columns of numbers of the first episode."""
    table = pq.read_table(folder / "data" / "chunk-000" / "episode_000000.parquet")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


@pytest.mark.parametrize(
    ("robot", "embodiment", "gripper"),
    [
        ("panda", "franka", lambda truth: 0.08 * _share(truth)),
        ("panda_robotiq_85", "franka_robotiq", lambda truth: _share(truth) >= 0.5),
        ("panda+robotiq_85", "franka_robotiq", lambda truth: _share(truth) >= 0.5),
    ],
)
def test_what_goes_in_comes_back(robot: str, embodiment: str, gripper: Any, tmp_path: Path) -> None:
    """Joints to the bit, the gripper in the robot's own terms, the next state as action, labels and boundaries."""
    store = _write(tmp_path / "in.zarr", robot=robot)
    back = _back(store, tmp_path)
    assert (back.embodiment, back.fps, back.tasks) == (embodiment, 20.0, list(TASKS))
    assert back.features[STATE].units == (*UNITS, "m" if robot == "panda" else "1")
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    np.testing.assert_array_equal(back.column(STATE)[:, :7], store.column(STATE)[:, :7])
    for e in range(2):
        state = _rows(back, STATE, e)
        np.testing.assert_allclose(state[:, 7], gripper(_truth(e)), atol=1e-7)
        np.testing.assert_array_equal(_rows(back, ACTION, e), np.concatenate([state[1:], state[-1:]]))
        assert back.tasks[int(back.episodes["task_index"][e])] == TASKS[e]
        assert back.episodes["segments"][e] == SEGMENTS
    assert list(back.episodes["success"]) == [1, 1]
    assert list(back.episodes["split"]) == ["train", "val"]
    assert back.attributes["source"]["warnings"] == []
    assert back.warnings == {}


@pytest.mark.parametrize(("robot", "turn", "tcp"), [("panda", -45, 0.095), ("panda_robotiq_85", 0, 0.145)])
def test_poses_follow_from_the_joints(robot: str, turn: float, tcp: float, tmp_path: Path) -> None:
    """Flange, end effector and tool centre point are where the published converters put them, w first."""
    back = _back(_write(tmp_path / "in.zarr", robot=robot), tmp_path)
    flange = PANDA.flange_poses(np.concatenate([_truth(0).joints, _truth(1).joints]))
    hand = np.eye(4)
    hand[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    tool = hand.copy()
    tool[2, 3] = tcp
    for where, frame in (("", "robot_base"), ("_in_arm_base", "arm_base")):
        for name, offset in ((f"ee_pose{where}", hand), (f"tcp_pose{where}", tool)):
            feature = back.features[f"observation.{name}"]
            assert (feature.frame, feature.rotation) == (frame, "quat_wxyz")
            pose = back.column(f"observation.{name}").astype(float)
            _assert_poses(pose, Rotation.from_quat(np.roll(pose[:, 3:], -1, axis=1)), flange @ offset)
    pose = back.column("observation.gripper_pose").astype(float)
    _assert_poses(pose, Rotation.from_euler("xyz", pose[:, 3:]), flange)
    action = _back(_write(tmp_path / "b.zarr", robot=robot), tmp_path, "next_tcp_pose").column(ACTION)
    np.testing.assert_array_equal(
        action[: LENGTHS[0] - 1, :7], back.column("observation.tcp_pose")[1 : LENGTHS[0]]
    )


def _assert_poses(pose: np.ndarray, turn: Rotation, expected: np.ndarray) -> None:
    found = np.tile(np.eye(4), (len(pose), 1, 1))
    found[:, :3, 3], found[:, :3, :3] = pose[:, :3], turn.as_matrix()
    distance, angle = pose_errors(found, expected)
    assert max(distance.max(), angle.max()) < 1e-5


def test_commands_are_the_master(tmp_path: Path) -> None:
    """Absolute joint positions and the gripper's command, 1 = open, whatever its polarity in the store."""
    store = _write(tmp_path / "in.zarr")
    action = _back(store, tmp_path, "command").column(ACTION)
    np.testing.assert_array_equal(action[:, :7], store.column(ACTION)[:, :7])
    np.testing.assert_array_equal(action[:, 7], store.column(ACTION)[:, 7] < 0)


def test_of_other_actions_only_the_gripper_is_a_command(tmp_path: Path) -> None:
    """Changes of joints are no commanded positions: the columns are left out, not made up, and the report says so."""
    store = _write(tmp_path / "in.zarr", action="delta joint position")
    back = _back(store, tmp_path, "next_state_openness")
    np.testing.assert_array_equal(back.column(ACTION)[:, 7], store.column(ACTION)[:, 7] < 0)
    columns = _columns(tmp_path / "out")
    assert "master_actions.joint.position" not in columns
    np.testing.assert_array_equal(
        columns["actions.gripper.openness"], columns["master_actions.gripper.openness"]
    )
    report = export(store, tmp_path / "told", format="interndata")
    assert any("no commanded joint positions" in warning for warning in report.warnings)
    assert any(f"action ({', '.join(JOINTS)})" in warning for warning in report.warnings)


@pytest.mark.parametrize("how", [{"action": "puppet_next", "told": "0=closed,1=open"}, {"told": ""}])
def test_no_openness_without_a_command(how: dict[str, Any], tmp_path: Path) -> None:
    """A recorded state under the name of an action is no command, nor is a gripper of unknown polarity."""
    report = export(_write(tmp_path / "in.zarr", **how), tmp_path / "out", format="interndata")
    assert any("gripper.openness, because" in warning for warning in report.warnings)
    assert not any("openness" in name for name in _columns(tmp_path / "out"))


def test_commands_between_open_and_closed_are_counted(tmp_path: Path) -> None:
    """Openness is binary; what is rounded is reported with its number."""
    report = export(
        _write(tmp_path / "in.zarr", told="-2=open,2=closed"), tmp_path / "o", format="interndata"
    )
    assert any(f"{sum(LENGTHS)} commands between open and closed" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("polarity", "unit", "opening"),
    [
        ("0=open,1=closed", "1", lambda truth: truth.gripper),
        ("0=closed,0.08=open", "m", lambda truth: 0.08 * _share(truth)),
        ("0=closed,0.04=open", "m", lambda truth: 0.04 * _share(truth)),
        ("0=closed,1=open", "m", lambda truth: 0.08 * _share(truth)),
    ],
)
def test_every_declared_gripper_becomes_an_opening_in_metres(
    polarity: str, unit: str, opening: Any, tmp_path: Path
) -> None:
    """A share, either way round, the opening, the way of one finger, and metres whose polarity is a direction only."""
    store = _write(tmp_path / "in.zarr", polarity=polarity, unit=unit, opening=opening)
    export(store, tmp_path / "out", format="interndata")
    width = _columns(tmp_path / "out")["states.gripper.position"]
    np.testing.assert_allclose(width, 0.08 * _share(_truth(0)), atol=1e-7)


def test_cameras_are_named_head_and_hand(tmp_path: Path) -> None:
    """By name, by the option, or the only one as head; frames keep their order and colours, others are reported."""
    for name, cameras, option in (
        ("only", ("agentview",), ""),
        ("named", ("hand", "head", "side"), ""),
        ("chosen", ("front", "wrist"), "hand=wrist,head=front"),
    ):
        (tmp_path / name).mkdir()
        store = _write(tmp_path / name / "in.zarr", cameras=cameras)
        back = _back(store, tmp_path / name, cameras=option)
        expected = ("head",) if name == "only" else ("hand", "head")
        assert back.spec.image_features == [IMAGE_PREFIX + camera for camera in expected]
        assert_scene(back.images(IMAGE_PREFIX + expected[0]).decode([3])[0])
        before = store.images(store.spec.image_features[0]).decode([3, 12]).astype(int)
        assert np.abs(back.images(IMAGE_PREFIX + expected[0]).decode([3, 12]) - before).mean() < 4
    store = EpisodeStore.open(tmp_path / "named" / "in.zarr")
    report = export(store, tmp_path / "told", format="interndata")
    assert any("observation.images.side" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        (
            {"robot": "iiwa"},
            {},
            "robot 'iiwa'; sets in InternData-A1's layout are written of Pandas and UR5e .*interndata_franka: panda",
        ),
        ({"robot": "ur5e+ur5e"}, {}, "--option robot=interndata_franka"),
        ({"robot": "panda+panda"}, {}, "no feature has components left_joint1 to left_joint7"),
        ({"robot": "ur5e"}, {}, "no feature has components joint1 to joint6"),
        ({"joints": False}, {}, "no feature has components joint1 to joint7"),
        ({"polarity": ""}, {}, "does not declare the gripper's polarity"),
        ({"polarity": "1=closed,0=open", "unit": "m"}, {}, "expected an opening, 0=closed"),
        ({"cameras": ()}, {}, "no colour camera"),
        ({"cameras": ("front", "side")}, {}, "say which is which with --option cameras=head=front"),
        ({"size": (31, 48)}, {}, "31x48 px, the videos of a set need even sizes"),
        ({}, {"cameras": "haed=agentview"}, "did you mean 'head'"),
        ({}, {"cameras": "head=agentveiw"}, "did you mean 'agentview'"),
        ({}, {"robot": "interndata_genie1"}, "unknown value of option robot"),
    ],
)
def test_what_a_set_cannot_hold_is_refused(
    how: dict[str, Any], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Each with what was found and what to do; nothing is left behind."""
    store = _write(tmp_path / "in.zarr", **how)
    with pytest.raises(DatasetError, match=message):
        export(store, tmp_path / "out", format="interndata", options=options)
    assert not (tmp_path / "out").exists()


def test_the_robot_can_be_told(tmp_path: Path) -> None:
    """A store of another name is written as the robot that is chosen."""
    back = _back(_write(tmp_path / "in.zarr", robot="emika"), tmp_path, robot="interndata_franka")
    assert back.embodiment == "franka"


def test_what_is_lost_or_computed_is_reported(tmp_path: Path) -> None:
    """Features without a place, computed poses, columns of published sets that nobody knows, and failures."""
    report = export(_write(tmp_path / "in.zarr", success=False), tmp_path / "out", format="interndata")
    told = "\n".join(report.warnings)
    assert "left out: observation.end_effector" in told
    assert "computed from the joints: states.gripper.pose, states.ee_to_robot_pose" in told
    assert "does not know them: states.robot_to_env_pose, head_camera_intrinsics" in told
    assert "2 episodes did not succeed" in told


def test_files_are_as_published(tmp_path: Path) -> None:
    """LeRobot v2.1 with the published names, types and statistics of columns, cameras and robot."""
    export(_write(tmp_path / "in.zarr"), tmp_path / "out", format="interndata")
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v2.1", "Franka", 20)
    pose = info["features"]["states.ee_to_robot_pose"]
    assert (pose["dtype"], pose["names"][2:4]) == ("float32", ["position.z", "quaternion.w"])
    assert info["features"]["states.joint.position"]["names"] == [f"joint_{i}" for i in range(7)]
    assert info["features"]["images.rgb.head"]["dtype"] == "video"
    assert (tmp_path / "out" / "videos" / "chunk-000" / "images.rgb.head" / "episode_000001.mp4").is_file()
    lines = (tmp_path / "out" / "meta" / "episodes_stats.jsonl").read_text().splitlines()
    stats = json.loads(lines[0])["stats"]
    columns = _columns(tmp_path / "out")
    np.testing.assert_allclose(
        stats["actions.joint.position"]["max"], columns["actions.joint.position"].max(axis=0)
    )
    assert np.shape(stats["images.rgb.head"]["mean"]) == (3, 1, 1)
    assert 0 < np.min(stats["images.rgb.head"]["mean"]) <= np.max(stats["images.rgb.head"]["mean"]) <= 1


@pytest.mark.parametrize("robot", ["franka", "franka_robotiq"])
def test_sets_that_were_read_are_written_as_they_were(robot: str, tmp_path: Path) -> None:
    """Poses and camera parameters that a store has under our importer's names are passed on, not computed anew."""
    write_interndata_set(tmp_path / "theirs", robot)
    convert(tmp_path / "theirs", tmp_path / "in.zarr", options={"action": "command"})
    store = EpisodeStore.open(tmp_path / "in.zarr")
    back = _back(store, tmp_path, "command")
    assert back.spec.low_dim == store.spec.low_dim
    for name in store.spec.low_dim:
        assert back.features[name] == store.features[name]
        np.testing.assert_array_equal(back.column(name), store.column(name))


def test_downloaded_sets_are_never_replaced(tmp_path: Path) -> None:
    """Only what this exporter wrote is overwritten, and the same bytes come each time."""
    store, digests = _write(tmp_path / "in.zarr"), []
    for _ in range(2):
        export(store, tmp_path / "out", format="interndata", overwrite=True)
        digests.append(tree_digest(tmp_path / "out"))
    assert digests[0] == digests[1]
    write_interndata_set(tmp_path / "theirs")
    export(store, tmp_path / "lerobot", format="lerobot-v2.1")
    for name in ("theirs", "lerobot"):
        with pytest.raises(DatasetError, match="not a dataset of this format"):
            export(store, tmp_path / name, format="interndata", overwrite=True)
