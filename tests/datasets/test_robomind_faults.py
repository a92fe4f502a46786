"""Faults that RoboMIND 1.x is known for: frozen poses and joints, streams of different rates, and what is done."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE
from robot_datasets.importers.base import Plan, Rejected, resolve_options
from robot_datasets.importers.robomind_clock import camera_clock, length_warnings_of
from robot_datasets.importers.robomind_hdf5 import RoboMindHdf5
from robot_datasets.importers.robomind_quality import frozen_pose
from robot_datasets.testing.arm import TOOL
from robot_datasets.testing.robomind import write_robomind

POSE = "observation.end_effector"


def _read(root: Path, **options: str) -> tuple[Plan, dict[str, Episode]]:
    importer = RoboMindHdf5()
    plan = importer.plan(root, resolve_options(importer, {"depth": "drop", "min_steps": "0"} | options))
    episodes = {}
    for result in importer.episodes(plan, plan.refs):
        assert isinstance(result, Episode), result
        result.images = {name: list(frames) for name, frames in result.images.items()}
        episodes[result.source_id.rpartition("/")[2]] = result
    return plan, episodes


@pytest.mark.parametrize("folder", ["h5_ur_1rgb", "h5_franka_fr3_dual", "h5_agilex_3rgb", "h5_simulation"])
@pytest.mark.parametrize("fault", ["frozen_pose", "stuck_pose"])
def test_a_pose_that_stands_still_while_joints_move_is_reported(
    folder: str, fault: str, tmp_path: Path
) -> None:
    """The official test (nothing leaves 1e-3), and one for poses that freeze midway; healthy ones are left alone."""
    write_robomind(tmp_path, folder, episode="healthy", n_steps=30, depth=False)
    write_robomind(tmp_path, folder, episode="bad", n_steps=30, depth=False, faults={fault})
    _, episodes = _read(tmp_path)
    assert episodes["healthy"].warnings == []
    told = episodes["bad"].warnings
    assert len(told) == (2 if folder in ("h5_franka_fr3_dual", "h5_agilex_3rgb") else 1)
    assert all(text.startswith(POSE) and "end_effector=repair" in text for text in told)


def test_an_arm_at_rest_is_no_fault() -> None:
    """A pose that stands still with its joints is what a resting arm looks like."""
    joints, pose = np.zeros((50, 7)), np.zeros((50, 6))
    assert not frozen_pose(joints, pose)
    assert not frozen_pose(joints[:1], pose[:1])
    joints[:, 3] = np.linspace(0, 0.5, 50)
    assert frozen_pose(joints, pose) == "does not move while joints move by up to 0.50 rad"


@pytest.mark.parametrize("folder", ["h5_ur_1rgb", "h5_franka_1rgb", "h5_franka_fr3_dual", "h5_simulation"])
def test_frozen_poses_are_recomputed_from_the_joints(folder: str, tmp_path: Path) -> None:
    """The unknown tool is estimated from healthy episodes; the repaired poses are the arm's true ones."""
    write_robomind(tmp_path, folder, episode="healthy", n_steps=40, depth=False, seed=1)
    frozen = write_robomind(
        tmp_path, folder, episode="frozen", n_steps=40, depth=False, seed=2, faults={"frozen_pose"}
    )
    plan, episodes = _read(tmp_path, end_effector="repair", action="puppet_same")
    sides = ("",) if len(frozen.arms) == 1 else ("left_", "right_")
    for side, arm in zip(sides, frozen.arms, strict=True):
        columns = [i for i, name in enumerate(plan.features[POSE].names) if name.startswith(side)]
        pose = episodes["frozen"].data[POSE][:, columns]
        rows = np.round(np.linspace(0, len(arm) - 1, len(pose))).astype(int)
        turn = (
            Rotation.from_euler("xyz", pose[:, 3:])
            if plan.features[POSE].rotation == "rpy_extrinsic"
            else Rotation.from_quat(pose[:, 3:])
        )
        arm.at(rows).assert_same_poses(pose[:, :3], turn, atol=1e-6)
    assert "recomputed from the joints" in episodes["frozen"].warnings[0]
    facts = plan.notes["end_effector_from_joints"]
    assert facts["healthy_episodes"] == 1
    np.testing.assert_allclose(facts["offsets"][0]["tool_xyz_rpy"][:3], TOOL[0], atol=1e-6)
    assert facts["offsets"][0]["position_error_m"] < 1e-6


def test_all_poses_can_be_recomputed(tmp_path: Path) -> None:
    """With end_effector=fk healthy poses are recomputed too, and agree with the recorded ones."""
    write_robomind(tmp_path, episode="a", n_steps=30, depth=False)
    _, recorded = _read(tmp_path)
    _, computed = _read(tmp_path, end_effector="fk")
    assert not np.array_equal(computed["a"].data[POSE], recorded["a"].data[POSE])
    np.testing.assert_allclose(computed["a"].data[POSE], recorded["a"].data[POSE], atol=1e-9)


def test_a_tool_can_be_given(tmp_path: Path) -> None:
    """Numbers of the user replace the estimate; the flange itself is a choice as well, and the store says which."""
    written = write_robomind(
        tmp_path, "h5_ur_1rgb", episode="a", n_steps=30, depth=False, faults={"frozen_pose"}
    )
    angles = Rotation.from_rotvec(TOOL[1]).as_euler("xyz")
    tool = ",".join(str(float(v)) for v in [*TOOL[0], *angles])
    plan, episodes = _read(tmp_path, end_effector="repair", tool=tool)
    np.testing.assert_allclose(episodes["a"].data[POSE][:, :3], written.arms[0].position[:-1], atol=1e-6)
    assert plan.options["tool"] == tool
    _, episodes = _read(tmp_path, end_effector="repair", tool="flange")
    distance = np.linalg.norm(episodes["a"].data[POSE][:, :3] - written.arms[0].position[:-1], axis=1)
    np.testing.assert_allclose(distance, np.linalg.norm(TOOL[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "faults", "options", "message"),
    [
        ("h5_ur_1rgb", {"frozen_pose"}, {}, "no episode with healthy poses was found"),
        (
            "h5_ur_1rgb",
            set(),
            {"tool": "0,0,0.1"},
            "option tool is '0,0,0.1'; expected estimate, flange, or x,y,z",
        ),
        ("h5_agilex_3rgb", set(), {}, "known for franka, .*, not for agilex"),
        ("h5_tienkung_xsens_1rgb", set(), {}, "not for tienkung"),
    ],
)
def test_poses_that_cannot_be_recomputed_are_an_error(
    folder: str, faults: set[str], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Nothing is guessed: without kinematics, or with an unknown tool, the remedy is named."""
    write_robomind(tmp_path, folder, n_steps=20, depth=False, faults=faults)
    with pytest.raises(DatasetError, match=message):
        _read(tmp_path, end_effector="repair", **options)


def test_poses_that_contradict_the_joints_are_an_error(tmp_path: Path) -> None:
    """A tool is not estimated from poses that no constant offset explains, such as another Euler convention."""
    written = write_robomind(tmp_path, n_steps=30, depth=False)
    with h5py.File(written.path, "r+") as file:
        pose: Any = file["puppet/end_effector"]
        pose[:, 3:] = written.arms[0].rotation.as_euler("XYZ")
    with pytest.raises(DatasetError, match="do not follow from the joints of a panda"):
        _read(tmp_path, end_effector="fk")


def test_frozen_joints_are_reported_with_what_the_video_does(tmp_path: Path) -> None:
    """Some UR episodes have frozen joints while the video moves; a scene at rest is told apart."""
    write_robomind(
        tmp_path,
        "h5_ur_1rgb",
        episode="moves",
        n_steps=70,
        depth=False,
        size=(64, 96),
        faults={"frozen_joints"},
    )
    written = write_robomind(
        tmp_path,
        "h5_ur_1rgb",
        episode="rests",
        n_steps=70,
        depth=False,
        size=(64, 96),
        faults={"frozen_joints"},
    )
    with h5py.File(written.path, "r+") as file:
        frames: Any = file["observations/rgb_images/camera_top"]
        for step in range(70):
            frames[step] = frames[0]
    _, episodes = _read(tmp_path)
    assert "no joint moves in 69 steps, though the video does" in episodes["moves"].warnings[0]
    assert "nor does the video much" in episodes["rests"].warnings[0]


def test_simulated_streams_are_brought_to_the_clock_of_the_frames(tmp_path: Path) -> None:
    """States come at 4.25 times the rate of frames: zipped, the last frame would get a state of the first quarter."""
    written = write_robomind(tmp_path, "h5_sim_franka_3rgb", episode="a", n_steps=40, depth=False)
    with h5py.File(written.path) as file:
        states: Any = file["franka/joint_position"]
        states = states[:]
    assert len(states) == 170
    plan, episodes = _read(tmp_path, action="puppet_same")
    assert episodes["a"].n_steps == 40
    np.testing.assert_array_equal(episodes["a"].data[STATE][[0, -1]], states[[0, -1]])
    np.testing.assert_array_equal(episodes["a"].data[STATE][20], states[round(20 * 169 / 39)])
    assert (plan.fps, plan.options["alignment"], plan.options["resampling"]) == (30.0, "span", "nearest")
    _, episodes = _read(tmp_path, action="puppet_same", alignment="start")
    np.testing.assert_array_equal(episodes["a"].data[STATE], states[: 4 * 40 : 4])
    _, episodes = _read(tmp_path, action="puppet_same", resampling="latest_before")
    np.testing.assert_array_equal(episodes["a"].data[STATE][20], states[math.floor(20 * 169 / 39)])


def test_simulated_arrays_of_slightly_different_lengths_agree(tmp_path: Path) -> None:
    """The Tien Kung's arrays differ by a row or two; each covers the same time, and depth has a length of its own."""
    written = write_robomind(tmp_path, "h5_sim_tienkung_1rgb", episode="a", n_steps=60)
    importer = RoboMindHdf5()
    plan = importer.plan(tmp_path, resolve_options(importer, {"action": "puppet_same", "min_steps": "0"}))
    results = importer.episodes(plan, plan.refs)
    episode = next(results)
    assert isinstance(episode, Episode)
    assert {len(list(frames)) for frames in episode.images.values()} == {episode.n_steps} == {60}
    names = plan.features[STATE].names
    left, effort = episode.data[STATE][:, names.index("left_joint1")], episode.data["observation.arm_effort"]
    two_rows = 2 * np.abs(np.diff(written.arms[0].joints[:, 0])).max()
    assert np.abs(effort[:, 0] / 2 - left).max() < two_rows < np.ptp(left) / 2


def test_the_rate_of_a_simulated_recording_is_measured(tmp_path: Path) -> None:
    """sim_time_seq gives the rate; without it the assumed one is used, and said; a pause in it is reported."""
    write_robomind(
        tmp_path / "a", "h5_simulation", episode="a", n_steps=20, depth=False, faults={"no_sim_time"}
    )
    plan, episodes = _read(tmp_path / "a")
    assert (plan.fps, plan.notes["rate"]) == (30.0, "assumed")
    assert "sim_time_seq is missing" in episodes["a"].warnings[0]
    write_robomind(
        tmp_path / "b", "h5_simulation", episode="b", n_steps=20, depth=False, faults={"uneven_clock"}
    )
    _, episodes = _read(tmp_path / "b", fps="30")
    assert any(
        "the longest time between two frames is 16.0 times the median" in t for t in episodes["b"].warnings
    )
    assert any("frames come at" in t and "30 Hz" in t for t in episodes["b"].warnings)


@pytest.mark.parametrize(
    "times", [None, np.zeros(0), np.zeros(9), np.array([0, 1, np.nan]), np.array([3.0, 1, 2])]
)
def test_a_clock_that_tells_nothing_is_replaced(times: np.ndarray | None) -> None:
    """Missing, standing, broken and backward clocks give evenly spaced frames at the assumed rate."""
    clock = camera_clock(3, times, 10.0)
    np.testing.assert_allclose(clock.times, [0, 0.1, 0.2])
    assert not clock.measured


def test_an_array_that_ends_early_is_no_source_for_late_frames() -> None:
    """With alignment=start a stream that stops long before the frames is refused, not stretched in silence."""
    clock = camera_clock(100, None, 30.0)
    assert clock.rows(400, "start", "nearest", "x")[-1] == 396
    with pytest.raises(EpisodeError, match="x: its 60 rows end"):
        clock.rows(60, "start", "nearest", "x")
    assert clock.rows(60, "span", "nearest", "x")[-1] == 59
    with pytest.raises(EpisodeError, match="0 rows"):
        clock.rows(0, "span", "nearest", "x")


def test_simulated_arrays_that_cannot_cover_the_same_time_are_refused(tmp_path: Path) -> None:
    """A row or two, and some frames of depth, are what the simulator loses; three times the rows are another thing."""
    documented = {"left": 1436, "vel": 1437, "effort": 1438}
    assert length_warnings_of(documented, 1437, 0.01) == [
        "effort: 1438 rows where 1437 are usual; brought to the clock of the frames"
    ]
    assert length_warnings_of({"depth": 1363, "rgb": 1140}, 1140, 0.3)
    assert length_warnings_of({"a": 720, "b": 720}, 720, 0.01) == []
    with pytest.raises(EpisodeError, match="b 240, where 720 are usual"):
        length_warnings_of({"a": 720, "b": 240}, 720, 0.01)
    written = write_robomind(tmp_path, "h5_simulation", episode="a", n_steps=20, depth=False)
    with h5py.File(written.path, "r+") as file:
        velocity: Any = file["franka/joint_velocity"]
        values = velocity[:40]
        del file["franka/joint_velocity"]
        file["franka/joint_velocity"] = values
    importer = RoboMindHdf5()
    plan = importer.plan(tmp_path, resolve_options(importer, {}))
    (result,) = importer.episodes(plan, plan.refs)
    assert isinstance(result, Rejected)
    assert "franka/joint_velocity 40, where 85 are usual" in result.reason


def test_real_robots_are_never_resampled(tmp_path: Path) -> None:
    """For a real robot arrays of different lengths are damage."""
    write_robomind(tmp_path, episode="a", n_steps=8, depth=False, faults={"mixed_lengths"})
    importer = RoboMindHdf5()
    plan = importer.plan(tmp_path, resolve_options(importer, {"alignment": "span"}))
    (result,) = importer.episodes(plan, plan.refs)
    assert isinstance(result, Rejected)
    assert "differ in length" in result.reason


def test_an_array_that_is_claimed_but_not_stored_is_not_made_up_in_memory(tmp_path: Path) -> None:
    """Ten million rows of which nothing is in the file are refused by their header; the other episode is read."""
    for name in ("healthy", "hollow"):
        write_robomind(tmp_path, "h5_franka_1rgb", episode=name, n_steps=6, depth=False)
    with h5py.File(next(tmp_path.rglob("hollow/data/trajectory.hdf5")), "r+") as file:
        del file["puppet/joint_position"]
        file.create_dataset("puppet/joint_position", (10_000_000, 8), np.float64, chunks=(1024, 8))
    importer = RoboMindHdf5()
    plan = importer.plan(tmp_path, resolve_options(importer, {"depth": "drop", "min_steps": "0"}))
    refused = [
        result
        for result in (*plan.rejected, *importer.episodes(plan, plan.refs))
        if isinstance(result, Rejected)
    ]
    assert [result.source_id.rpartition("/")[2] for result in refused] == ["hollow"]
    assert "but 0 bytes of it are stored" in refused[0].reason
