"""The exporters to LeRobot v2.1 and v3.0, by way of our own importer and, where installed, of LeRobot itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
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


DEPTH = "observation.depth.top"


def _depth(step: int, seed: int) -> np.ndarray:
    """A depth image [mm] with something near, something far, and pixels without a reading."""
    y, x = np.mgrid[0:30, 0:44]
    depth = 300 + 40 * x + 150 * y + 10 * step + seed
    depth[0, :5] = 0
    depth[1, :5] = 12_345
    return depth[..., None].astype(np.uint16)


@pytest.fixture
def depth_store(tmp_path: Path) -> EpisodeStore:
    """Two episodes with a colour and a depth camera, and labelled parts."""
    features = example_features() | {
        EXAMPLE_IMAGE: Feature(dtype="uint8", shape=(32, 48, 3)),
        DEPTH: Feature(dtype="uint16", shape=(30, 44, 1), units=("mm",)),
    }
    with EpisodeStoreWriter(tmp_path / "depth.zarr", features=features, fps=30, embodiment="toy") as writer:
        for e, n in enumerate((3, 2)):
            data = {STATE: np.zeros((n, 3), np.float32), ACTION: np.ones((n, 2), np.float32)}
            frames = {
                EXAMPLE_IMAGE: [encode_frame(_smooth(i, e), "png") for i in range(n)],
                DEPTH: [encode_frame(_depth(i, e), "png") for i in range(n)],
            }
            parts: list[Segment | dict[str, Any]] = [
                Segment(0, 1, "reach", "r\u00e9ach"),
                Segment(1, n, "grasp", ""),
            ]
            writer.add_episode(Episode(f"e{e}", data, dict(frames), "do it", segments=parts[e:]))
        writer.publish()
    return EpisodeStore.open(tmp_path / "depth.zarr")


@FORMATS
@pytest.mark.parametrize("images", ["video", "image"])
def test_depth_and_segments_come_back_exactly(
    depth_store: EpisodeStore, tmp_path: Path, format: str, images: str
) -> None:
    """Depth is kept as 16-bit images whatever becomes of colour, and labelled parts in a column of our own."""
    back = _back(depth_store, tmp_path, format, images=images)
    assert back.features[DEPTH] == depth_store.features[DEPTH]
    steps = np.arange(5)
    np.testing.assert_array_equal(back.images(DEPTH).decode(steps), depth_store.images(DEPTH).decode(steps))
    assert back.episodes["segments"] == depth_store.episodes["segments"]
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    assert info["features"][DEPTH]["info"] == {"is_depth_map": True, "depth_unit": "mm"}
    assert info["features"][DEPTH]["shape"] == [30, 44, 1]


def test_depth_as_video_is_within_its_coding(depth_store: EpisodeStore, tmp_path: Path) -> None:
    """12-bit codes: a millimetre or two off within the range, which ends at 10 m; the video itself loses nothing."""
    back = _back(depth_store, tmp_path, "lerobot-v3", depth="video")
    steps = np.arange(5)
    before, after = (s.images(DEPTH).decode(steps).astype(int) for s in (depth_store, back))
    assert np.abs(np.clip(before, 10, 10_000) - after).max() <= 2
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["features"][DEPTH]
    assert (info["dtype"], info["info"]["video.codec"], info["info"]["video.pix_fmt"]) == (
        "video",
        "hevc",
        "gray12le",
    )
    assert (info["info"]["is_depth_map"], info["info"]["video.shift"]) == (True, 3.5)
    for name in ("one", "two"):
        export(depth_store, tmp_path / name, format="lerobot-v3", options={"depth": "video"})
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")


def test_what_becomes_of_depth_is_said(depth_store: EpisodeStore, tmp_path: Path) -> None:
    """The coding's limits and depth left out are warnings; v2.1 has no depth videos."""
    report = export(depth_store, tmp_path / "a", format="lerobot-v3", options={"depth": "video"})
    assert "12 bits from 0.01 to 10 m; unknown depth (0) becomes 0.01 m" in report.warnings[0]
    report = export(depth_store, tmp_path / "b", format="lerobot-v2.1", options={"depth": "none"})
    assert report.warnings == [f"{DEPTH}: depth is left out"]
    with pytest.raises(DatasetError, match="choose --option depth=image or the format lerobot-v3"):
        export(depth_store, tmp_path / "c", format="lerobot-v2.1", options={"depth": "video"})


@pytest.mark.parametrize("images", ["video", "image"])
def test_lerobot_itself_opens_the_export(store: EpisodeStore, tmp_path: Path, images: str) -> None:
    """The real LeRobotDataset (0.3: v2.1, 0.4: v3.0) gives exact numbers, right frames, windows padded at the ends."""
    dataset = _opened_by_lerobot(store, tmp_path / "set", {ACTION: [0, 1 / 30]}, images=images)
    assert (dataset.num_episodes, dataset.num_frames) == (3, 13)
    for step in range(13):
        item = dataset[step]
        np.testing.assert_array_equal(item[STATE].numpy(), store.column(STATE)[step])
        np.testing.assert_array_equal(item[ACTION][0].numpy(), store.column(ACTION)[step])
        assert bool(item[f"{ACTION}_is_pad"][1]) == (step + 1 in store.episode_ends)
        assert item["task"] == store.tasks[store.episodes["task_index"][_episode_of(store, step)]]
        expected = store.images(EXAMPLE_IMAGE).decode([step])[0].transpose(2, 0, 1) / 255
        assert np.abs(item[EXAMPLE_IMAGE].numpy() - expected).mean() < 3 / 255
    low, high = (dataset.meta.stats[ACTION][key] for key in ("min", "max"))
    np.testing.assert_allclose(low, store.column(ACTION).min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(high, store.column(ACTION).max(axis=0), rtol=1e-6)


def test_lerobot_itself_reads_our_depth_images(depth_store: EpisodeStore, tmp_path: Path) -> None:
    """Versions that know nothing of depth still load the set, and its 16-bit images with their values."""
    dataset = _opened_by_lerobot(depth_store, tmp_path / "set", None)
    for step in range(5):
        shown = np.asarray(dataset[step][DEPTH]).astype(np.int64).reshape(30, 44)
        np.testing.assert_array_equal(shown, depth_store.images(DEPTH).decode([step])[0, ..., 0])


def _opened_by_lerobot(store: EpisodeStore, folder: Path, windows: Any, **options: str) -> Any:
    """Export in the format that the installed lerobot reads, and open it with that; skip if there is none."""
    module = pytest.importorskip(
        "lerobot.datasets.lerobot_dataset", reason="the lerobot package is not installed"
    )
    format = {"v2.1": "lerobot-v2.1", "v3.0": "lerobot-v3"}[module.CODEBASE_VERSION]
    export(store, folder, format=format, options=options)
    return module.LeRobotDataset("local/set", root=folder, delta_timestamps=windows, video_backend="pyav")


def _episode_of(store: EpisodeStore, step: int) -> int:
    return int(np.searchsorted(store.episode_ends, step, side="right"))
