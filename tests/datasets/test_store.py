"""The episode store: what goes in comes out, and bad input is refused without a trace."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.check import check_store
from robot_datasets.episode import Episode, EpisodeError, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import (
    EXAMPLE_IMAGE,
    EpisodeStoreTests,
    example_episodes,
    example_features,
    tree_digest,
    write_example_store,
)

FEATURES = example_features()
DEPTH = "observation.depth.wrist"


class TestExampleStore(EpisodeStoreTests):
    def write_store(self, path: Path) -> None:
        write_example_store(path, [3, 1, 6], image_size=8)


def _episode(name: str = "e", n: int = 3, **changes: object) -> Episode:
    data = {"observation.state": np.ones((n, 3), np.float32), "action": np.zeros((n, 2), np.float32)}
    return Episode(**({"source_id": name, "data": data} | changes))  # type: ignore[arg-type]


def _writer(path: Path, **changes: object) -> EpisodeStoreWriter:
    arguments = {"features": FEATURES, "fps": 10.0, "embodiment": "example"} | changes
    return EpisodeStoreWriter(path, **arguments)  # type: ignore[arg-type]


@st.composite
def ragged_stores(draw: st.DrawFn) -> tuple[dict[str, Feature], list[Episode], dict[str, str], int]:
    """Features of any type and shape, episodes of any lengths, frames of both encodings, tiny payload files."""
    dtypes = st.sampled_from(["float32", "float64", "int64", "int32", "uint8", "uint16", "bool"])
    shapes = st.lists(st.integers(1, 3), max_size=2).map(tuple)
    low = draw(
        st.dictionaries(
            st.sampled_from(["action", "observation.a", "b"]), st.tuples(dtypes, shapes), min_size=1
        )
    )
    encoding = draw(st.sampled_from(["png", "raw"]))
    features = {name: Feature(dtype=d, shape=s) for name, (d, s) in low.items()}
    features[EXAMPLE_IMAGE] = Feature(dtype="uint8", shape=(2, 3, 3))
    features[DEPTH] = Feature(dtype="uint16", shape=(0, 0, 1))
    episodes = []
    for index, n in enumerate(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))):
        random = np.random.default_rng(draw(st.integers(0, 99)))
        data = {
            name: random.integers(0, 2 if f.dtype == "bool" else 200, (n, *f.shape)).astype(f.dtype)
            for name, f in features.items()
            if name in low
        }
        size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        images = {
            EXAMPLE_IMAGE: [
                encode_frame(i, encoding) for i in random.integers(0, 256, (n, 2, 3, 3), dtype=np.uint8)
            ],
            DEPTH: [
                encode_frame(i, "png") for i in random.integers(0, 65536, (n, *size, 1), dtype=np.uint16)
            ],
        }
        labels = {
            "task": draw(st.text(max_size=5)),
            "success": draw(st.sampled_from([None, True, False])),
            "split": draw(st.sampled_from(["", "train", "val"])),
            "segments": [Segment(0, n, draw(st.text(max_size=3)), "x")],
        }
        episodes.append(Episode(f"é {index}", data, dict(images), **labels))
    return features, episodes, {EXAMPLE_IMAGE: encoding, DEPTH: "png"}, draw(st.integers(16, 4096))


@settings(max_examples=8)
@given(ragged_stores())
def test_any_episodes_round_trip(tmp_path_factory: pytest.TempPathFactory, case: tuple) -> None:
    """Every number, frame, text and label comes back; the check finds nothing; plain zarr reads the payload."""
    import zarr

    features, episodes, encodings, chunk = case
    path = tmp_path_factory.mktemp("s") / "store.zarr"
    with EpisodeStoreWriter(
        path, features=features, fps=7.5, embodiment="x", image_encodings=encodings, image_chunk_bytes=chunk
    ) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.publish()
    store = EpisodeStore.open(path)
    assert check_store(store).problems == []
    assert store.features == features
    for name in store.spec.low_dim:
        np.testing.assert_array_equal(store.column(name), np.concatenate([e.data[name] for e in episodes]))
    for name in store.spec.image_features:
        frames = [frame for e in episodes for frame in e.images[name]]
        assert [bytes(f) for f in store.images(name).encoded_many(range(len(frames)))] == frames
        plain: Any = zarr.open_array(
            path / ("images/top" if name == EXAMPLE_IMAGE else "depth/wrist") / "bytes", mode="r"
        )
        assert bytes(plain[:]) == b"".join(frames)
    columns = store.episodes
    assert columns["source_id"] == [e.source_id for e in episodes]
    assert [store.tasks[i] for i in columns["task_index"]] == [e.task for e in episodes]
    assert [{-1: None, 0: False, 1: True}[s] for s in columns["success"].tolist()] == [
        e.success for e in episodes
    ]
    assert columns["split"] == [e.split for e in episodes]
    assert columns["segments"] == [e.segments for e in episodes]


def test_windows_of_one_frame_are_views_of_the_file(tmp_path: Path) -> None:
    """Reading a frame of a local store copies nothing."""
    store = write_example_store(tmp_path / "s.zarr", [4], image_size=8)
    frame = store.images(EXAMPLE_IMAGE).encoded(2)
    assert isinstance(frame, memoryview)
    assert frame.readonly
    assert type(frame.obj).__name__ == "mmap"


def test_columns_are_read_once_and_cannot_be_changed(tmp_path: Path) -> None:
    """All users of a column share one read-only array."""
    store = write_example_store(tmp_path / "s.zarr", [4])
    assert store.column("action") is store.column("action")
    with pytest.raises(ValueError, match="read-only"):
        store.column("action")[0] = 1


def test_decode_fills_a_given_array(tmp_path: Path) -> None:
    """Frames may be decoded into a buffer that the caller keeps."""
    store = write_example_store(tmp_path / "s.zarr", [4], image_size=8)
    out = np.zeros((2, 8, 8, 3), np.uint8)
    assert store.images(EXAMPLE_IMAGE).decode([3, 0], out=out) is out
    np.testing.assert_array_equal(out, store.images(EXAMPLE_IMAGE).decode([3, 0]))


def test_a_pickled_store_opens_the_same_path(tmp_path: Path) -> None:
    """Worker processes receive the address, not the data."""
    store = write_example_store(tmp_path / "s.zarr", [4])
    store.column("action")
    payload = pickle.dumps(store)
    assert len(payload) < 500
    assert pickle.loads(payload).fingerprint == store.fingerprint


@pytest.mark.parametrize("kind", ["zip", "memory", "file"])
def test_remote_stores_read_like_local_ones(kind: str, tmp_path: Path) -> None:
    """A zip, an object store and a URL give the same numbers and frames."""
    import fsspec

    local = write_example_store(tmp_path / "s.zarr", [4, 2], image_size=8)
    if kind == "zip":
        address = shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path / "s.zarr")
    elif kind == "memory":
        address = f"memory://{tmp_path.name}.zarr"
        fsspec.filesystem("memory").put(str(tmp_path / "s.zarr"), f"/{tmp_path.name}.zarr", recursive=True)
    else:
        address = f"file://{tmp_path / 's.zarr'}"
    remote = EpisodeStore.open(address)
    assert remote.fingerprint == local.fingerprint
    assert check_store(remote).problems == []
    steps = np.array([5, 0, 3])
    np.testing.assert_array_equal(
        remote.images(EXAMPLE_IMAGE).decode(steps), local.images(EXAMPLE_IMAGE).decode(steps)
    )


def test_nothing_appears_before_publish(tmp_path: Path) -> None:
    """A reader never sees half a store, and is told that one is on its way."""
    with _writer(tmp_path / "s.zarr") as writer:
        writer.add_episode(_episode())
        with pytest.raises(DatasetError, match="conversion is unfinished"):
            EpisodeStore.open(tmp_path / "s.zarr")
        writer.publish()
    assert EpisodeStore.open(tmp_path / "s.zarr").n_steps == 3


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (_episode(data={"action": np.zeros((3, 2), np.float32)}), "lacks observation.state"),
        (_episode(images={EXAMPLE_IMAGE: []}), "unexpected observation.images.top"),
        (_episode(n=0), "has no steps"),
        (_episode(data={"observation.state": np.zeros((3, 3)), "action": np.zeros((2, 2))}), "different lengths"),
        (_episode(data={"observation.state": np.zeros((3, 4)), "action": np.zeros((3, 2))}), r"shape \(4,\) per step"),
        (
            _episode(data={"observation.state": np.zeros((3, 3)), "action": np.full((3, 2), np.nan)}),
            "action has NaN or infinity in 3 of 3 steps, first at step 0",
        ),
        (
            _episode(data={"observation.state": np.zeros((3, 3)), "action": np.full((3, 2), 1e60)}),
            "action has NaN or infinity",
        ),
        (_episode(data={"observation.state": np.zeros((3, 3)), "action": np.full((3, 2), 1j)}), "complex128"),
        (_episode(segments=[Segment(1, 4)]), r"segment \[1, 4\) outside its 3 steps"),
        (_episode(split="test"), "split 'test'"),
        (_episode(name=""), "empty source_id"),
    ],
)  # fmt: skip
def test_unfit_episodes_are_refused(episode: Episode, message: str, tmp_path: Path) -> None:
    """What does not fit is named; the writer keeps nothing of it and goes on."""
    with _writer(tmp_path / "s.zarr") as writer:
        with pytest.raises(EpisodeError, match=message):
            writer.add_episode(episode)
        writer.add_episode(_episode("good"))
        writer.publish()
    assert EpisodeStore.open(tmp_path / "s.zarr").episodes["source_id"] == ["good"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([b"\x00" * 99] * 3, "neither JPEG nor PNG"),
        ([encode_frame(np.zeros((8, 8, 3), np.uint8), "png")] * 2, "2 frames for 3 steps"),
        ([encode_frame(np.zeros((8, 8, 3), np.uint8), "png")] * 4, "more than 3 frames"),
        ([encode_frame(np.zeros((8, 9, 3), np.uint8), "png")] * 3, "8x9 px, expected 8x8"),
        ([encode_frame(np.zeros((8, 8, 1), np.uint16), "png")] * 3, "decodes to uint16"),
        ([encode_frame(np.zeros((8, 8, 3), np.uint8), "png")[:-30]] * 3, "does not decode"),
        ([encode_frame(np.zeros((8, 8, 3), np.uint8), "jpeg")[:20]] * 3, "JPEG"),
    ],
)
def test_unfit_frames_are_refused_and_rolled_back(frames: list[bytes], message: str, tmp_path: Path) -> None:
    """A bad frame in the middle of an episode leaves the store as if the episode had never come."""
    features = example_features(image_size=8)
    episodes = list(example_episodes([3, 3], image_size=8))
    bad = Episode("bad", dict(episodes[0].data), {EXAMPLE_IMAGE: frames})
    for name, given_episodes in (
        ("a", [episodes[0], bad, episodes[1]]),
        ("b", example_episodes([3, 3], image_size=8)),
    ):
        with _writer(tmp_path / f"{name}.zarr", features=features) as writer:
            for episode in given_episodes:
                if episode is bad:
                    with pytest.raises(EpisodeError, match=message):
                        writer.add_episode(episode)
                else:
                    writer.add_episode(episode)
            writer.publish()
    assert tree_digest(tmp_path / "a.zarr") == tree_digest(tmp_path / "b.zarr")


def test_an_unfinished_store_goes_on(tmp_path: Path) -> None:
    """A second writer with the same arguments knows what is done and ends in the same bytes."""
    write_example_store(tmp_path / "whole.zarr", [2, 3, 4], image_size=8)
    features = example_features(image_size=8)
    for _ in range(3):
        with _writer(tmp_path / "parts.zarr", features=features) as writer:
            for episode in example_episodes([2, 3, 4], image_size=8):
                if episode.source_id not in writer.done:
                    writer.add_episode(episode)
                    break
    with _writer(tmp_path / "parts.zarr", features=features) as writer:
        assert writer.n_steps == 9
        writer.publish()
    assert tree_digest(tmp_path / "parts.zarr") == tree_digest(tmp_path / "whole.zarr")


def test_torn_writes_never_happened(tmp_path: Path) -> None:
    """Whatever lies behind the last whole journal line is cut off before going on."""
    write_example_store(tmp_path / "whole.zarr", [2, 3], image_size=8)
    features = example_features(image_size=8)
    with _writer(tmp_path / "torn.zarr", features=features) as writer:
        writer.add_episode(next(example_episodes([2], image_size=8)))
    staging = tmp_path / "torn.zarr.staging"
    for file in (staging / "journal.jsonl", staging / "rows.bin", staging / "store/images/top/bytes/c/0"):
        with file.open("ab") as stream:
            stream.write(b'0badc0de {"source_id":"half')
    with _writer(tmp_path / "torn.zarr", features=features) as writer:
        assert writer.done == {"episode_0000"}
        writer.add_episode(list(example_episodes([2, 3], image_size=8))[1])
        writer.publish()
    assert tree_digest(tmp_path / "torn.zarr") == tree_digest(tmp_path / "whole.zarr")


def test_a_staging_directory_that_lost_data_is_not_continued(tmp_path: Path) -> None:
    """If the files hold less than the journal promises, that is said instead of padded."""
    with _writer(tmp_path / "s.zarr") as writer:
        writer.add_episode(_episode())
    os.truncate(tmp_path / "s.zarr.staging" / "rows.bin", 10)
    with pytest.raises(DatasetError, match=r"less than the .* bytes its journal promises"):
        _writer(tmp_path / "s.zarr")


def test_other_arguments_do_not_continue_an_unfinished_store(tmp_path: Path) -> None:
    """An unfinished store of other options is kept unless overwriting is asked for."""
    with _writer(tmp_path / "s.zarr") as writer:
        writer.add_episode(_episode())
    with pytest.raises(DatasetError, match="unfinished store of another source or other options"):
        _writer(tmp_path / "s.zarr", fps=20.0)
    with _writer(tmp_path / "s.zarr", fps=20.0, overwrite=True) as writer:
        assert writer.n_episodes == 0


def test_checksums_of_two_widths_do_not_meet_in_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that a version with other checksums began is refused like one of other options."""
    with monkeypatch.context() as patch:
        patch.setattr("robot_datasets.store.writer.CHECKSUM_BYTES", 16)
        with _writer(tmp_path / "s.zarr") as writer:
            writer.add_episode(_episode())
    with pytest.raises(DatasetError, match="unfinished store of another source or other options"):
        _writer(tmp_path / "s.zarr")


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    """A second writer of the same target is refused while the first is at work."""
    with _writer(tmp_path / "s.zarr"), pytest.raises(DatasetError, match="another process is writing"):
        _writer(tmp_path / "s.zarr")


def test_an_existing_store_is_not_overwritten_silently(tmp_path: Path) -> None:
    """Overwriting must be asked for, and then replaces the old store as a whole."""
    write_example_store(tmp_path / "s.zarr", [2])
    with pytest.raises(DatasetError, match="already exists; choose another path or pass --overwrite"):
        _writer(tmp_path / "s.zarr")
    with _writer(tmp_path / "s.zarr", overwrite=True) as writer:
        writer.add_episode(_episode(n=7))
        assert EpisodeStore.open(tmp_path / "s.zarr").n_steps == 2
        writer.publish()
    assert EpisodeStore.open(tmp_path / "s.zarr").n_steps == 7
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_only_stores_are_overwritten(tmp_path: Path) -> None:
    """--overwrite on a folder that is something else deletes nothing."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match="is not an episode store, so it is not overwritten"):
        _writer(tmp_path / "home", overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["home", "thesis.tex"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    """The old store is put back when the writer comes back, and replaced when it publishes again."""
    write_example_store(tmp_path / "s.zarr", [2])
    with _writer(tmp_path / "s.zarr", overwrite=True) as writer:
        writer.add_episode(_episode(n=7))
    (tmp_path / "s.zarr").rename(tmp_path / "s.zarr.staging" / "replaced")  # as far as the swap came
    with _writer(tmp_path / "s.zarr", overwrite=True) as writer:
        assert EpisodeStore.open(tmp_path / "s.zarr").n_steps == 2
        writer.publish()
    assert EpisodeStore.open(tmp_path / "s.zarr").n_steps == 7


def test_a_target_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """A path below a file cannot hold a store."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"cannot write to .*file: .*; choose a folder"):
        _writer(tmp_path / "file" / "s.zarr")


def test_no_episode_is_no_store(tmp_path: Path) -> None:
    """Publishing nothing is an error."""
    with _writer(tmp_path / "s.zarr") as writer, pytest.raises(DatasetError, match="no episode was written"):
        writer.publish()
    assert not (tmp_path / "s.zarr").exists()


def test_a_full_disk_leaves_no_half_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fills up while publishing, there is no store, and the next attempt finishes it."""
    from robot_datasets.store import publish

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_example_store(tmp_path / "whole.zarr", [3], image_size=8)
    features = example_features(image_size=8)
    with _writer(tmp_path / "s.zarr", features=features) as writer:
        writer.add_episode(next(example_episodes([3], image_size=8)))
        with monkeypatch.context() as patch:
            patch.setattr(publish, "_write_image_arrays", full)
            with pytest.raises(OSError, match="No space left"):
                writer.publish()
    assert not (tmp_path / "s.zarr").exists()
    with _writer(tmp_path / "s.zarr", features=features) as writer:
        writer.publish()
    assert tree_digest(tmp_path / "s.zarr") == tree_digest(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "zarr.json").unlink(), "is not an episode store"),
        (lambda p: (p / "zarr.json").write_text("{"), "zarr.json is damaged"),
        (lambda p: shutil.rmtree(p / "data" / "action"), "lacks data/action"),
        (lambda p: shutil.rmtree(p / "meta" / "episode_ends"), "lacks meta/episode_ends"),
        (lambda p: (p / "images/top/bytes/c/0").unlink(), "is missing, expected"),
        (lambda p: os.truncate(p / "images/top/bytes/c/0", 100), "has 100 bytes, expected"),
    ],
)
def test_opening_a_damaged_store_says_what_is_missing(damage: object, message: str, tmp_path: Path) -> None:
    """Missing and short parts are found when the store is opened, not in the middle of a training."""
    write_example_store(tmp_path / "s.zarr", [4], image_size=8)
    damage(tmp_path / "s.zarr")  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        EpisodeStore.open(tmp_path / "s.zarr")


@pytest.mark.parametrize("cut", [0, 20, None])
def test_damaged_columns_are_an_error_never_zeros(cut: int | None, tmp_path: Path) -> None:
    """A chunk file that is gone, empty or cut short raises; zarr alone would fill in zeros for the first."""
    store = write_example_store(tmp_path / "s.zarr", [400])
    chunk = tmp_path / "s.zarr" / "data/action/c/0/0"
    if cut is None:
        chunk.unlink()
    else:
        os.truncate(chunk, cut)
    with pytest.raises(DatasetError, match="the store is damaged"):
        store.column("action")


def test_stores_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    """A reader does not guess at what it does not know."""
    write_example_store(tmp_path / "s.zarr", [4])
    meta = tmp_path / "s.zarr" / "zarr.json"
    values = json.loads(meta.read_text())
    values["attributes"]["robot_policies"]["format"] = 2
    meta.write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="has format 2, this version reads 1"):
        EpisodeStore.open(tmp_path / "s.zarr")


def test_other_zarr_groups_are_refused(tmp_path: Path) -> None:
    """A zarr group of somebody else is not an episode store."""
    import zarr

    zarr.create_group(str(tmp_path / "other.zarr"))
    with pytest.raises(DatasetError, match="without 'robot_policies' attributes"):
        EpisodeStore.open(tmp_path / "other.zarr")


@pytest.mark.parametrize("address", ["absent.zarr", "file.txt", "nowhere://bucket/s.zarr"])
def test_addresses_without_a_store_are_one_clear_line(address: str, tmp_path: Path) -> None:
    """A path that is not there, a file that is no zip, a protocol nobody knows."""
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(DatasetError):
        EpisodeStore.open(address if "://" in address else tmp_path / address)


def test_unknown_features_name_the_nearest(tmp_path: Path) -> None:
    """A typing error in a feature name is answered with the right one."""
    store = write_example_store(tmp_path / "s.zarr", [4], image_size=8)
    with pytest.raises(DatasetError, match="did you mean 'action'"):
        store.column("acton")
    with pytest.raises(DatasetError, match=r"did you mean 'observation.images.top'"):
        store.images("observation.image.top")


def test_python_without_zarr_3_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has no zarr 3: reading and writing say so at once instead of failing at the end."""
    import sys

    write_example_store(tmp_path / "s.zarr", [4])
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DatasetError, match=r"needs Python 3.11 or newer"):
        EpisodeStore.open(tmp_path / "s.zarr")
    with pytest.raises(DatasetError, match=r"needs Python 3.11 or newer"):
        _writer(tmp_path / "t.zarr")


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Equal stores have equal fingerprints; another number gives another one."""
    one = write_example_store(tmp_path / "a.zarr", [4, 2])
    same = write_example_store(tmp_path / "b.zarr", [4, 2])
    other = write_example_store(tmp_path / "c.zarr", [4, 2], seed=1)
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 1)])
@pytest.mark.parametrize("chunk_bytes", [1000, 1 << 20])
def test_raw_frames_are_gathered_in_any_order(
    dtype: str, channels: int, chunk_bytes: int, tmp_path: Path
) -> None:
    """Frames within a file, across files and wanted twice come as they were written; damage is told."""
    name = "observation.images.top" if channels == 3 else "observation.depth.top"
    features = example_features() | {name: Feature(dtype=dtype, shape=(7, 5, channels))}
    random = np.random.default_rng(0)
    pixels = random.integers(0, np.iinfo(dtype).max, (30, 7, 5, channels)).astype(dtype)
    with EpisodeStoreWriter(
        tmp_path / "s.zarr",
        features=features,
        fps=10,
        embodiment="",
        image_encodings={name: "raw"},
        image_chunk_bytes=chunk_bytes,
    ) as writer:
        (episode,) = example_episodes([30])
        episode.images = {name: (encode_frame(frame, "raw") for frame in pixels)}
        writer.add_episode(episode)
        writer.publish()
    images = EpisodeStore.open(tmp_path / "s.zarr").images(name)
    wanted = random.integers(0, 30, 50)
    np.testing.assert_array_equal(images.decode(wanted), pixels[wanted])
    out = np.empty((3, 7, 5, channels), dtype)
    assert images.decode([29, 0, 29], out=out) is out
    np.testing.assert_array_equal(out, pixels[[29, 0, 29]])
    with pytest.raises(IndexError, match="has 30 frames"):
        images.decode([30])
    with pytest.raises(DatasetError, match="sizes vary"):
        images.decode([1], out=np.empty((1, 6, 5, channels), dtype))
