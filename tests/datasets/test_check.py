"""`check` finds what opening a store does not look for."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_datasets.check import check_store
from robot_datasets.store import EpisodeStore
from robot_datasets.store.checksum import new_checksum
from robot_datasets.summary import summarise
from robot_datasets.testing import EXAMPLE_IMAGE, write_example_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound store of three episodes with images."""
    write_example_store(tmp_path / "s.zarr", [3, 5, 2], image_size=8)
    return tmp_path / "s.zarr"


def _overwrite(path: Path, array: str, where: object, value: object) -> None:
    zarr.open_array(path / array, mode="r+")[where] = value  # type: ignore[index]


def _kinds(path: Path) -> list[tuple[str, int | None, str]]:
    report = check_store(EpisodeStore.open(path))
    assert report.ok == (not report.problems)
    return [(p.kind, p.episode, p.feature) for p in report.problems]


def test_a_sound_store_has_no_problems(path: Path) -> None:
    """Everything is read: all episodes, steps and frames are counted."""
    calls = []
    report = check_store(EpisodeStore.open(path), progress=lambda done, total: calls.append((done, total)))
    assert report.ok
    assert (report.n_episodes, report.n_steps, report.n_frames) == (3, 10, 10)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_nan_is_found_with_episode_and_feature(path: Path) -> None:
    """A NaN names its episode, feature and step; the content no longer fits checksum and statistics."""
    _overwrite(path, "data/action", 4, np.nan)
    kinds = _kinds(path)
    assert ("values", 1, "action") in kinds
    assert ("checksum", 1, "") in kinds
    assert ("statistics", None, "action") in kinds
    (problem,) = (p for p in check_store(EpisodeStore.open(path)).problems if p.kind == "values")
    assert (
        str(problem) == "episode 1 (episode_0001), action: NaN or infinity in 1 of 5 steps, first at step 1"
    )


def test_a_changed_number_breaks_the_checksum(path: Path) -> None:
    """A value inside the range is found by the checksum alone."""
    column = EpisodeStore.open(path).column("action")
    _overwrite(path, "data/action", 9, np.median(column, axis=0))
    assert ("checksum", 2, "") in _kinds(path)


def test_checksums_of_earlier_stores_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose checksums are BLAKE2b, 16 bytes wide, is sound, and a changed number breaks them as well."""
    with monkeypatch.context() as earlier:
        earlier.setattr("robot_datasets.store.record.new_checksum", lambda: new_checksum(16))
        store = write_example_store(tmp_path / "s.zarr", [3, 5, 2], image_size=8)
    assert store.episodes["checksum"].shape == (3, 16)
    assert check_store(store).ok
    _overwrite(tmp_path / "s.zarr", "data/action", 9, np.median(store.column("action"), axis=0))
    assert ("checksum", 2, "") in _kinds(tmp_path / "s.zarr")


def test_a_damaged_frame_is_found(path: Path) -> None:
    """Bytes flipped within a frame's pixels are found by decoding it, and by the checksum."""
    images = EpisodeStore.open(path).images(EXAMPLE_IMAGE)
    payload = path / "images/top/bytes/c/0"
    data = bytearray(payload.read_bytes())
    start, stop = images.offsets[8:10]
    data[start + 45 : stop - 20] = b"\xff" * (stop - start - 65)
    payload.write_bytes(data)
    assert ("frame", 2, EXAMPLE_IMAGE) in _kinds(path)
    assert ("checksum", 2, "") in _kinds(path)


def test_offsets_that_do_not_fit_are_found(path: Path) -> None:
    """Offsets that run backwards are a problem of the whole camera."""
    _overwrite(path, "images/top/offsets", 4, 10**6)
    assert ("structure", None, EXAMPLE_IMAGE) in _kinds(path)


def test_inconsistent_metadata_is_found(path: Path) -> None:
    """Lengths and task numbers that contradict the rest are listed."""
    _overwrite(path, "meta/episodes/n_steps", 1, 6)
    _overwrite(path, "meta/episodes/task_index", 0, 9)
    details = [p.detail for p in check_store(EpisodeStore.open(path)).problems]
    assert "n_steps differs from the distances of episode_ends" in details
    assert any("task_index reaches 9, but there are 2 tasks" in d for d in details)


def test_a_missing_chunk_is_a_problem_not_a_crash(path: Path) -> None:
    """The check goes on after a column that cannot be read."""
    (path / "data/action/c/0/0").unlink()
    assert ("structure", None, "action") in _kinds(path)


def test_the_summary_counts(path: Path) -> None:
    """The summary holds what a person wants to know first."""
    summary = summarise(EpisodeStore.open(path))
    assert (summary["n_episodes"], summary["n_steps"], summary["seconds"]) == (3, 10, 1.0)
    assert summary["episode_length"] == {"min": 2, "median": 3.0, "max": 5}
    assert summary["tasks"] == [{"task": "task 0", "n_episodes": 2}, {"task": "task 1", "n_episodes": 1}]
    assert summary["success"] == {"yes": 0, "no": 0, "unknown": 3}
    assert summary["features"][EXAMPLE_IMAGE]["encoding"] == "png"
    assert summary["bytes"] > 0
