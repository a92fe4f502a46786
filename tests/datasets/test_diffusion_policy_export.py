"""The exporter of diffusion_policy replay buffers, by way of our own importer and of the original's own rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import tree_digest, write_example_store
from robot_datasets.testing.exports import EXPORT_LENGTHS, assert_same_store, write_store_to_export


def _export(store: EpisodeStore, folder: Path, **options: str) -> Any:
    export(store, folder, format="diffusion_policy_zarr", options=options)
    return zarr.open_group(str(folder), mode="r", zarr_format=2)


def _back(folder: Path, **options: str) -> EpisodeStore:
    target = folder.with_name("back.zarr")
    convert(folder, target, format="diffusion_policy_zarr", options=options)
    return EpisodeStore.open(target)


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    """Numbers of every type, frames, depth, texts, labels, boundaries, rate and conventions come back."""
    store = write_store_to_export(tmp_path / "in.zarr")
    _export(store, tmp_path / "buffer.zarr")
    assert_same_store(_back(tmp_path / "buffer.zarr"), store)


def test_layout_is_the_original_one(tmp_path: Path) -> None:
    """What its ReplayBuffer asserts: zarr v2, steps on axis 0 of every array, chunks on time alone, int64 ends."""
    store = write_store_to_export(tmp_path / "in.zarr")
    root = _export(store, tmp_path / "buffer.zarr")
    assert (tmp_path / "buffer.zarr" / ".zgroup").is_file()
    assert set(root["meta"].array_keys()) == {"episode_ends"}
    assert root["meta/episode_ends"].dtype == np.int64
    assert root["meta/episode_ends"][:].tolist() == np.cumsum(EXPORT_LENGTHS).tolist()
    for key in root["data"].array_keys():
        array = root[f"data/{key}"]
        assert array.shape[0] == sum(EXPORT_LENGTHS)
        assert array.chunks[1:] == array.shape[1:]
    assert root["data/action"].dtype == np.float32
    assert (root["data/top"].dtype, root["data/top"].shape[1:]) == (np.uint8, (8, 10, 3))
    assert {"action", "state", "poses", "contact", "count", "next.reward", "top", "depth_top"} == set(
        root["data"].array_keys()
    )


def test_readers_of_buffers_get_plain_numbers(tmp_path: Path) -> None:
    """Without our attributes the buffer is still a whole one: states, actions, frames, boundaries."""
    store = write_store_to_export(tmp_path / "in.zarr")
    _export(store, tmp_path / "buffer.zarr")
    (tmp_path / "buffer.zarr" / ".zattrs").unlink()
    back = _back(tmp_path / "buffer.zarr", fps="10")
    for name in ("action", "observation.state"):
        np.testing.assert_array_equal(back.column(name), store.column(name))
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    steps = np.arange(store.n_steps)
    for name in ("observation.images.top", "observation.depth.top"):
        np.testing.assert_array_equal(back.images(name).decode(steps), store.images(name).decode(steps))


def test_attributes_of_changed_arrays_are_not_used(tmp_path: Path) -> None:
    """Somebody appended an episode with the original's code: the record no longer fits, which is said."""
    root_path = tmp_path / "buffer.zarr"
    _export(write_store_to_export(tmp_path / "in.zarr"), root_path)
    root = zarr.open_group(str(root_path), mode="r+", zarr_format=2)
    ends: Any = root["meta/episode_ends"]
    cut = ends[:-1]
    ends.resize(cut.shape)
    for key in list(root["data"].array_keys()):  # type: ignore[union-attr]
        array: Any = root[f"data/{key}"]
        array.resize((int(cut[-1]), *array.shape[1:]))
    back = _back(root_path, fps="10")
    assert "does not fit the arrays (2 episodes instead of 3)" in back.attributes["source"]["warnings"][0]
    assert back.episodes["source_id"] == ["episode_000000", "episode_000001"]


def test_pusht_arrays_get_their_own_names_back(
    tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """A store made from PushT's buffer is written with its keys and shapes: the same numbers as at first."""
    source = write_replay_buffer(tmp_path / "source.zarr")
    convert(source, tmp_path / "store.zarr")
    store = EpisodeStore.open(tmp_path / "store.zarr")
    _assert_same_arrays(zarr.open_group(str(source), mode="r"), _export(store, tmp_path / "out.zarr"))
    assert_same_store(_back(tmp_path / "out.zarr"), store)


def test_published_pusht_comes_back_as_it_was(tmp_path: Path, shared_data: Path) -> None:
    """The beginning of the published demonstrations, to the bit; images as uint8 of the same values."""
    with ZipStore(shared_data / "pusht" / "pusht_cchi_v7_replay.zarr.zip", mode="r") as zipped:
        group: Any = zarr.open_group(zipped, mode="r")
        folder = next((f"{name}/" for name in group.group_keys() if name not in ("data", "meta")), "")
        whole: Any = group[f"{folder}data"]
        source = zarr.create_group(str(tmp_path / "source.zarr"), zarr_format=2)
        for key in whole.array_keys():
            rows = whole[key][:1500]
            array = source.create_array(
                f"data/{key}", shape=rows.shape, dtype=rows.dtype, chunks=(161, *rows.shape[1:])
            )
            array[...] = rows
    convert(tmp_path / "source.zarr", tmp_path / "store.zarr", format="diffusion_policy_zarr")
    store = EpisodeStore.open(tmp_path / "store.zarr")
    assert store.n_episodes > 8
    _assert_same_arrays(source, _export(store, tmp_path / "out.zarr"))


def _assert_same_arrays(original: Any, found: Any) -> None:
    assert set(original["data"].array_keys()) == set(found["data"].array_keys())
    for key in original["data"].array_keys():
        before, after = original[f"data/{key}"], found[f"data/{key}"]
        assert before.shape == after.shape
        assert after.dtype == (np.uint8 if key == "img" else before.dtype)
        np.testing.assert_array_equal(before[...], after[...])


def test_same_store_gives_same_bytes(tmp_path: Path) -> None:
    """Compression does not depend on threads."""
    store = write_store_to_export(tmp_path / "in.zarr")
    for name in ("a.zarr", "b.zarr"):
        _export(store, tmp_path / name)
    assert tree_digest(tmp_path / "a.zarr") == tree_digest(tmp_path / "b.zarr")


def test_progress_ends_with_all_episodes(tmp_path: Path) -> None:
    """It counts upwards and reaches the number of episodes."""
    store, seen = write_store_to_export(tmp_path / "in.zarr"), []
    export(
        store,
        tmp_path / "out.zarr",
        format="diffusion_policy_zarr",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (3, 3)


def test_frames_of_varying_size_are_refused(tmp_path: Path) -> None:
    """An array has one size; nothing is resized silently, and nothing is left behind."""
    store = write_store_to_export(tmp_path / "in.zarr", varying=True)
    with pytest.raises(DatasetError, match="frames of varying size"):
        _export(store, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_losses_are_reported(tmp_path: Path) -> None:
    """The report says what other readers will not find."""
    report = export(
        write_store_to_export(tmp_path / "in.zarr"), tmp_path / "out.zarr", format="diffusion_policy_zarr"
    )
    assert report.warnings == [
        "instructions, success, splits, segments, rate, units are kept in the attributes only, where "
        "diffusion_policy does not look"
    ]


def test_only_buffers_are_overwritten(tmp_path: Path) -> None:
    """An export may replace an earlier one, but not a folder of something else."""
    store = write_example_store(tmp_path / "in.zarr", [3])
    for _ in range(2):
        export(store, tmp_path / "out.zarr", format="diffusion_policy_zarr", overwrite=True)
    (tmp_path / "notes").mkdir()
    with pytest.raises(DatasetError, match="not a dataset of this format"):
        export(store, tmp_path / "notes", format="diffusion_policy_zarr", overwrite=True)
