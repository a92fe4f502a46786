"""The exporters to LeRobot v2.1 and v3.0, by way of our own importer and, where installed, of LeRobot itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robot_datasets.convert import convert
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.statistics import STATISTICS
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import EXAMPLE_IMAGE, example_features, tree_digest, write_example_store

LENGTHS = [4, 3, 6]
FORMATS = pytest.mark.parametrize("format", ["lerobot-v2.1", "lerobot-v3"])


def _smooth(step: int, seed: int) -> np.ndarray:
    """A picture that video coding keeps: gentle gradients, told apart by step and seed."""
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([x * 4, y * 6, np.full_like(x, 20 + step * 15 + seed * 40)], axis=-1).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Three episodes with a camera, scalars, a matrix, labels, and a rate that binary fractions cannot hold."""
    random = np.random.default_rng(1)
    features = example_features() | {
        EXAMPLE_IMAGE: Feature(dtype="uint8", shape=(32, 48, 3)),
        "observation.poses": Feature(dtype="float64", shape=(2, 3), units=("m",)),
        "observation.contact": Feature(dtype="bool", shape=(1,)),
        "next.reward": Feature(dtype="float32", shape=(1,)),
    }
    with EpisodeStoreWriter(tmp_path / "in.zarr", features=features, fps=30, embodiment="example") as writer:
        for e, n in enumerate(LENGTHS):
            data = {
                STATE: random.normal(size=(n, 3)).astype(np.float32),
                ACTION: random.normal(size=(n, 2)).astype(np.float32),
                "observation.poses": random.normal(size=(n, 2, 3)),
                "observation.contact": random.random((n, 1)) < 0.5,
                "next.reward": random.normal(size=(n, 1)).astype(np.float32),
            }
            frames = [encode_frame(_smooth(step, e), "png") for step in range(n)]
            success, split = (True, False, None)[e], ("train", "val", "")[e]
            writer.add_episode(
                Episode(f"e{e}", data, {EXAMPLE_IMAGE: frames}, f"task {e % 2}", success, split)
            )
        writer.publish()
    return EpisodeStore.open(tmp_path / "in.zarr")


def _back(store: EpisodeStore, folder: Path, format: str, **options: str) -> EpisodeStore:
    export(store, folder / "set", format=format, options=options)
    convert(folder / "set", folder / "back.zarr", options={"image_encoding": "png"})
    return EpisodeStore.open(folder / "back.zarr")


@FORMATS
def test_round_trip_keeps_every_number(store: EpisodeStore, tmp_path: Path, format: str) -> None:
    """Store to LeRobot to store: all numbers to the bit, and rate, robot, tasks, lengths, success, split, meanings."""
    back = _back(store, tmp_path, format)
    for name in store.spec.low_dim:
        np.testing.assert_array_equal(back.column(name), store.column(name))
        assert back.column(name).dtype == store.column(name).dtype
        assert back.features[name] == store.features[name]
    np.testing.assert_array_equal(back.episode_ends, store.episode_ends)
    for column in ("task_index", "success", "n_steps"):
        np.testing.assert_array_equal(back.episodes[column], store.episodes[column])
    assert back.episodes["split"] == store.episodes["split"]
    assert (back.tasks, back.fps, back.embodiment) == (store.tasks, store.fps, store.embodiment)
    assert back.attributes["source"]["warnings"] == []


@FORMATS
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_video_round_trip_keeps_frames_within_tolerance(
    store: EpisodeStore, tmp_path: Path, format: str, codec: str
) -> None:
    """Frames come back in order, a few grey levels off at most on average."""
    back = _back(store, tmp_path, format, codec=codec)
    steps = np.arange(store.n_steps)
    before, after = (s.images(EXAMPLE_IMAGE).decode(steps).astype(int) for s in (store, back))
    assert np.abs(before - after).mean(axis=(1, 2, 3)).max() < 3


@FORMATS
def test_image_columns_round_trip_exactly(store: EpisodeStore, tmp_path: Path, format: str) -> None:
    """With images=image the encoded frames come back byte for byte, and there is no video."""
    back = _back(store, tmp_path, format, images="image")
    before, after = store.images(EXAMPLE_IMAGE), back.images(EXAMPLE_IMAGE)
    assert [bytes(before.encoded(i)) for i in range(13)] == [bytes(after.encoded(i)) for i in range(13)]
    assert not (tmp_path / "set" / "videos").exists()
    assert json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["video_path"] is None


def test_shared_files_roll_over(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v3.0 begins a new file at the size limit, between episodes, and the episode table says which one."""
    monkeypatch.setattr("robot_datasets.exporters.lerobot_shared.DATA_FILE_MB", 0)
    monkeypatch.setattr("robot_datasets.exporters.lerobot_shared.VIDEO_FILE_MB", 0)
    back = _back(store, tmp_path, "lerobot-v3")
    np.testing.assert_array_equal(back.column(ACTION), store.column(ACTION))
    table = pq.read_table(tmp_path / "set" / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    assert table["data/file_index"].to_pylist() == [0, 1, 2]
    assert table[f"videos/{EXAMPLE_IMAGE}/file_index"].to_pylist() == [0, 1, 2]
    assert table["dataset_to_index"].to_pylist() == [4, 7, 13]


def test_v3_metadata_is_as_documented(store: EpisodeStore, tmp_path: Path) -> None:
    """Times in the shared video, statistics in LeRobot's shapes and units, instructions as pandas' index."""
    export(store, tmp_path / "set", format="lerobot-v3")
    meta = tmp_path / "set" / "meta"
    table = pq.read_table(meta / "episodes" / "chunk-000" / "file-000.parquet")
    assert table[f"videos/{EXAMPLE_IMAGE}/from_timestamp"].to_pylist() == [0, 4 / 30, 7 / 30]
    assert table[f"stats/{ACTION}/count"].to_pylist() == [[4], [3], [6]]
    stats = json.loads((meta / "stats.json").read_text())
    assert np.shape(stats[EXAMPLE_IMAGE]["mean"]) == (3, 1, 1)
    assert 0 <= np.min(stats[EXAMPLE_IMAGE]["min"]) <= np.max(stats[EXAMPLE_IMAGE]["max"]) <= 1
    np.testing.assert_array_equal(stats[ACTION]["q99"], store.stats(ACTION).q99)
    assert set(stats["timestamp"]) == set(STATISTICS)
    tasks = pq.read_table(meta / "tasks.parquet")
    assert tasks["task_index"].to_pylist() == [0, 1]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    rows = pq.read_table(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet")
    times = (np.asarray(rows["frame_index"]) / 30).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(rows["timestamp"]), times)
    info = json.loads((meta / "info.json").read_text())
    assert (info["codebase_version"], info["total_frames"], info["fps"]) == ("v3.0", 13, 30)
    assert info["features"]["next.reward"]["shape"] == [1]


def test_v21_metadata_is_as_documented(store: EpisodeStore, tmp_path: Path) -> None:
    """Per-episode statistics replace the global ones, and the totals count videos and chunks."""
    export(store, tmp_path / "set", format="lerobot-v2.1")
    meta = tmp_path / "set" / "meta"
    stats = [json.loads(line) for line in (meta / "episodes_stats.jsonl").read_text().splitlines()]
    assert [entry["stats"][ACTION]["count"] for entry in stats] == [[4], [3], [6]]
    np.testing.assert_array_equal(stats[1]["stats"][ACTION]["min"], store.column(ACTION)[4:7].min(axis=0))
    info = json.loads((meta / "info.json").read_text())
    assert (info["total_videos"], info["total_chunks"], info["total_episodes"]) == (3, 1, 3)
    assert not (meta / "stats.json").exists()


@FORMATS
def test_export_is_repeatable(store: EpisodeStore, tmp_path: Path, format: str) -> None:
    """The same store gives the same bytes."""
    for name in ("one", "two"):
        export(store, tmp_path / name, format=format)
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")


def test_nothing_appears_if_it_fails(store: EpisodeStore, tmp_path: Path) -> None:
    """An export that stops half-way leaves neither a dataset nor a staging folder, and an old one stays."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(store, tmp_path / "set", format="lerobot-v3", progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr"]
    export(store, tmp_path / "set", format="lerobot-v2.1", options={"images": "image"})
    before = tree_digest(tmp_path / "set")
    with pytest.raises(KeyboardInterrupt):
        export(store, tmp_path / "set", format="lerobot-v3", overwrite=True, progress=stop)
    assert tree_digest(tmp_path / "set") == before


def test_only_lerobot_datasets_are_overwritten(store: EpisodeStore, tmp_path: Path) -> None:
    """Without --overwrite nothing is replaced; with it, only a dataset of the same kind."""
    options = {"images": "image"}
    export(store, tmp_path / "set", format="lerobot-v2.1", options=options)
    with pytest.raises(DatasetError, match="already exists"):
        export(store, tmp_path / "set", format="lerobot-v3", options=options)
    export(store, tmp_path / "set", format="lerobot-v3", options=options, overwrite=True)
    assert json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["codebase_version"] == "v3.0"
    assert not (tmp_path / "set" / "meta" / "tasks.jsonl").exists()
    with pytest.raises(DatasetError, match="not a dataset of this format"):
        export(store, tmp_path / "in.zarr", format="lerobot-v3", options=options, overwrite=True)
    assert EpisodeStore.open(tmp_path / "in.zarr").n_episodes == 3


def test_what_the_format_cannot_hold_is_said(tmp_path: Path) -> None:
    """Odd frame sizes are refused for video with the remedy; unknown names get the nearest match."""
    odd = write_example_store(tmp_path / "odd.zarr", [2], image_size=9)
    with pytest.raises(DatasetError, match="9x9 px, video needs even sizes; choose --option images=image"):
        export(odd, tmp_path / "set", format="lerobot-v3")
    with pytest.raises(DatasetError, match="did you mean 'lerobot-v3'"):
        export(odd, tmp_path / "set", format="lerobot-v4")
    with pytest.raises(DatasetError, match="crf: got 'good'"):
        export(odd, tmp_path / "set", format="lerobot-v3", options={"images": "image", "crf": "good"})
    assert export(odd, tmp_path / "set", format="lerobot-v3", options={"images": "image"}).warnings == []


@pytest.mark.parametrize("images", ["video", "image"])
def test_lerobot_itself_opens_the_export(store: EpisodeStore, tmp_path: Path, images: str) -> None:
    """The real LeRobotDataset reads our v3.0 export: numbers exact, frames right, windows padded at the ends."""
    module = pytest.importorskip(
        "lerobot.datasets.lerobot_dataset", reason="the lerobot package is not installed"
    )
    export(store, tmp_path / "set", format="lerobot-v3", options={"images": images})
    dataset = module.LeRobotDataset(
        "local/set", root=tmp_path / "set", delta_timestamps={ACTION: [0, 1 / 30]}, video_backend="pyav"
    )
    assert (dataset.num_episodes, dataset.num_frames) == (3, 13)
    for step in range(13):
        item = dataset[step]
        np.testing.assert_array_equal(item[STATE].numpy(), store.column(STATE)[step])
        np.testing.assert_array_equal(item[ACTION][0].numpy(), store.column(ACTION)[step])
        assert bool(item[f"{ACTION}_is_pad"][1]) == (step + 1 in store.episode_ends)
        expected = store.images(EXAMPLE_IMAGE).decode([step])[0].transpose(2, 0, 1) / 255
        assert np.abs(item[EXAMPLE_IMAGE].numpy() - expected).mean() < 3 / 255
