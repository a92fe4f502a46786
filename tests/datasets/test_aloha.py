"""The importer of ALOHA and ACT episodes: its conformance, and every documented trap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_datasets.convert import ConversionReport, convert
from robot_datasets.errors import DatasetError
from robot_datasets.importers.aloha import Aloha
from robot_datasets.importers.base import Importer
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.aloha import SIZE, aloha_pixels, write_aloha_episode

IMAGE = "observation.images.cam_high"


def _convert(source: Path, **options: str) -> tuple[EpisodeStore, ConversionReport]:
    target = source.parent / "out.zarr"
    report = convert(source, target, format="aloha", options=options, overwrite=True)
    return EpisodeStore.open(target), report


def _read(path: Path, key: str) -> np.ndarray:
    with h5py.File(path) as file:
        dataset: Any = file[key]
        return dataset[...]


class TestRealCompressed(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return Aloha()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        folder = tmp_path / "pour_coffee"
        for number in range(3):
            write_aloha_episode(folder, number, 4 + number, compressed=True, mobile=True)
        write_aloha_episode(folder, 3, 4, compressed=True)  # has no base
        return folder


class TestSimulatedRaw(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return Aloha()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        folder = tmp_path / "sim_transfer_cube"
        for number in range(3):
            write_aloha_episode(folder, number, 3, simulated=True, cameras=("top",))
        (folder / "episode_3.hdf5").write_bytes((folder / "episode_0.hdf5").read_bytes()[:2000])
        return folder


def test_real_actions_are_paired_one_step_earlier(tmp_path: Path) -> None:
    """As ACT's loader does: the observation of row t goes with the action of row t - 1; row 0 has none."""
    path = write_aloha_episode(tmp_path / "task", 0, 6)
    store, report = _convert(path.parent)
    np.testing.assert_array_equal(store.column("observation.state"), _read(path, "observations/qpos")[1:])
    np.testing.assert_array_equal(store.column("action"), _read(path, "action")[:-1])
    np.testing.assert_allclose(store.images(IMAGE).decode(np.arange(5)), aloha_pixels(6, 0)[1:])
    assert report.options["action"] == "leader_previous"
    assert store.features["action"].meaning == "leader position, one step earlier"


@pytest.mark.parametrize(
    ("simulated", "expected"), [(True, "leader"), (False, "leader_previous"), (None, "leader_previous")]
)
def test_pairing_follows_the_attribute_sim(tmp_path: Path, simulated: bool | None, expected: str) -> None:
    """Simulated rows are paired as they are; files without the attribute are old real recordings."""
    path = write_aloha_episode(tmp_path / "task", 0, 6, simulated=simulated)
    _, report = _convert(path.parent)
    assert report.options["action"] == expected


def test_pairing_can_be_chosen(tmp_path: Path) -> None:
    """The option overrides the attribute, for all files alike, and is recorded."""
    folder = tmp_path / "task"
    path = write_aloha_episode(folder, 0, 6)
    write_aloha_episode(folder, 1, 6, simulated=True)
    store, report = _convert(folder, action="leader")
    assert store.n_steps == 12
    assert report.options["action"] == "leader"
    np.testing.assert_array_equal(store.column("action")[:6], _read(path, "action"))


def test_mixed_origins_are_not_paired_alike(tmp_path: Path) -> None:
    """A simulated episode among real ones is set aside instead of being shifted silently."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 6)
    write_aloha_episode(folder, 1, 6, simulated=True)
    store, report = _convert(folder)
    assert store.n_episodes == 1
    assert "convert them apart" in report.quarantined["episode_1.hdf5"]


def test_episodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Episode 10 comes after episode 2."""
    for number in (10, 2, 1):
        write_aloha_episode(tmp_path / "task", number, 3, cameras=())
    store, _ = _convert(tmp_path / "task")
    assert store.episodes["source_id"] == ["episode_1.hdf5", "episode_2.hdf5", "episode_10.hdf5"]


@pytest.mark.parametrize("form", ["rows", "strings", "varying"])
def test_compressed_frames_pass_through_with_true_colours(tmp_path: Path, form: str) -> None:
    """The padding goes, the JPEG bytes stay, and red and blue, exchanged by the recorder, are put right."""
    path = write_aloha_episode(tmp_path / "task", 0, 4, compressed=True, form=form)
    store, report = _convert(path.parent)
    images = store.images(IMAGE)
    row = _read(path, "observations/images/cam_high")[1]
    stored = bytes(images.encoded(0))
    assert bytes(np.asarray(row).tobytes()).rstrip(b"\0") == stored
    assert stored.endswith(b"\xff\xd9")
    error = np.abs(images.decode([0])[0].astype(int) - aloha_pixels(4, 0)[1].astype(int))
    assert error.max() < 12
    assert report.warnings == {}


def test_true_colours_of_other_recorders_can_be_chosen(tmp_path: Path) -> None:
    """With compressed_order=rgb the decoder's colours are taken as they are."""
    path = write_aloha_episode(tmp_path / "task", 0, 4, compressed=True)
    store, _ = _convert(path.parent, compressed_order="rgb")
    red = store.images(IMAGE).decode([0])[0][..., 2].mean()
    assert abs(red - aloha_pixels(4, 0)[1][..., 0].mean()) < 12


def test_raw_and_compressed_files_of_one_task_agree(tmp_path: Path) -> None:
    """compress_data.py rewrites some files; both kinds decode to the same colours."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 4, compressed=True)
    write_aloha_episode(folder, 1, 4)
    images = _convert(folder)[0].images(IMAGE).decode(np.arange(6)).astype(int)
    truth = np.concatenate([aloha_pixels(4, 0)[1:], aloha_pixels(4, 1)[1:]]).astype(int)
    assert np.abs(images - truth).max() < 12
    np.testing.assert_array_equal(images[3:], truth[3:])


def test_frame_that_was_cut_is_not_kept(tmp_path: Path) -> None:
    """A row too short for its JPEG ends without the end marker; most decoders would show half a picture."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 4, compressed=True)
    write_aloha_episode(folder, 1, 4, compressed=True, longest=300)
    _, report = _convert(folder)
    assert "cam_high step 1 holds 300 bytes, expected a whole JPEG" in report.quarantined["episode_1.hdf5"]


def test_order_of_cameras_in_compress_len_does_not_matter(tmp_path: Path) -> None:
    """compress_len lists cameras in the recorder's order, the file by name; lengths come from the frames."""
    path = write_aloha_episode(tmp_path / "task", 0, 4, compressed=True, cameras=("cam_low", "cam_high"))
    _, report = _convert(path.parent)
    assert report.warnings == {}
    with h5py.File(path, "r+") as file:
        stated: Any = file["compress_len"]
        stated[...] = 7
    _, report = _convert(path.parent)
    assert "another length than compress_len states" in report.warnings["episode_0.hdf5"][0]


def test_mobile_base_is_part_of_the_action(tmp_path: Path) -> None:
    """base_action follows the arms, shifted with them, and selects the schema."""
    path = write_aloha_episode(tmp_path / "task", 0, 5, mobile=True)
    store, report = _convert(path.parent)
    assert store.embodiment == "mobile_aloha"
    assert store.features["action"].names[-2:] == ("base_forward", "base_turn")
    np.testing.assert_array_equal(store.column("action")[:, 14:], _read(path, "base_action")[:-1])
    assert report.options["schema"].startswith("mobile_aloha ")


def test_depth_is_kept_as_it_is(tmp_path: Path) -> None:
    """Depth lies among the colour cameras; it is stored apart, without loss, or dropped."""
    path = write_aloha_episode(tmp_path / "task", 0, 5, depth=True)
    store, _ = _convert(path.parent)
    found = store.images("observation.depth.cam_high").decode(np.arange(4))[..., 0]
    np.testing.assert_array_equal(found, _read(path, "observations/images/cam_high_depth")[1:])
    store, _ = _convert(path.parent, depth="drop")
    assert "observation.depth.cam_high" not in store.features


def test_robots_of_other_sizes_keep_their_numbers(tmp_path: Path) -> None:
    """ACT's format with seven joints converts, claiming no meaning, and says so."""
    path = write_aloha_episode(tmp_path / "task", 0, 5, width=7, simulated=True)
    store, _ = _convert(path.parent)
    assert (store.features["action"].shape, store.features["action"].names) == ((7,), ())
    assert "has 7 components, ALOHA has 14" in store.attributes["source"]["warnings"][0]


def test_facts_are_recorded(tmp_path: Path) -> None:
    """50 Hz, the folder's name as instruction, gripper polarity and units."""
    path = write_aloha_episode(tmp_path / "slot_battery", 0, 5)
    store, _ = _convert(path.parent)
    state = store.features["observation.state"]
    assert (store.fps, store.tasks, store.embodiment) == (50.0, ["slot_battery"], "aloha")
    assert (state.names[6], state.units[6], state.gripper) == ("left_gripper", "1", "0=closed,1=open")
    assert store.features[IMAGE].shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("observations/qpos", np.zeros((3, 14), np.float32), "differ in length"),
        ("observations/qpos", np.full((4, 14), np.nan, np.float32), "NaN or infinity"),
        ("observations/qpos", np.zeros((4, 13), np.float32), "13 components"),
        ("action", np.zeros((0, 14), np.float32), "differ in length"),
        ("action", np.array([b"x"] * 4), "expected (T, ...) numbers"),
        ("observations/images/cam_low", np.zeros((3, *SIZE, 3), np.uint8), "observations/images/cam_low 3"),
        ("observations/images/cam_low", np.zeros((4, *SIZE), np.float32), "expected images"),
        ("observations/qvel", None, "observations/qvel is missing"),
    ],
)
def test_bad_episode_is_set_aside_with_its_field(
    tmp_path: Path, key: str, change: np.ndarray | None, message: str
) -> None:
    """Each fault names the key; the other episode is converted."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 4)
    with h5py.File(write_aloha_episode(folder, 1, 4), "r+") as file:
        del file[key]
        if change is not None:
            file[key] = change
    store, report = _convert(folder)
    assert store.n_episodes == 1
    assert message in report.quarantined["episode_1.hdf5"]


def test_one_step_leaves_nothing_to_pair(tmp_path: Path) -> None:
    """A real episode of one row has no earlier action."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 4)
    write_aloha_episode(folder, 1, 1)
    _, report = _convert(folder)
    assert "leave none with action=leader_previous" in report.quarantined["episode_1.hdf5"]


def test_first_file_may_be_damaged(tmp_path: Path) -> None:
    """What the files hold is read from the first that can be used; if there is none, the reason is given."""
    folder = tmp_path / "task"
    path = write_aloha_episode(folder, 0, 4)
    path.write_bytes(b"no HDF5")
    with pytest.raises(DatasetError, match="none of 1 files can be used"):
        _convert(folder)
    write_aloha_episode(folder, 1, 4)
    assert _convert(folder)[0].n_episodes == 1


def test_unknown_choices_are_refused(tmp_path: Path) -> None:
    """Actions and cameras that are not there are errors with the nearest name."""
    folder = write_aloha_episode(tmp_path / "task", 0, 4).parent
    with pytest.raises(DatasetError, match="did you mean 'leader'"):
        _convert(folder, action="leade")
    with pytest.raises(DatasetError, match="did you mean 'cam_high'"):
        _convert(folder, cameras="cam_hihg")


def test_what_all_files_have_is_decided_by_most_of_them(tmp_path: Path) -> None:
    """A first file that lacks an array does not cost the others theirs."""
    folder = tmp_path / "task"
    for number in range(3):
        write_aloha_episode(folder, number, 4)
    with h5py.File(folder / "episode_0.hdf5", "r+") as file:
        del file["observations/effort"]
        del file["observations/images/cam_low"]
    store, report = _convert(folder)
    assert {"observation.joint_effort", "observation.images.cam_low"} <= set(store.features)
    assert list(report.quarantined) == ["episode_0.hdf5"]


def test_claimed_sizes_are_compared_before_anything_is_read(tmp_path: Path) -> None:
    """A header that claims ten million rows costs no memory."""
    folder = tmp_path / "task"
    write_aloha_episode(folder, 0, 4)
    with h5py.File(write_aloha_episode(folder, 1, 4), "r+") as file:
        del file["observations/qvel"]
        file.create_dataset("observations/qvel", shape=(10_000_000, 14), dtype="f4", chunks=(1000, 14))
    _, report = _convert(folder)
    assert "observations/qvel 10000000" in report.quarantined["episode_1.hdf5"]
