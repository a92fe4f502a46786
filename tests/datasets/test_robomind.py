"""The importer of RoboMIND 1.x, on trees synthesised to the published layouts."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import JPEG_BGR, decode_frame
from robot_datasets.importers.base import Importer, Plan, Rejected, resolve_options
from robot_datasets.importers.robomind_hdf5 import RoboMindHdf5
from robot_datasets.importers.robomind_tree import parse_trajectory
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.robomind import FOLDERS, WrittenEpisode, write_robomind
from robot_datasets.testing.scene import assert_scene

POSE = "observation.end_effector"
TRUE_COLOURS = ("h5_franka_1rgb", "h5_franka_3rgb", "h5_franka_fr3_dual", "h5_ur_1rgb")


class TestFranka1Rgb(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = tmp_path / "robomind"
        write_robomind(root, episode="1014_144602", n_steps=5, seed=1)
        write_robomind(
            root, episode="2024_10_08-16_13_09-172910045527931776.00", split="val", n_steps=6, seed=2
        )
        write_robomind(root, task="pick_cup", episode="307342-2024_10_24_15_25_24", n_steps=4, seed=3)
        write_robomind(root, task="pick_cup", episode="400000-cut", seed=4, faults={"truncated"})
        return root


class TestSimulatedFranka(ImporterTests):
    options = {"cameras": "handeye", "depth": "drop", "alignment": "start"}  # noqa: RUF012

    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for index in range(3):
            write_robomind(
                tmp_path / "r", "h5_simulation", episode=f"{index}", n_steps=12, depth=False, seed=index
            )
        return tmp_path / "r"


def _read(root: Path, **options: str) -> tuple[Plan, list[Episode | Rejected]]:
    """Plan, and read every episode, its frames turned into lists."""
    importer = RoboMindHdf5()
    plan = importer.plan(root, resolve_options(importer, options))
    results: list[Episode | Rejected] = []
    iterator = importer.episodes(plan, plan.refs)
    for result in iterator:
        if isinstance(result, Episode):
            try:
                result.images = {name: list(frames) for name, frames in result.images.items()}
            except DatasetError as error:
                result = Rejected(result.source_id, str(error))
        results.append(result)
    return plan, results


def _read_one(root: Path, **options: str) -> tuple[Plan, Episode]:
    plan, (episode,) = _read(root, **options)
    assert isinstance(episode, Episode), episode
    return plan, episode


def _decode(plan: Plan, episode: Episode, name: str, step: int) -> np.ndarray:
    frames: Any = episode.images[name]
    return decode_frame(frames[step], swapped=plan.image_encodings[name] == JPEG_BGR)


def _rotation(plan: Plan, columns: np.ndarray) -> Rotation:
    if plan.features[POSE].rotation == "rpy_extrinsic":
        return Rotation.from_euler("xyz", columns[:, 3:6])
    return Rotation.from_quat(columns[:, 3:7])


@pytest.mark.parametrize(
    ("path", "source_id", "split"),
    [
        (
            "benchmark1_0_release/h5_franka_1rgb/bread/success_episodes/train/1014_144602/data/trajectory.hdf5",
            "benchmark1_0_release/h5_franka_1rgb/bread/success_episodes/train/1014_144602",
            "train",
        ),
        (
            "deep/down/h5_franka_3rgb/close_bin/success_episodes/2024-11-13-16-52-40/data/trajectory.hdf5",
            "h5_franka_3rgb/close_bin/success_episodes/2024-11-13-16-52-40",
            "",
        ),
        (
            "h5_franka_3rgb/close_bin/success_episodes/val/e/trajectory.hdf5",
            "h5_franka_3rgb/close_bin/success_episodes/val/e",
            "val",
        ),
    ],
)
def test_paths_are_read_from_their_anchor(path: str, source_id: str, split: str) -> None:
    """Depth above and below success_episodes, split folder and episode names differ between releases."""
    trajectory = parse_trajectory(Path("/anywhere") / path)
    assert trajectory is not None
    assert (trajectory.source_id, trajectory.split) == (source_id, split)


def test_paths_without_anchor_are_not_trajectories() -> None:
    """A trajectory.hdf5 elsewhere is not claimed."""
    assert parse_trajectory(Path("/data/h5_franka_1rgb/bread/failures/e/data/trajectory.hdf5")) is None


@pytest.mark.parametrize("folder", FOLDERS)
def test_colours_are_right_and_bytes_untouched(folder: str, tmp_path: Path) -> None:
    """JPEG bytes are those of the source, and the red apple is red, whichever order the authors document."""
    written = write_robomind(tmp_path, folder, n_steps=6)
    plan, episode = _read_one(tmp_path, action="puppet_same")
    assert len(written.cameras) == sum(name.startswith("observation.images.") for name in plan.features)
    with h5py.File(written.path) as file:
        for camera in written.cameras:
            name = f"observation.images.{camera}"
            source: Any = file[f"observations/rgb_images/camera_{camera}"]
            assert episode.images[name] == [frame.tobytes() for frame in source[:]]
            assert_scene(_decode(plan, episode, name, 3))
            assert plan.image_encodings[name] == ("jpeg" if folder in TRUE_COLOURS else JPEG_BGR)


def test_colours_of_another_order_would_show(tmp_path: Path) -> None:
    """The picture tells: files whose order contradicts the documentation come out with a blue apple."""
    write_robomind(tmp_path, "h5_agilex_3rgb", n_steps=3, faults={"swapped_colours"})
    plan, episode = _read_one(tmp_path)
    with pytest.raises(AssertionError, match="left half"):
        assert_scene(_decode(plan, episode, "observation.images.front", 1))


def test_exchanged_colours_are_right_in_the_store(tmp_path: Path) -> None:
    """What the store decodes, and its statistics, have the right colours too."""
    write_robomind(tmp_path / "r", "h5_tienkung_gello_1rgb", n_steps=4)
    convert(tmp_path / "r", tmp_path / "s.zarr")
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert_scene(store.images("observation.images.top").decode([1])[0])
    assert store.stats("observation.images.top").mean[0] > 100 > store.stats("observation.images.top").mean[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_component_has_a_name_and_its_value(folder: str, tmp_path: Path) -> None:
    """Joints are those of the known arm, side by side as documented, and every vector names its components."""
    written = write_robomind(tmp_path, folder, n_steps=6, depth=False)
    plan, episode = _read_one(tmp_path, action="puppet_same", cameras=written.cameras[0])
    for name, values in episode.data.items():
        assert len(plan.features[name].names) == plan.features[name].shape[0] == values.shape[1]
    names = plan.features[STATE].names
    sides = ("",) if len(written.arms) == 1 else ("left_", "right_")
    for side, arm in zip(sides, written.arms, strict=True):
        columns = [i for i, name in enumerate(names) if name.startswith(f"{side}joint")]
        assert len(columns) in (6, 7)
        np.testing.assert_allclose(episode.data[STATE][0, columns], arm.joints[0, : len(columns)])
    np.testing.assert_array_equal(episode.data[ACTION], episode.data[STATE])


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if "tienkung" not in f or "sim" in f], ids=lambda f: f.removeprefix("h5_")
)
def test_known_poses_come_back(folder: str, tmp_path: Path) -> None:
    """Extrinsic roll-pitch-yaw of the real robots, xyzw quaternions of the simulated: the arm's poses come back."""
    written = write_robomind(tmp_path, folder, n_steps=8, depth=False)
    plan, episode = _read_one(tmp_path, action="puppet_same", cameras=written.cameras[0])
    names = plan.features[POSE].names
    sides = ("",) if len(written.arms) == 1 else ("left_", "right_")
    for side, arm in zip(sides, written.arms, strict=True):
        columns = [i for i, n in enumerate(names) if n.startswith(side) and not n.endswith("gripper")]
        pose = episode.data[POSE][:, columns]
        rows = (
            np.round(np.linspace(0, len(arm) - 1, len(pose))).astype(int)
            if "sim" in folder
            else np.arange(len(arm))
        )
        arm.at(rows).assert_same_poses(pose[:, :3], _rotation(plan, pose), atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "choice", "expected"),
    [
        ("h5_franka_1rgb", "", "puppet_next"),
        ("h5_franka_1rgb", "puppet_same", "puppet_same"),
        ("h5_franka_1rgb", "master", "master"),
        ("h5_agilex_3rgb", "", "master"),
        ("h5_agilex_3rgb", "puppet_next", "puppet_next"),
        ("h5_tienkung_xsens_1rgb", "", "puppet_next"),
        ("h5_simulation", "", "puppet_next"),
    ],
)
def test_action_meaning_is_a_recorded_choice(folder: str, choice: str, expected: str, tmp_path: Path) -> None:
    """The action is the next state, the state itself or the teleoperator's, by default as the authors advise.

    The last step, which has no next state, is left out.
    """
    written = write_robomind(tmp_path, folder, n_steps=6, depth=False)
    plan, episode = _read_one(tmp_path, action=choice, cameras=written.cameras[0])
    _, same = _read_one(tmp_path, action="puppet_same", cameras=written.cameras[0])
    assert plan.features[ACTION].meaning == plan.options["action"] == expected
    assert episode.n_steps == same.n_steps - (expected == "puppet_next")
    assert len(list(episode.images[f"observation.images.{written.cameras[0]}"])) == episode.n_steps
    np.testing.assert_array_equal(episode.data[STATE], same.data[STATE][: episode.n_steps])
    if expected == "puppet_next":
        np.testing.assert_array_equal(episode.data[ACTION], same.data[STATE][1:])
    if expected == "master":
        columns = slice(0, 6)
        np.testing.assert_allclose(episode.data[ACTION][:, columns], written.master[0].joints[:, columns])


def test_a_master_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """Simulated robots have no teleoperation device; the error lists what there is."""
    write_robomind(tmp_path, "h5_simulation", n_steps=4, depth=False)
    with pytest.raises(DatasetError, match=r"unknown action 'master'.*puppet_next, puppet_same"):
        _read(tmp_path, action="master")


def test_split_success_and_words_come_from_the_path(tmp_path: Path) -> None:
    """Episodes are sorted by source id; split and success are what the folders say, the task is their name in words."""
    write_robomind(tmp_path, episode="b", split="val", n_steps=3)
    write_robomind(tmp_path, episode="a", split="train", n_steps=3)
    write_robomind(tmp_path, task="408-place_upright_mug", episode="c", split="", n_steps=3)
    _, results = _read(tmp_path)
    found = [
        (r.source_id.rpartition("/")[2], r.split, r.success, r.task)
        for r in results
        if isinstance(r, Episode)
    ]
    assert found == [
        ("c", "", True, "place upright mug"),
        ("a", "train", True, "bread in basket"),
        ("b", "val", True, "bread in basket"),
    ]


def _write_annotation(folder: Path, written: WrittenEpisode, steps: Sequence[tuple[int, int, str]]) -> None:
    import json

    folder.mkdir(exist_ok=True)
    entry = {
        "id": written.source_id.partition("/")[2] + "/data",
        "response": {
            "task_summary": "x",
            "steps": [
                {
                    "step_description": text,
                    "start_frame": f"camera_top_{first:04d}.jpg",
                    "end_frame": f"camera_top_{last:04d}.jpg",
                }
                for first, last, text in steps
            ],
        },
    }
    (folder / "h5_franka_1rgb.json").write_text(json.dumps([entry]))


def test_annotated_steps_become_segments(tmp_path: Path) -> None:
    """Gaps stay gaps, the last frame belongs to a step, what is beyond the episode is cut, and nonsense is reported."""
    written = write_robomind(tmp_path, n_steps=12)
    steps = [
        (0, 2, "move  towards the bread"),
        (5, 5, "grasp"),
        (8, 40, "lift"),
        (7, 3, "backwards"),
        (90, 99, "late"),
    ]
    _write_annotation(tmp_path / "language_description_annotation_json", written, steps)
    plan, episode = _read_one(tmp_path)
    assert episode.segments == [
        Segment(0, 3, "step", "move towards the bread"),
        Segment(5, 6, "step", "grasp"),
        Segment(8, 11, "step", "lift"),
    ]
    told = [text for text in episode.warnings if text.startswith("segments:")]
    assert ["'backwards' ends at frame 3" in told[0], "'late' begins at frame 90 of 11" in told[1]] == [
        True,
        True,
    ]
    assert plan.options["annotations"].startswith("blake2b:")
    assert not _read_one(tmp_path, annotations="none")[1].segments


def test_instructions_come_from_the_table(tmp_path: Path) -> None:
    """The first row of a repeated task counts; the table is found beside the releases, or left out on demand."""
    (tmp_path / "RoboMIND_v1_2_instr.csv").write_text(
        ',task,instruction\n0,bread_in_basket,"pick bread,put it down"\n1,bread_in_basket,other\n'
    )
    write_robomind(tmp_path, episode="a", n_steps=3)
    write_robomind(tmp_path, task="wipe", episode="b", n_steps=3)
    plan, results = _read(tmp_path / "benchmark1_0_release")
    assert [r.task for r in results if isinstance(r, Episode)] == ["pick bread,put it down", "wipe"]
    assert plan.notes["tasks_without_instruction"] == ["wipe"]
    assert plan.options["instructions"].startswith("blake2b:")
    _, results = _read(tmp_path, instructions="none")
    assert isinstance(results[0], Episode)
    assert results[0].task == "bread in basket"


def test_an_instruction_in_the_file_is_used(tmp_path: Path) -> None:
    """Some files carry ``language_raw``; it goes before the folder's name."""
    written = write_robomind(tmp_path, n_steps=3)
    with h5py.File(written.path, "r+") as file:
        file["language_raw"] = np.array([b"put the bread into the basket"])
    assert _read_one(tmp_path)[1].task == "put the bread into the basket"


def test_the_real_words_are_read(shared_data: Path) -> None:
    """RoboMIND's own files: 468 distinct tasks of 479 rows, and 7,198 annotated episodes."""
    from robot_datasets.importers.robomind_language import DIRTY_TASKS, read_annotations, read_instructions

    folder = shared_data / "robomind_annotations"
    table = read_instructions(folder / "RoboMIND_v1_2_instr.csv")
    with (folder / "RoboMIND_v1_2_instr.csv").open(encoding="utf-8-sig") as file:
        assert (sum(1 for _ in csv.DictReader(file)), len(table)) == (479, 468)
    assert table["10_packplate"].startswith("pick up the plate 1 on the right")
    assert set(DIRTY_TASKS) <= set(table)
    files = sorted((folder / "language_description_annotation_json").glob("*.json"))
    counts = {file.stem: len(read_annotations(file)) for file in files}
    assert counts == {
        "h5_franka_1rgb": 161,
        "h5_franka_3rgb": 3287,
        "h5_simulation_franka": 79,
        "h5_tienkung_xsens": 1046,
        "h5_ur_1rgb": 2625,
    }


def test_real_annotations_find_their_episode(shared_data: Path, tmp_path: Path) -> None:
    """An episode at the path that the real annotations name gets their steps."""
    place = shared_data / "robomind_annotations" / "language_description_annotation_json"
    write_robomind(
        tmp_path, "h5_franka_3rgb", task="blue_cub_on_pink", episode="1015_172846", n_steps=130, depth=False
    )
    _, episode = _read_one(tmp_path, annotations=str(place), cameras="left")
    first, *_, last = [segment for segment in episode.segments if isinstance(segment, Segment)]
    assert first == Segment(0, 56, "step", "move towards the blue cube")
    assert last.end <= 129


def test_tasks_known_to_be_dirty_are_warned_about_or_dropped(tmp_path: Path) -> None:
    """A wrong instruction is said, never passed on in silence; dropping is a choice, and is listed."""
    for task in ("10_packplate", "wipe"):
        write_robomind(tmp_path, "h5_agilex_3rgb", task=task, n_steps=3, depth=False)
    _, results = _read(tmp_path, min_steps="0")
    warnings = {r.source_id.split("/")[2]: r.warnings for r in results if isinstance(r, Episode)}
    assert "known to be wrong: the plates are not marked" in warnings["10_packplate"][0]
    assert warnings["wipe"] == []
    plan, results = _read(tmp_path, dirty_tasks="drop")
    assert (len(results), len(plan.rejected)) == (1, 1)
    assert "known to be wrong" in plan.rejected[0].reason


def test_short_episodes_are_warned_about_or_dropped(tmp_path: Path) -> None:
    """Fewer steps than the limit are no reason to drop an episode in silence."""
    write_robomind(tmp_path, n_steps=9)
    assert any("8 steps are few" in text for text in _read_one(tmp_path)[1].warnings)
    assert _read_one(tmp_path, min_steps="8")[1].warnings == []
    _, (dropped,) = _read(tmp_path, short_episodes="drop", min_steps="9")
    assert isinstance(dropped, Rejected)
    assert "8 steps, fewer than min_steps=9" in dropped.reason


def test_early_episodes_without_top_camera_need_a_choice(tmp_path: Path) -> None:
    """Files with two cameras and no depth are set aside with the remedy, and convert when it is followed."""
    write_robomind(tmp_path, "h5_franka_3rgb", task="close_bin", n_steps=3)
    write_robomind(
        tmp_path, "h5_franka_3rgb", task="2024_09_20_close_chest", n_steps=3, faults={"missing_top"}
    )
    _, results = _read(tmp_path)
    (rejected,) = [r for r in results if isinstance(r, Rejected)]
    assert "camera_left, camera_right, expected camera_top" in rejected.reason
    assert "--option cameras=... or depth=drop" in rejected.reason
    plan, results = _read(tmp_path, cameras="camera_left,camera_right", depth="drop")
    assert len([r for r in results if isinstance(r, Episode)]) == 2
    assert plan.options["cameras"] == "left,right"
    plan, results = _read(tmp_path, tasks="2024_09_20_close_chest")
    assert isinstance(results[0], Episode)
    assert plan.options["cameras"] == "left,right"


@pytest.mark.parametrize("folder", ["h5_franka_1rgb", "h5_tienkung_gello_1rgb"])
def test_raw_frames_become_png_with_right_colours(folder: str, tmp_path: Path) -> None:
    """A few tasks hold raw pixels, in the documented order; they are stored without loss, in the feature's order."""
    write_robomind(tmp_path, folder, n_steps=2, faults={"raw_frames"})
    plan, episode = _read_one(tmp_path, action="puppet_same")
    assert_scene(_decode(plan, episode, "observation.images.top", 1))
    assert plan.features["observation.images.top"].shape == (480, 640, 3)
    depth = _decode(plan, episode, "observation.depth.top", 1)
    assert (depth.dtype, depth.shape, int(depth[0, 0, 0])) == (np.uint16, (480, 640, 1), 121)


def test_depth_is_millimetres_by_the_authors_rule(tmp_path: Path) -> None:
    """16-bit PNG passes through; what has nothing above 100 is in metres and is converted, with a warning."""
    written = write_robomind(tmp_path / "mm", n_steps=3)
    plan, episode = _read_one(tmp_path / "mm")
    with h5py.File(written.path) as file:
        source: Any = file["observations/depth_images/camera_top"]
        assert episode.images["observation.depth.top"] == [frame.tobytes() for frame in source[:2]]
    assert plan.features["observation.depth.top"] == Feature(dtype="uint16", shape=(32, 48, 1), units=("mm",))
    write_robomind(tmp_path / "m", n_steps=3, size=(32, 80), faults={"metres_depth"})
    plan, episode = _read_one(tmp_path / "m")
    assert set(np.unique(_decode(plan, episode, "observation.depth.top", 0))) == {0, 1000, 2000}
    assert any("observation.depth.top: nothing is above 100" in text for text in episode.warnings)
    write_robomind(tmp_path / "grey8", n_steps=3, faults={"grey8_depth"})
    plan, episode = _read_one(tmp_path / "grey8")
    assert _decode(plan, episode, "observation.depth.top", 1).dtype == np.uint16


def test_frame_sizes_are_measured(tmp_path: Path) -> None:
    """Sizes that differ between tasks are declared variable; one that differs from the measured one is an error."""
    write_robomind(tmp_path / "a", task="a", n_steps=3)
    write_robomind(tmp_path / "a", task="b", n_steps=3, faults={"other_size"})
    assert _read(tmp_path / "a")[0].features["observation.images.top"].shape == (0, 0, 3)
    write_robomind(tmp_path / "b", n_steps=6, faults={"mixed_sizes"})
    _, (rejected,) = _read(tmp_path / "b", depth="drop")
    assert isinstance(rejected, Rejected)
    assert "step 3: frame is 64x96 px, expected 32x48" in rejected.reason
    plan, episode = _read_one(tmp_path / "b", frame_size="any", depth="drop")
    assert _decode(plan, episode, "observation.images.top", 4).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncated", "truncated or not HDF5"),
        ("not_hdf5", "truncated or not HDF5"),
        ("mixed_lengths", "differ in length"),
        ("missing_key", "puppet/joint_position is missing"),
        ("text_dtype", r"puppet/joint_position is .*; expected \(T, ...\) numbers"),
        ("external_link", "puppet/joint_position is a link to another file"),
        ("damaged_frame", "step 3: 11 bytes are neither JPEG nor a raw frame"),
        ("cut_frame", "step 3: JPEG frame of .* lacks its end"),
        ("empty_frame", "step 3: 0 bytes are neither JPEG"),
        ("no_steps", "0 steps leave none"),
    ],
)
def test_bad_files_are_set_aside_with_a_reason(fault: str, reason: str, tmp_path: Path) -> None:
    """One bad file does not stop a conversion; the reason names the array and the step."""
    write_robomind(tmp_path, episode="a", n_steps=6, seed=1)
    write_robomind(tmp_path, episode="b", n_steps=6, seed=2, faults={fault})
    write_robomind(tmp_path, episode="c", n_steps=6, seed=3)
    _, results = _read(tmp_path)
    assert [type(r) for r in results] == [Episode, Rejected, Episode]
    assert isinstance(results[1], Rejected)
    assert re.search(reason, results[1].reason)


def test_bad_numbers_are_quarantined_by_the_store(tmp_path: Path) -> None:
    """NaN reaches no store; the report says where it was, and the healthy episode is converted."""
    write_robomind(tmp_path / "r", episode="a", n_steps=4, seed=1)
    write_robomind(tmp_path / "r", episode="b", n_steps=4, seed=2, faults={"nan"})
    report = convert(tmp_path / "r", tmp_path / "s.zarr")
    ((source_id, reason),) = report.quarantined.items()
    assert (report.n_episodes, source_id.rpartition("/")[2]) == (1, "b")
    assert "NaN or infinity" in reason


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    """When every episode is unusable the conversion fails, says why, and leaves nothing."""
    write_robomind(tmp_path / "r", n_steps=4, faults={"missing_key"})
    with pytest.raises(
        DatasetError, match=r"no episode could be converted.*puppet/joint_position is missing"
    ):
        convert(tmp_path / "r", tmp_path / "s.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_several_embodiments_need_a_choice(tmp_path: Path) -> None:
    """A store has one embodiment; a tree of two asks which, and folders of one layout go together."""
    write_robomind(tmp_path, n_steps=3)
    write_robomind(tmp_path, "h5_tienkung_gello_1rgb", n_steps=3)
    write_robomind(tmp_path, "h5_tienkung_prod1_gello_1rgb", n_steps=3)
    with pytest.raises(DatasetError, match=r"several embodiments.*--option embodiment=h5_franka_1rgb"):
        _read(tmp_path)
    assert len(_read(tmp_path, embodiment="h5_franka_1rgb")[1]) == 1
    both = tmp_path / "benchmark1_0_release"
    (both / "h5_franka_1rgb").rename(tmp_path / "elsewhere")
    plan, results = _read(both)
    assert (plan.embodiment, len(results)) == ("tienkung", 2)
    assert plan.options["embodiment"] == "h5_tienkung_gello_1rgb,h5_tienkung_prod1_gello_1rgb"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embodiment": "h5_ur"}, "unknown embodiment folder 'h5_ur'"),
        ({"tasks": "bread_in_baskt"}, "unknown task 'bread_in_baskt'; did you mean 'bread_in_basket'"),
        ({"cameras": "camera_tpo"}, "unknown name 'tpo'; did you mean 'top'"),
        ({"action": "puppet"}, "unknown action 'puppet'"),
        ({"fps": "fast"}, "got fps='fast'"),
        ({"min_steps": "few"}, "option min_steps is 'few'"),
        ({"instructions": "/nowhere.csv"}, "names /nowhere.csv, which does not exist"),
        ({"annotations": "/nowhere"}, "names /nowhere, which does not exist"),
    ],
)
def test_wrong_options_are_one_clear_line(options: dict[str, str], message: str, tmp_path: Path) -> None:
    """A value that cannot be followed is an error that says what there is."""
    write_robomind(tmp_path, n_steps=3)
    with pytest.raises(DatasetError, match=re.escape(message)):
        _read(tmp_path, **options)


def test_unknown_embodiments_are_named(tmp_path: Path) -> None:
    """Another robot's files are refused instead of read with the wrong keys."""
    write_robomind(tmp_path, n_steps=3)
    (tmp_path / "benchmark1_0_release" / "h5_franka_1rgb").rename(
        tmp_path / "benchmark1_0_release" / "h5_kuka_1rgb"
    )
    with pytest.raises(DatasetError, match=r"unknown robomind embodiment 'h5_kuka_1rgb'"):
        _read(tmp_path)


def test_two_copies_of_an_episode_are_refused(tmp_path: Path) -> None:
    """The same benchmark twice below one folder would give two episodes of one name."""
    write_robomind(tmp_path / "one", n_steps=3)
    write_robomind(tmp_path / "two", n_steps=3)
    with pytest.raises(DatasetError, match="are both called benchmark1_0_release"):
        _read(tmp_path)


def test_a_broken_link_is_set_aside(tmp_path: Path) -> None:
    """A file that is listed but not there is missed by name, and stops nothing."""
    write_robomind(tmp_path, episode="a", n_steps=3)
    written = write_robomind(tmp_path, episode="b", n_steps=3)
    written.path.unlink()
    written.path.symlink_to(written.path.name)  # a circle
    _, results = _read(tmp_path)
    assert [type(result) for result in results] == [Episode, Rejected]


def test_absurd_sizes_are_damage(tmp_path: Path) -> None:
    """A header that claims a billion frames is refused before anything is allocated."""
    written = write_robomind(tmp_path, n_steps=3, depth=False)
    with h5py.File(written.path, "r+") as file:
        del file["puppet/joint_position"]
        file.create_dataset("puppet/joint_position", (10**9, 8), dtype="f8", chunks=(1000, 8))
    _, (rejected,) = _read(tmp_path)
    assert isinstance(rejected, Rejected)
    assert "more than 1 GiB; the file is damaged" in rejected.reason


def test_more_frames_than_a_file_can_hold_are_damage(tmp_path: Path) -> None:
    """Ten million frames in a small file are refused before a clock for them is made."""
    write_robomind(tmp_path, episode="a", n_steps=3, depth=False)
    written = write_robomind(tmp_path, episode="b", n_steps=3, depth=False)
    with h5py.File(written.path, "r+") as file:
        key = next(key for key in file["observations/rgb_images"])  # type: ignore[union-attr]
        del file[f"observations/rgb_images/{key}"]
        file.create_dataset(
            f"observations/rgb_images/{key}", (10**7,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1000,)
        )
    _, (_, rejected) = _read(tmp_path)
    assert isinstance(rejected, Rejected)
    assert "claims 10000000 rows, more than fit into a file of" in rejected.reason


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """Trees that are linked together from several disks are found whole."""
    write_robomind(tmp_path / "disk", n_steps=3, release="")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "h5_franka_1rgb").symlink_to(tmp_path / "disk" / "h5_franka_1rgb")
    (tmp_path / "r" / "circle").symlink_to(tmp_path / "r")
    assert len(_read(tmp_path / "r")[1]) == 1
