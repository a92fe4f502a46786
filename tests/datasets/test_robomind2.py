"""The importer of RoboMIND 2.0, on trees synthesised to the published layouts."""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE
from robot_datasets.image_codec import JPEG_BGR, decode_frame
from robot_datasets.importers import detect_importer
from robot_datasets.importers.base import Importer, Plan, Rejected, resolve_options
from robot_datasets.importers.robomind2_hdf5 import RoboMind2Hdf5
from robot_datasets.importers.robomind2_times import frame_rate, interventions, median_rate
from robot_datasets.importers.robomind_hdf5 import RoboMindHdf5
from robot_datasets.schemas import schemas_of
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.robomind import write_robomind
from robot_datasets.testing.robomind2 import LAYOUTS, write_robomind2
from robot_datasets.testing.scene import assert_scene

POSE = "observation.end_effector"
LONG: dict[str, Any] = {"n_steps": 60, "cameras": 1, "depth": False}
"""Long enough to measure the rate of the slow robots."""


class TestUr(ImporterTests):
    options = {"depth": "drop", "cameras": "front"}  # noqa: RUF012

    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMind2Hdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for index in range(3):
            write_robomind2(tmp_path / "r", "ur", stamp=f"{index}", seed=index, **LONG)
        write_robomind2(tmp_path / "r", "ur", stamp="3", faults={"skeleton"})
        return tmp_path / "r"


def _read(root: Path, **options: str) -> tuple[Plan, dict[str, Episode | Rejected]]:
    importer = RoboMind2Hdf5()
    plan = importer.plan(root, resolve_options(importer, {"min_steps": "0"} | options))
    results: dict[str, Episode | Rejected] = {}
    for result in importer.episodes(plan, plan.refs):
        if isinstance(result, Episode):
            result.images = {name: list(frames) for name, frames in result.images.items()}
        results[result.source_id.rpartition("/")[2]] = result
    return plan, results


def _read_one(root: Path, **options: str) -> tuple[Plan, Episode]:
    plan, results = _read(root, **options)
    (episode,) = results.values()
    assert isinstance(episode, Episode), episode
    return plan, episode


def test_there_is_a_schema_for_every_embodiment() -> None:
    """The twelve embodiments of the release, each selected by its folder."""
    assert {label for schema in schemas_of("robomind2") for label in schema.labels} == set(LAYOUTS)


@pytest.mark.parametrize("embodiment", list(LAYOUTS))
def test_every_embodiment_converts(embodiment: str, tmp_path: Path) -> None:
    """Rate measured, colours right and bytes untouched, joints and poses those of the known arms."""
    n_steps = 60 if LAYOUTS[embodiment].rate < 20 else 230
    written = write_robomind2(tmp_path, embodiment, n_steps=n_steps, cameras=1, depth=embodiment == "agilex")
    plan, episode = _read_one(tmp_path, cameras=written.cameras[0], action="puppet_same")
    assert plan.fps == pytest.approx(LAYOUTS[embodiment].rate, rel=0.02)
    (camera,) = [name for name in plan.features if name.startswith("observation.images.")]
    with h5py.File(written.path) as file:
        source: Any = file[f"camera_observations/color_images/camera_{written.cameras[0]}"]
        assert episode.images[camera] == [frame.tobytes() for frame in source[:]]
    frames: Any = episode.images[camera]
    assert_scene(decode_frame(frames[3], swapped=plan.image_encodings[camera] == JPEG_BGR))
    assert plan.features[camera].shape == (32, 48, 3)
    names, joints = plan.features[STATE].names, LAYOUTS[embodiment].joints
    for side, arm in zip(("left", "right"), written.arms, strict=True):
        first = names.index(f"{side}_joint1")
        np.testing.assert_allclose(
            episode.data[STATE][:, first : first + joints], arm.joints[:, :joints], atol=1e-6
        )
        if LAYOUTS[embodiment].poses:
            place = plan.features[POSE].names.index(f"{side}_x")
            pose = episode.data[POSE][:, place : place + 7]
            np.testing.assert_allclose(pose[:, :3], arm.position, atol=1e-6)
            assert (Rotation.from_quat(pose[:, 3:]).inv() * arm.rotation).magnitude().max() < 1e-5
        else:
            assert POSE not in plan.features


@pytest.mark.parametrize(
    ("embodiment", "flag", "stored"),
    [("ur", (), JPEG_BGR), ("ur", ("other_flag",), "jpeg"), ("franka_sim", (), "jpeg")],
)
def test_the_flag_of_each_file_is_obeyed(
    embodiment: str, flag: tuple[str, ...], stored: str, tmp_path: Path
) -> None:
    """The flag, spaces or not, is of the array that OpenCV returns; "rgb" files have red and blue exchanged."""
    write_robomind2(tmp_path, embodiment, faults={*flag, "spaced_flag"}, **LONG)
    plan, episode = _read_one(tmp_path, cameras="front")
    frames: Any = episode.images["observation.images.front"]
    assert plan.image_encodings["observation.images.front"] == stored
    assert_scene(decode_frame(frames[0], swapped=stored == JPEG_BGR))


def test_a_file_whose_flag_differs_is_put_right(tmp_path: Path) -> None:
    """One feature has one order: the frames of the odd file are encoded anew, without loss, and this is said."""
    for index in range(3):
        write_robomind2(
            tmp_path, "ur", stamp=f"{index}", faults={"other_flag"} if index == 2 else set(), **LONG
        )
    _, results = _read(tmp_path, cameras="front")
    for episode in results.values():
        assert isinstance(episode, Episode)
        frames: Any = episode.images["observation.images.front"]
        assert_scene(decode_frame(frames[5], swapped=True))
    odd = results["2"]
    assert isinstance(odd, Episode)
    assert any("colour order differs from most" in text for text in odd.warnings)


def test_a_file_without_flag_needs_a_choice(tmp_path: Path) -> None:
    """Colours are not guessed."""
    write_robomind2(tmp_path, "ur", faults={"no_flag"}, **LONG)
    with pytest.raises(DatasetError, match=r"camera_color_channel/camera_front is '', expected rgb or bgr"):
        _read(tmp_path)
    _, episode = _read_one(tmp_path, colour_order="rgb")
    frames: Any = episode.images["observation.images.front"]
    assert_scene(decode_frame(frames[0], swapped=True))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("skeleton", "a skeleton of groups without a dataset"),
        ("first_stream_only", "puppet/arm_left_position_align/data is missing"),
        ("half_rate", "3.5 Hz, the median of its task is 7.0 Hz, more than 10% away"),
        ("frozen_clock", "does not advance, so the rate is unknown"),
        ("raw_only", "there is only puppet/arm_left_position_raw/data, which has a clock of its own"),
        ("mixed_lengths", "differ in length"),
        ("truncated", "truncated or not HDF5"),
    ],
)
def test_bad_files_are_set_aside_with_a_reason(fault: str, reason: str, tmp_path: Path) -> None:
    """Each of the documented faults has its reason, and the healthy episodes of the task are kept."""
    for index in range(3):
        write_robomind2(tmp_path, "ur", stamp=f"{index}", seed=index, **LONG)
    bad: dict[str, Any] = LONG | ({"n_steps": 120} if fault == "half_rate" else {})
    write_robomind2(tmp_path, "ur", stamp="bad", faults={fault}, **bad)
    plan, results = _read(tmp_path)
    assert plan.fps == pytest.approx(7.0, rel=0.02)
    rejected = results.pop("bad")
    assert isinstance(rejected, Rejected)
    assert re.search(reason, rejected.reason)
    assert all(isinstance(result, Episode) for result in results.values())


def test_a_given_rate_keeps_every_episode(tmp_path: Path) -> None:
    """The option fps overrides the files' times, whatever they say."""
    write_robomind2(tmp_path, "ur", stamp="a", **LONG)
    write_robomind2(tmp_path, "ur", stamp="b", faults={"frozen_clock"}, **LONG)
    plan, results = _read(tmp_path, fps="7")
    assert (plan.fps, plan.notes["rate"]) == (7.0, "given")
    assert all(isinstance(result, Episode) for result in results.values())


def test_rates_are_by_task(tmp_path: Path) -> None:
    """A task that runs at another rate than the store is kept and warned about, with the way to convert it apart."""
    for task, rate in (("a", 10.0), ("b", 10.0), ("c", 14.0)):
        write_robomind2(tmp_path, "franka", task=task, stamp=task, rate=rate, **LONG)
    plan, results = _read(tmp_path)
    assert plan.fps == pytest.approx(10.0, rel=0.02)
    assert plan.notes["task_rates_hz"]["c"] == pytest.approx(14.0, rel=0.03)
    told = {name: r.warnings for name, r in results.items() if isinstance(r, Episode)}
    assert told["a"] == told["b"] == []
    assert "runs at 14" in told["c"][0]
    assert "--option tasks=..." in told["c"][0]
    assert _read(tmp_path, tasks="c")[0].fps == pytest.approx(14.0, rel=0.03)


def test_rates_from_whole_seconds_are_precise() -> None:
    """Counted from tick to tick, 10 s of whole seconds tell the rate to a frame, where the span alone is 10 % off."""
    for rate in (7.0, 12.5, 29.0, 101.0):
        stamps = 1_755_000_000 + np.floor(np.arange(int(10 * rate)) / rate + 0.37).astype(np.int64)
        measured = frame_rate(stamps)
        assert measured is not None
        assert measured.rate == pytest.approx(rate, rel=0.02)
        assert abs(measured.rate / rate - 1) <= measured.uncertainty


def test_milliseconds_that_jump_back_give_the_true_rate() -> None:
    """One jump of -2.6 s must not turn 30 Hz into 35."""
    stamps = np.round(np.arange(338) * 1000 / 30).astype(np.int64)
    stamps[200:] -= 2600
    measured = frame_rate(stamps)
    assert measured is not None
    assert (round(measured.rate, 1), measured.jumps) == (30.0, 1)


@pytest.mark.parametrize("stamps", [[], [5], [7, 7, 7], [9, 8, 7], [0, 1e30], [np.nan, 1.0, 2.0]])
def test_times_that_tell_no_rate(stamps: list[float]) -> None:
    """Too few, standing, backward, absurd and broken times give no rate instead of a wrong one."""
    assert frame_rate(np.array(stamps)) is None


def test_the_median_rate_is_reproducible() -> None:
    """What is within a thousandth of a whole number is that number; of two rates, one is taken, not their mean."""
    assert median_rate([7.0, 3.5]) == 3.5
    assert median_rate([29.99, 30.02, 30.01]) == 30.0
    assert median_rate([12.34567]) == 12.346


def test_interventions_become_segments(tmp_path: Path) -> None:
    """The stretch in which a human took over is labelled."""
    write_robomind2(tmp_path, "ur", faults={"intervention"}, **LONG)
    _, episode = _read_one(tmp_path)
    assert episode.segments == [Segment(20, 30, "intervention", "a human takes over")]
    flags = np.array([1, 1, 0, 1, 1])
    assert [(s.start, s.end) for s in interventions(flags, 4)] == [(0, 2), (3, 4)]


@pytest.mark.parametrize(
    ("embodiment", "faults", "description", "expected", "doubts"),
    [
        ("franka_sim", (), "把苹果放好", "pick the apple", 0),
        ("franka_sim", ("attribute_metadata",), "", "pick the apple", 0),
        ("franka_sim", ("gbk_metadata",), "", "put the apple", 1),
        ("franka", (), "把苹果放好", "把苹果放好", 0),
        ("ur_dex", (), "", "put the apple", 0),
    ],
)
def test_instructions_come_from_file_description_or_folder(
    embodiment: str, faults: tuple[str, ...], description: str, expected: str, doubts: int, tmp_path: Path
) -> None:
    """Metadata first, then the Chinese description of the task, then its folder's name without the number."""
    write_robomind2(tmp_path, embodiment, faults=set(faults), description=description, **LONG)
    _, episode = _read_one(tmp_path)
    assert episode.task == expected
    assert sum(text.startswith("task:") for text in episode.warnings) == doubts


def test_the_source_of_the_instruction_is_a_choice(tmp_path: Path) -> None:
    """A description that is not UTF-8 is reported; the folder's name can be asked for."""
    written = write_robomind2(tmp_path, "franka", description="x", **LONG)
    (written.path.parents[3] / "zh_description.txt").write_bytes("把苹果放好".encode("gbk"))
    _, episode = _read_one(tmp_path)
    assert episode.task == "put the apple"
    assert any("zh_description.txt cannot be read" in text for text in episode.warnings)
    assert _read_one(tmp_path, language="folder")[1].warnings == []


def test_empty_pose_streams_are_left_out(tmp_path: Path) -> None:
    """Streams of shape (0,) are no feature; where only some files have them, the remedy is named."""
    write_robomind2(tmp_path, "ur", task="a", stamp="a", **LONG)
    write_robomind2(tmp_path, "ur", task="b", stamp="b", faults={"empty_poses"}, **LONG)
    assert POSE not in _read(tmp_path)[0].features
    for index in range(6):
        write_robomind2(tmp_path, "ur", task="a", stamp=f"{index}", seed=index, **LONG)
    write_robomind2(tmp_path, "ur", task="a", stamp="late", faults={"empty_poses"}, **LONG)
    plan, results = _read(tmp_path, tasks="a")
    assert POSE in plan.features
    rejected = results["late"]
    assert isinstance(rejected, Rejected)
    assert "end_effector_left_pose_align/data is empty" in rejected.reason
    assert "--option optional=drop" in rejected.reason
    assert POSE not in _read(tmp_path, tasks="a", optional="drop")[0].features


def test_gripper_and_hand_are_told_apart_by_width(tmp_path: Path) -> None:
    """The folders ur and ur_dex name their streams alike; a hand in place of a gripper is refused, not read as one."""
    write_robomind2(tmp_path, "ur_dex", **LONG)
    (tmp_path / "data" / "ur_dex").rename(tmp_path / "data" / "ur")
    _, results = _read(tmp_path)
    (rejected,) = results.values()
    assert isinstance(rejected, Rejected)
    assert "end_effector_left_position_align/data has 12 components per step, expected 1" in rejected.reason


def test_streams_that_are_too_wide_are_refused(tmp_path: Path) -> None:
    """A ninth component of a Franka's arm is not cut off in silence."""
    written = write_robomind2(tmp_path, "franka", **LONG)
    with h5py.File(written.path, "r+") as file:
        stream: Any = file["puppet/arm_left_position_align/data"]
        values = stream[:]
        del file["puppet/arm_left_position_align/data"]
        file["puppet/arm_left_position_align/data"] = np.concatenate([values, values[:, :1]], axis=1)
    _, results = _read(tmp_path)
    (rejected,) = results.values()
    assert isinstance(rejected, Rejected)
    assert "arm_left_position_align/data has 9 components per step, expected 8" in rejected.reason


def test_one_odd_file_does_not_decide_for_all(tmp_path: Path) -> None:
    """An optional feature that most files have is kept; one that few have is left out with a warning."""
    for index in range(3):
        write_robomind2(
            tmp_path, "ur", stamp=f"{index}", faults={"empty_poses"} if index == 1 else set(), **LONG
        )
    plan, results = _read(tmp_path)
    assert POSE in plan.features
    assert [type(result) for result in results.values()] == [Episode, Rejected, Episode]
    write_robomind2(tmp_path, "ur", stamp="3", faults={"empty_poses"}, **LONG)
    plan, results = _read(tmp_path)
    assert plan.notes["warnings"] == [f"{POSE}: in 2 of 4 files that were looked at; left out"]
    assert all(isinstance(result, Episode) for result in results.values())


def test_the_masters_hand_may_be_smaller(tmp_path: Path) -> None:
    """The simulated Tien Kung's hands have twelve joints, its master's six; the action says which it is."""
    write_robomind2(tmp_path, "tienkung_sim", **LONG)
    plan, episode = _read_one(tmp_path, action="master")
    assert (episode.data[STATE].shape[1], episode.data[ACTION].shape[1]) == (38, 26)
    assert plan.features[ACTION].names[7:9] == ("left_hand1", "left_hand2")


def test_invalid_tactile_values_are_marked(tmp_path: Path) -> None:
    """65535 means no reading: stored as 0 and marked, so that no statistic is ruined by it."""
    write_robomind2(
        tmp_path, "agilex_mobile", n_steps=140, cameras=1, depth=False, faults={"invalid_tactile"}
    )
    plan, episode = _read_one(tmp_path)
    values, valid = episode.data["observation.tactile"], episode.data["observation.tactile_valid"]
    assert (values.max() <= 1.0, plan.features["observation.tactile_valid"].dtype) == (True, "bool")
    assert not valid[::3, 8].any()
    assert valid.sum() == valid.size - 2 * len(valid[::3])
    assert (values[~valid] == 0).all()


@pytest.mark.parametrize("faults", [(), ("plain_force",)])
def test_newer_exports_have_forces(faults: tuple[str, ...], tmp_path: Path) -> None:
    """Force streams are a feature where files have them, as a group or as a dataset."""
    write_robomind2(tmp_path, "ur", force=True, faults=set(faults), **LONG)
    assert _read_one(tmp_path)[1].data["observation.force"].shape == (59, 12)


def test_frozen_poses_are_reported(tmp_path: Path) -> None:
    """The same test as for 1.x."""
    write_robomind2(tmp_path, "ur", faults={"frozen_pose"}, **LONG)
    _, episode = _read_one(tmp_path)
    assert sum("does not move while joints move" in text for text in episode.warnings) == 2


def test_the_order_of_quaternions_is_found_by_geometry(tmp_path: Path) -> None:
    """Readers of the data disagree, so the arms' kinematics decide; what cannot be decided is called an assumption."""
    written = write_robomind2(tmp_path / "a", "franka", **LONG)
    plan, _ = _read_one(tmp_path / "a")
    assert (plan.options["quaternion"], plan.notes["quaternion"]["known_by"]) == ("xyzw", "kinematics")
    with h5py.File(written.path, "r+") as file:
        for side, arm in zip(("left", "right"), written.arms, strict=True):
            pose: Any = file[f"puppet/end_effector_{side}_pose_align/data"]
            pose[:, 3:] = arm.quaternions("wxyz")
    plan, episode = _read_one(tmp_path / "a")
    assert plan.options["quaternion"] == "wxyz"
    turn = Rotation.from_quat(episode.data[POSE][:, 3:7])
    assert (turn.inv() * written.arms[0].rotation[:-1]).magnitude().max() < 1e-5
    write_robomind2(tmp_path / "b", "agilex", n_steps=230, cameras=1, depth=False)
    assert _read_one(tmp_path / "b")[0].notes["quaternion"]["known_by"] == "assumption"


def test_several_files_of_one_folder_stay_apart(tmp_path: Path) -> None:
    """Simulated files are named freely; two in one folder are two episodes."""
    written = write_robomind2(tmp_path, "franka_sim", stamp="a", **LONG)
    (written.path.parent / "other.hdf5").write_bytes(written.path.read_bytes())
    assert set(_read(tmp_path)[1]) == {"a", "other"}


@pytest.mark.parametrize(
    ("write", "importer", "right"),
    [(write_robomind, RoboMind2Hdf5(), "robomind"), (write_robomind2, RoboMindHdf5(), "robomind2")],
    ids=["1.x by 2.0", "2.0 by 1.x"],
)
def test_the_wrong_release_names_the_right_format(
    write: Any, importer: Importer, right: str, tmp_path: Path
) -> None:
    """Nothing converted is an error, and the error says what the tree is; detection finds it by itself."""
    write(tmp_path / "r", n_steps=3)
    assert importer.probe(tmp_path / "r") is None
    assert detect_importer(tmp_path / "r").name == right
    with pytest.raises(DatasetError, match=f"use --format {right}$"):
        convert(tmp_path / "r", tmp_path / "s.zarr", format=importer)
    assert not (tmp_path / "s.zarr").exists()


def test_a_tree_of_skeletons_is_recognised_and_refused(tmp_path: Path) -> None:
    """Files without data still have the groups of 2.0; the error says that nothing could be used."""
    write_robomind2(tmp_path / "r", "ur", faults={"skeleton"})
    assert detect_importer(tmp_path / "r").name == "robomind2"
    with pytest.raises(DatasetError, match="no file of robomind2_ur has readable frames"):
        convert(tmp_path / "r", tmp_path / "s.zarr")
