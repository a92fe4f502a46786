"""The exporter to robomimic, by way of our own importer and of the rules of robomimic's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_datasets.convert import convert
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.schemas import load_schema
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing.exports import EXPORT_LENGTHS, assert_same_store, write_store_to_export


def _export(store: EpisodeStore, file: Path, **options: str) -> Path:
    export(store, file, format="robomimic_hdf5", options=options)
    return file


def _back(file: Path, **options: str) -> EpisodeStore:
    target = file.with_name("back.zarr")
    convert(file, target, format="robomimic_hdf5", options=options)
    return EpisodeStore.open(target)


@pytest.mark.parametrize("options", [{}, {"next_obs": "none", "compression": "gzip"}])
def test_round_trip_keeps_everything(tmp_path: Path, options: dict[str, str]) -> None:
    """Numbers of every type, frames, depth, texts, labels, boundaries, rate and conventions come back."""
    store = write_store_to_export(tmp_path / "in.zarr")
    assert_same_store(_back(_export(store, tmp_path / "out.hdf5", **options)), store)


def test_layout_is_robomimics(tmp_path: Path) -> None:
    """What its SequenceDataset relies on: counts, keys of one length, masks of names, nothing else below data."""
    store = write_store_to_export(tmp_path / "in.zarr")
    with h5py.File(_export(store, tmp_path / "out.hdf5")) as root:
        data: Any = root["data"]
        assert sorted(data) == ["demo_0", "demo_1", "demo_2"]
        assert data.attrs["total"] == sum(EXPORT_LENGTHS)
        arguments = json.loads(data.attrs["env_args"])
        assert set(arguments) == {"env_name", "type", "env_kwargs"}
        for n, demo in zip(EXPORT_LENGTHS, data.values(), strict=True):
            assert demo.attrs["num_samples"] == n
            assert {"actions", "rewards", "dones", "obs", "next_obs"} == set(demo)
            assert demo["rewards"].shape == demo["dones"].shape == (n,)
            assert all(len(array) == n for array in [*demo["obs"].values(), *demo["next_obs"].values()])
        assert {"state", "poses", "contact", "count", "top_image", "top_depth"} == set(data["demo_0/obs"])
        masks: Any = root["mask"]
        assert {key: masks[key][:].tolist() for key in masks} == {"train": [b"demo_0"], "valid": [b"demo_1"]}


def test_next_observations_are_one_step_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and frames alike, across the blocks in which frames are written; the last one is repeated."""
    monkeypatch.setattr("robot_datasets.exporters.robomimic._FRAMES_AT_ONCE", 2)
    store = write_store_to_export(tmp_path / "in.zarr")
    with h5py.File(_export(store, tmp_path / "out.hdf5")) as root:
        demo: Any = root["data/demo_1"]  # three steps: a whole block and a half
        for key in demo["obs"]:
            now, following = demo["obs"][key][:], demo["next_obs"][key][:]
            np.testing.assert_array_equal(following, np.concatenate([now[1:], now[-1:]]))


def test_readers_of_robomimic_get_plain_numbers(tmp_path: Path) -> None:
    """Without our text the file is still a whole one."""
    store = write_store_to_export(tmp_path / "in.zarr")
    file = _export(store, tmp_path / "out.hdf5")
    with h5py.File(file, "r+") as root:
        del root["robot_policies"]
    back = _back(file)
    for name in (ACTION, STATE, "observation.poses", "next.reward"):
        np.testing.assert_array_equal(back.column(name).reshape(store.column(name).shape), store.column(name))
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    assert back.fps == store.fps
    assert back.episodes["split"] == store.episodes["split"]


def test_text_of_a_changed_file_is_not_used(tmp_path: Path) -> None:
    """A demonstration was removed with other tools: the record no longer fits, which is said."""
    file = _export(write_store_to_export(tmp_path / "in.zarr"), tmp_path / "out.hdf5")
    with h5py.File(file, "r+") as root:
        del root["data/demo_0"]
    back = _back(file)
    assert back.episodes["source_id"] == ["demo_1", "demo_2"]
    assert "2 episodes instead of 3" in back.attributes["source"]["warnings"][0]


def test_values_that_no_longer_fit_their_type_are_set_aside(tmp_path: Path) -> None:
    """A flag that was overwritten with a number is not turned back into a flag."""
    file = _export(write_store_to_export(tmp_path / "in.zarr"), tmp_path / "out.hdf5")
    with h5py.File(file, "r+") as root:
        del root["data/demo_0/obs/contact"]
        root["data/demo_0/obs/contact"] = np.full((4, 1), 7)
    target = tmp_path / "back.zarr"
    report = convert(file, target, format="robomimic_hdf5")
    assert "bool cannot" in report.quarantined["take/0"]


def test_robosuite_states_get_their_own_keys(tmp_path: Path) -> None:
    """A state of robosuite's components is divided into the arrays that its policies read."""
    feature = load_schema("robosuite").feature(STATE)
    action = Feature(dtype="float32", shape=(2,))
    random = np.random.default_rng(0)
    with EpisodeStoreWriter(
        tmp_path / "in.zarr", features={STATE: feature, ACTION: action}, fps=20, embodiment="panda"
    ) as writer:
        data = {STATE: random.normal(size=(5, 9)).astype(np.float32), ACTION: np.zeros((5, 2), np.float32)}
        writer.add_episode(Episode("a", data, success=True))
        writer.publish()
    store = EpisodeStore.open(tmp_path / "in.zarr")
    file = _export(store, tmp_path / "out.hdf5")
    with h5py.File(file) as root:
        demo: Any = root["data/demo_0"]
        assert {key: demo["obs"][key].shape for key in demo["obs"]} == {
            "robot0_eef_pos": (5, 3),
            "robot0_eef_quat": (5, 4),
            "robot0_gripper_qpos": (5, 2),
        }
        assert demo["rewards"][:].tolist() == [0, 0, 0, 0, 1]
        assert demo["dones"][:].tolist() == [0, 0, 0, 0, 1]
    assert_same_store(_back(file), store)


def test_real_recordings_round_trip(tmp_path: Path, shared_data: Path) -> None:
    """Robosuite's human demonstrations: to a store, to a file, to the same store; the environment comes along."""
    convert(shared_data / "robosuite_v1_lift_wipe" / "lift" / "demo.hdf5", tmp_path / "in.zarr")
    store = EpisodeStore.open(tmp_path / "in.zarr")
    back = _back(_export(store, tmp_path / "out.hdf5"))
    assert_same_store(back, store)
    for key in ("env_name", "robots", "controller_configs"):
        assert back.attributes["source"]["environment"][key] == store.attributes["source"]["environment"][key]


def test_a_store_without_observations_is_refused(tmp_path: Path) -> None:
    """Robomimic needs at least one."""
    action = Feature(dtype="float32", shape=(2,))
    with EpisodeStoreWriter(tmp_path / "in.zarr", features={ACTION: action}, fps=20, embodiment="") as writer:
        writer.add_episode(Episode("a", {ACTION: np.zeros((5, 2), np.float32)}))
        writer.publish()
    with pytest.raises(DatasetError, match="has no observations"):
        _export(EpisodeStore.open(tmp_path / "in.zarr"), tmp_path / "out.hdf5")


def test_same_store_gives_same_bytes(tmp_path: Path) -> None:
    """No times and no random order are written."""
    store = write_store_to_export(tmp_path / "in.zarr")
    first, second = (_export(store, tmp_path / name).read_bytes() for name in ("a.hdf5", "b.hdf5"))
    assert first == second


def test_export_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that fails half-way leaves no file, and the old one where there was one."""
    store = write_store_to_export(tmp_path / "in.zarr")
    file = _export(store, tmp_path / "out.hdf5")
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robot_datasets.exporters.robomimic._write_frames", fail)
    for target in (file, tmp_path / "new.hdf5"):
        with pytest.raises(DatasetError, match="free some space"):
            export(store, target, format="robomimic_hdf5", overwrite=True)
    assert file.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out.hdf5"]


def test_only_such_files_are_overwritten(tmp_path: Path) -> None:
    """An export may replace an earlier one, but neither other files nor a name of another kind."""
    store = write_store_to_export(tmp_path / "in.zarr")
    for _ in range(2):
        export(store, tmp_path / "out.hdf5", format="robomimic_hdf5", overwrite=True)
    (tmp_path / "notes.hdf5").write_text("mine")
    with pytest.raises(DatasetError, match="not a dataset of this format"):
        export(store, tmp_path / "notes.hdf5", format="robomimic_hdf5", overwrite=True)
    with pytest.raises(DatasetError, match=r"end its name in \.hdf5 or \.h5"):
        _export(store, tmp_path / "folder")


def test_losses_are_reported(tmp_path: Path) -> None:
    """The report says what is made up and what other readers will not find; varying sizes are refused."""
    report = export(
        write_store_to_export(tmp_path / "in.zarr"), tmp_path / "out.hdf5", format="robomimic_hdf5"
    )
    assert [warning.split()[0] for warning in report.warnings] == ["instructions,", "dones", "next_obs"]
    with pytest.raises(DatasetError, match="frames of varying size"):
        _export(write_store_to_export(tmp_path / "v.zarr", varying=True), tmp_path / "v.hdf5")
