"""The importer of RLDS datasets: its conformance, and every documented trap."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot_datasets.convert import ConversionReport, convert
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame
from robot_datasets.importers.base import Importer
from robot_datasets.importers.rlds import Rlds
from robot_datasets.importers.rlds_features import STEPS, RecordKey, read_features
from robot_datasets.importers.tfrecord import TfRecordError, TfRecordFile, masked_crc32c, parse_example
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.arm import arm_trajectory
from robot_datasets.testing.rlds import (
    RldsEpisode,
    describe,
    encode_example,
    frame_record,
    rlds_episode,
    rlds_keys,
    write_rlds,
)

LENGTHS = (5, 4, 6, 3)
FPS = {"fps": "5"}


def _episodes() -> list[RldsEpisode]:
    return [rlds_episode(n, seed) for seed, n in enumerate(LENGTHS)]


def _write(root: Path, episodes: list[RldsEpisode] | None = None, **changes: object) -> Path:
    arguments = {"keys": rlds_keys(), "shards": 2} | changes
    return write_rlds(root / "toy" / "1.0.0", episodes or _episodes(), **arguments)  # pyright: ignore


def _convert(source: Path, **options: str) -> tuple[EpisodeStore, ConversionReport]:
    target = source.parents[1] / "out.zarr"
    report = convert(source, target, format="rlds", options=FPS | options)
    return EpisodeStore.open(target), report


class TestRlds(ImporterTests):
    options = FPS

    @pytest.fixture
    def importer(self) -> Importer:
        return Rlds()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = _write(tmp_path / "source")
        damaged = sorted(root.glob("*.tfrecord-*"))[1]
        content = bytearray(damaged.read_bytes())
        content[-30] ^= 0xFF  # within the last record
        damaged.write_bytes(content)
        return root.parent


def test_checksum_is_the_published_one() -> None:
    """CRC-32C of the standard's test string is e3069283; masked as TFRecord's specification says."""
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30),
    floats=st.lists(st.floats(width=32, allow_nan=False), max_size=30),
    texts=st.lists(st.binary(max_size=300), max_size=5),
)
@settings(deadline=None)
def test_values_of_every_kind_come_back(values: list[int], floats: list[float], texts: list[bytes]) -> None:
    """Integers of any size and sign, floats and byte strings survive writing and reading."""
    keys = [RecordKey(name, "numbers", "int64", ()) for name in ("i", "f")]
    keys.append(RecordKey("b", "text", "string", ()))
    record = {"i": np.array(values, np.int64), "f": np.array(floats, np.float32), "b": texts}
    found = parse_example(memoryview(encode_example(record, keys)))
    assert found["i"].numbers().tolist() == values
    assert found["f"].numbers().tolist() == np.array(floats, np.float32).tolist()
    assert [bytes(text) for text in found["b"].byte_strings()] == texts


def test_values_that_are_not_packed_are_read() -> None:
    """Old writers put a tag before every single number."""
    numbers = b"".join(b"\x08" + bytes([n]) for n in (1, 2, 3))
    floats = b"".join(b"\x0d" + np.float32(x).tobytes() for x in (0.5, -1.0))
    message = b""
    for name, kind, data in ((b"i", 3, numbers), (b"f", 2, floats)):
        value = bytes([kind << 3 | 2, len(data)]) + data
        entry = bytes([0x0A, 1]) + name + bytes([0x12, len(value)]) + value
        message += bytes([0x0A, len(entry)]) + entry
    found = parse_example(memoryview(bytes([0x0A, len(message)]) + message))
    assert found["i"].numbers().tolist() == [1, 2, 3]
    assert found["f"].numbers().tolist() == [0.5, -1.0]


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_damaged_messages_raise_nothing_else(data: st.DataObject) -> None:
    """Whatever byte is changed or cut, reading gives values or a `TfRecordError`."""
    message = bytearray(encode_example(rlds_episode(3, 1), rlds_keys()))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = memoryview(message)[: data.draw(st.integers(0, len(message)))]
    with contextlib.suppress(TfRecordError):
        for value in parse_example(cut).values():
            if value.holds_bytes:
                assert sum(map(len, value.byte_strings())) <= len(cut)
            else:
                assert value.numbers().size <= len(cut)


def test_everything_recorded_arrives(tmp_path: Path) -> None:
    """Numbers, frames, instructions, splits and flags of the first episode are those that were written."""
    store, _ = _convert(_write(tmp_path))
    episode, steps = _episodes()[0], slice(0, 5)
    np.testing.assert_array_equal(
        store.column("observation.state")[steps], episode[STEPS + "observation/state"]
    )
    np.testing.assert_array_equal(store.column("action")[steps], episode[STEPS + "action"])
    np.testing.assert_array_equal(store.column("next.reward")[steps, 0], episode[STEPS + "reward"])
    np.testing.assert_array_equal(store.column("next.done")[steps, 0], episode[STEPS + "is_terminal"])
    frames = [bytes(store.images("observation.images.image").encoded(i)) for i in range(5)]
    assert frames == episode[STEPS + "observation/image"]
    assert store.episodes["source_id"] == [
        "train/00000/000000",
        "train/00000/000001",
        "train/00001/000000",
        "train/00001/000001",
    ]
    assert store.tasks == ["task 0", "task 2", "task 1", "task 3"]
    assert store.episodes["split"] == ["train"] * 4


@pytest.mark.parametrize("form", ["proto", "wrapped", "plain"])
def test_every_generation_of_the_description_is_read(tmp_path: Path, form: str) -> None:
    """Nested protobuf JSON, the same within strings, and the form before it say the same."""
    keys = [*rlds_keys(), RecordKey(STEPS + "observation/wide", "numbers", "float32", (-1, 2))]
    path = tmp_path / "features.json"
    path.write_text(json.dumps(describe(keys, form=form)), encoding="utf-8")
    assert read_features(path) == {key.path: key for key in keys}


def test_what_the_records_hold_and_nothing_declares_is_told(tmp_path: Path) -> None:
    """A description that lost a feature does not lose it silently."""
    root = _write(tmp_path)
    keys = [key for key in rlds_keys() if key.path != f"{STEPS}is_terminal"]
    (root / "features.json").write_text(json.dumps(describe(keys)), encoding="utf-8")
    store, report = _convert(root)
    assert "next.done" not in store.features
    told = "the records hold steps/is_terminal, which features.json does not declare; left out"
    assert report.source_warnings[-1] == told


def test_a_reward_that_is_no_number_is_left_out_and_told(tmp_path: Path) -> None:
    """A type that cannot be stored costs the column and nothing else."""
    root = _write(tmp_path)
    keys = [replace(k, dtype="text") if k.path == f"{STEPS}reward" else k for k in rlds_keys()]
    (root / "features.json").write_text(json.dumps(describe(keys)), encoding="utf-8")
    store, report = _convert(root)
    assert "next.reward" not in store.features
    assert "steps/reward is declared as text, expected numbers; left out" in report.source_warnings


def test_truncated_shard_costs_only_what_is_cut_off(tmp_path: Path) -> None:
    """The healthy episodes before the cut and all of other shards are converted; the report counts the rest."""
    root = _write(tmp_path)
    shard = sorted(root.glob("*.tfrecord-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    store, report = _convert(root)
    assert store.episodes["source_id"] == ["train/00000/000000", "train/00001/000000", "train/00001/000001"]
    (reason,) = report.quarantined.values()
    assert "1 episodes are lost" in reason
    assert shard.name in reason


def test_damaged_length_is_noticed_and_nothing_behind_it_is_guessed(tmp_path: Path) -> None:
    """Without a sound length the chain of records is broken: one rejection for the rest of the file."""
    root = _write(tmp_path, shards=1)
    shard = next(iter(root.glob("*.tfrecord-*")))
    content = bytearray(shard.read_bytes())
    with TfRecordFile(shard) as file:
        spans, _ = file.scan()
    content[spans[1].offset - 12] ^= 1
    shard.write_bytes(content)
    store, report = _convert(root)
    assert store.n_episodes == 1
    assert "header of record 1" in report.quarantined["train/00000/000001"]


def test_damaged_record_is_set_aside_alone(tmp_path: Path) -> None:
    """A flipped bit fails the checksum of its record; all others are converted."""
    root = _write(tmp_path, shards=1)
    shard = next(iter(root.glob("*.tfrecord-*")))
    content = bytearray(shard.read_bytes())
    with TfRecordFile(shard) as file:
        spans, _ = file.scan()
    content[spans[2].offset + 100] ^= 1
    shard.write_bytes(content)
    store, report = _convert(root)
    assert store.n_episodes == 3
    assert "does not fit its checksum" in report.quarantined["train/00000/000002"]


def test_missing_shard_is_reported_with_its_episodes(tmp_path: Path) -> None:
    """A shard that was never downloaded is no silent gap."""
    root = _write(tmp_path)
    sorted(root.glob("*.tfrecord-*"))[1].unlink()
    _, report = _convert(root)
    assert "shard 1 of 2 of split train with 2 episodes is missing" in report.quarantined["train/00001"]


def test_wrong_counts_are_warnings_and_the_files_count(tmp_path: Path) -> None:
    """dataset_info.json promises 3 and 1 episodes; there are 2 and 2."""
    store, _ = _convert(_write(tmp_path, declared=[3, 1]))
    assert store.n_episodes == 4
    assert "declares 3 episodes" in store.attributes["source"]["warnings"][1]


def test_without_dataset_info_it_still_converts(tmp_path: Path) -> None:
    """The counts cannot be verified then, and the store says so."""
    root = _write(tmp_path)
    (root / "dataset_info.json").unlink()
    store, _ = _convert(root)
    assert "dataset_info.json is missing" in store.attributes["source"]["warnings"][0]


def test_other_file_formats_are_named(tmp_path: Path) -> None:
    """TFDS can write array_record too; that is said, not reported as damage."""
    with pytest.raises(DatasetError, match="holds array_record files"):
        _convert(_write(tmp_path, edit=lambda info: info.update(fileFormat="array_record")))


def test_the_rate_is_asked_for(tmp_path: Path) -> None:
    """The format has none, and none is invented."""
    with pytest.raises(DatasetError, match=r"does not tell its rate.*option fps=30"):
        convert(_write(tmp_path), tmp_path / "out.zarr", format="rlds")


def test_version_folder_must_be_unique(tmp_path: Path) -> None:
    """The folder above two versions is refused with their names."""
    episodes = _episodes()
    for version in ("1.0.0", "2.0.0"):
        write_rlds(tmp_path / "toy" / version, episodes, keys=rlds_keys())
    with pytest.raises(DatasetError, match=r"several versions \(1.0.0, 2.0.0\)"):
        convert(tmp_path / "toy", tmp_path / "out.zarr", format="rlds", options=FPS)


def test_splits_are_kept_and_chosen(tmp_path: Path) -> None:
    """Validation becomes val; --option splits takes some only."""
    root = _write(tmp_path)
    write_rlds(root, _episodes()[:1], keys=rlds_keys(), split="validation")
    store, _ = _convert(root, splits="validation")
    assert store.episodes["split"] == ["val"]


def test_first_step_can_be_left_out(tmp_path: Path) -> None:
    """Bridge's first action is a dummy; skip=1 drops the step with everything in it."""
    store, _ = _convert(_write(tmp_path), skip="1")
    episode = _episodes()[0]
    np.testing.assert_array_equal(store.column("action")[:4], episode[STEPS + "action"][1:])
    frames = [bytes(store.images("observation.images.image").encoded(i)) for i in range(4)]
    assert frames == episode[STEPS + "observation/image"][1:]


def test_undefined_last_action_is_pointed_out_and_can_be_left_out(tmp_path: Path) -> None:
    """RLDS leaves the last action undefined; zeros there are a warning, last_step=drop removes the step."""
    episodes = _episodes()
    episodes[0][STEPS + "action"][-1] = 0
    root = _write(tmp_path, episodes)
    store, report = _convert(root)
    assert list(report.warnings) == ["train/00000/000000"]
    assert "last_step=drop" in report.warnings["train/00000/000000"][0]
    convert(root, tmp_path / "dropped.zarr", format="rlds", options=FPS | {"last_step": "drop"})
    dropped = EpisodeStore.open(tmp_path / "dropped.zarr")
    assert dropped.n_steps == store.n_steps - 4
    assert dropped.attributes["conversion"]["options"]["last_step"] == "drop"


def test_instruction_that_changes_becomes_segments(tmp_path: Path) -> None:
    """Per-step instructions are joined, and each stretch is a segment."""
    episodes = _episodes()
    episodes[0][STEPS + "language_instruction"] = [b"open"] * 2 + [b"close"] * 3
    store, _ = _convert(_write(tmp_path, episodes))
    assert store.tasks[0] == "open; close"
    assert [(s.start, s.end, s.text) for s in store.episodes["segments"][0]] == [
        (0, 2, "open"),
        (2, 5, "close"),
    ]


def test_success_is_taken_from_where_the_user_says(tmp_path: Path) -> None:
    """Unknown by default; the last reward, or a key beside steps, if chosen."""
    root = _write(tmp_path)
    store, _ = _convert(root)
    assert set(store.episodes["success"].tolist()) == {-1}
    for option, expected in (("reward", [1, 1, 1, 1]), ("episode_metadata/episode_id", [1, 1, 0, 1])):
        convert(root, tmp_path / f"{option[:3]}.zarr", format="rlds", options=FPS | {"success": option})
        found = EpisodeStore.open(tmp_path / f"{option[:3]}.zarr").episodes["success"]
        assert found.tolist() == expected


def test_dummy_cameras_are_pointed_out(tmp_path: Path) -> None:
    """Bridge says in its metadata which cameras an episode really had."""
    keys = [*rlds_keys(), RecordKey("episode_metadata/has_image", "numbers", "bool", ())]
    episodes = [
        e | {"episode_metadata/has_image": np.array([number != 1])} for number, e in enumerate(_episodes())
    ]
    _, report = _convert(_write(tmp_path, episodes, keys=keys))
    assert list(report.warnings) == ["train/00001/000000"]


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_packed_tensors_keep_float64(tmp_path: Path, encoding: str) -> None:
    """Tensors may be stored as byte strings, plain or compressed; then doubles stay doubles."""
    keys = [*rlds_keys(), RecordKey(STEPS + "observation/precise", "numbers", "float64", (2,), encoding)]
    values = np.random.default_rng(0).normal(size=(5, 2))
    store, _ = _convert(
        _write(tmp_path, [_episodes()[0] | {STEPS + "observation/precise": values}], keys=keys, shards=1)
    )
    np.testing.assert_array_equal(store.column("observation.precise"), values)


def test_pixels_stored_as_numbers_become_png(tmp_path: Path) -> None:
    """Some datasets declare images as plain tensors."""
    keys = [*rlds_keys(), RecordKey(STEPS + "observation/raw", "numbers", "uint8", (4, 6, 3))]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    store, _ = _convert(
        _write(tmp_path, [_episodes()[0] | {STEPS + "observation/raw": pixels}], keys=keys, shards=1)
    )
    np.testing.assert_array_equal(store.images("observation.images.raw").decode(np.arange(5)), pixels)


def test_exchanged_colours_pass_through_and_decode_right(tmp_path: Path) -> None:
    """A schema can say that a camera's JPEG files hold BGR: the bytes stay, the pixels come out as RGB."""
    (tmp_path / "mine.yaml").write_text(
        SCHEMA + "cameras: {top: {source: observation/image, channels: bgr}}\n"
    )
    convert(
        _write(tmp_path),
        tmp_path / "out.zarr",
        format="rlds",
        options={"schema": str(tmp_path / "mine.yaml")},
    )
    images = EpisodeStore.open(tmp_path / "out.zarr").images("observation.images.top")
    frame = _episodes()[0][STEPS + "observation/image"][0]
    assert bytes(images.encoded(0)) == frame
    np.testing.assert_array_equal(images.decode([0])[0], decode_frame(frame)[..., ::-1])


def test_unnamed_parts_of_an_action_are_put_side_by_side(tmp_path: Path) -> None:
    """A dictionary of actions becomes one vector with names, whatever the types of its parts."""
    keys = [k for k in rlds_keys() if k.path != STEPS + "action"]
    keys.append(RecordKey(STEPS + "action/world_vector", "numbers", "float32", (3,)))
    keys.append(RecordKey(STEPS + "action/open_gripper", "numbers", "bool", ()))
    episode = _episodes()[0]
    vector = episode.pop(STEPS + "action")
    episode |= {
        STEPS + "action/world_vector": vector,
        STEPS + "action/open_gripper": np.array([1, 0, 1, 1, 0], bool),
    }
    store, _ = _convert(_write(tmp_path, [episode], keys=keys, shards=1))
    assert store.features["action"].names == (
        "open_gripper",
        "world_vector.0",
        "world_vector.1",
        "world_vector.2",
    )
    np.testing.assert_array_equal(store.column("action")[:, 1:], vector)
    np.testing.assert_array_equal(store.column("action")[:, 0], [1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({STEPS + "action": np.zeros((4, 3), np.float32)}, "arrays differ in length"),
        ({STEPS + "action": np.zeros(7, np.float32)}, "multiple of 3"),
        ({STEPS + "action": np.full((5, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({STEPS + "is_first": np.array([1, 0, 0, 1, 0], bool)}, "not one whole episode"),
        ({STEPS + "observation/image": [b"\xff\xd8\xff"] * 5}, "JPEG"),
        ({STEPS + "observation/image": [b""] * 5}, "holds nothing"),
        ({STEPS + "observation/image": [b""] * 4}, "4 frames for 5 steps"),
        ({STEPS + "language_instruction": [b"x"]}, "1 texts for 5 steps"),
        ({STEPS + "action": [b"abc"]}, "expected numbers"),
    ],
)
def test_bad_episode_is_set_aside_with_its_field(tmp_path: Path, change: RldsEpisode, message: str) -> None:
    """Each fault names the key, and the other episodes are converted."""
    episodes = _episodes()
    episodes[0] = episodes[0] | change
    store, report = _convert(_write(tmp_path, episodes))
    assert store.n_episodes == 3
    assert message in report.quarantined["train/00000/000000"]


def test_missing_key_is_set_aside(tmp_path: Path) -> None:
    """A record without a declared key does not become zeros."""
    episodes = _episodes()
    del episodes[0][STEPS + "observation/state"]
    _, report = _convert(_write(tmp_path, episodes))
    assert "steps/observation/state is missing" in report.quarantined["train/00000/000000"]


SCHEMA = """
robot: toy_arm
format: rlds
labels: [toy]
summary: a schema of the user's own
fps: 12.5
features:
  observation.state:
    parts:
      - {source: observation/state, columns: [1, 4], names: [b, c, d], units: rad}
actions:
  next: {shift: 1, parts: [{source: action, columns: [0, 2], names: [u, v], units: m}]}
default_action: next
"""


def test_schema_of_the_user_names_the_numbers(tmp_path: Path) -> None:
    """A YAML file chooses, names and shifts; its content is recorded, not its place."""
    file = tmp_path / "mine.yaml"
    file.write_text(SCHEMA)
    report = convert(_write(tmp_path), tmp_path / "out.zarr", format="rlds", options={"schema": str(file)})
    store, episode = EpisodeStore.open(tmp_path / "out.zarr"), _episodes()[0]
    assert (store.fps, store.embodiment) == (12.5, "toy_arm")
    assert store.features["observation.state"].names == ("b", "c", "d")
    np.testing.assert_array_equal(store.column("action")[:4], episode[STEPS + "action"][1:, :2])
    np.testing.assert_array_equal(
        store.column("observation.state")[:4], episode[STEPS + "observation/state"][:4, 1:]
    )
    assert report.options["schema"].startswith("mine blake2b:")


def test_schema_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A key that the dataset lacks is an error with the nearest one, before anything is written."""
    file = tmp_path / "mine.yaml"
    file.write_text(SCHEMA.replace("observation/state", "observation/stat"))
    with pytest.raises(DatasetError, match=r"did you mean 'observation/state'.*schema=generic"):
        convert(_write(tmp_path), tmp_path / "out.zarr", format="rlds", options={"schema": str(file)})
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("rotation", ["rpy_extrinsic", "quat_xyzw", "quat_wxyz"])
def test_poses_come_back_in_every_convention(tmp_path: Path, rotation: str) -> None:
    """A synthetic arm's poses, written as Open-X datasets do, are the same poses after conversion."""
    truth = arm_trajectory(40, seed=3)
    angles = truth.rpy() if rotation == "rpy_extrinsic" else truth.quaternions(rotation.removeprefix("quat_"))
    pose = np.concatenate([truth.position, angles], axis=1).astype(np.float32)
    keys = [
        RecordKey(STEPS + name, "numbers", "float32", (pose.shape[1],))
        for name in ("observation/pose", "action")
    ]
    names = ["x", "y", "z", *[f"r{i}" for i in range(angles.shape[1])]]
    (tmp_path / "arm.yaml").write_text(
        f"""
robot: panda
format: rlds
labels: [toy]
summary: poses
fps: 10
features:
  observation.state:
    parts: [{{source: observation/pose, names: {names}}}]
    frame: robot_base
    rotation: {rotation}
actions:
  target: {{parts: [{{source: action, names: {names}}}], rotation: {rotation}}}
default_action: target
"""
    )
    episode = {STEPS + "observation/pose": pose, STEPS + "action": pose}
    source = _write(tmp_path, [episode], keys=keys, shards=1)
    convert(source, tmp_path / "out.zarr", format="rlds", options={"schema": str(tmp_path / "arm.yaml")})
    store = EpisodeStore.open(tmp_path / "out.zarr")
    column, declared = store.column("observation.state"), store.features["observation.state"].rotation
    read = {
        "rpy_extrinsic": lambda v: Rotation.from_euler("xyz", v),
        "quat_xyzw": Rotation.from_quat,
        "quat_wxyz": lambda v: Rotation.from_quat(np.roll(v, -1, axis=1)),
    }[declared]
    truth.assert_same_poses(column[:, :3], read(column[:, 3:]))


def test_empty_file_and_empty_dataset(tmp_path: Path) -> None:
    """A shard of no bytes is sound but empty; a dataset of nothing else has no episode to convert."""
    root = _write(tmp_path, shards=1)
    shard = next(iter(root.glob("*.tfrecord-*")))
    shard.write_bytes(b"")
    with pytest.raises(DatasetError, match="no usable episode"):
        _convert(root)
    shard.write_bytes(frame_record(b""))
    with pytest.raises(DatasetError, match="is missing in the record"):
        _convert(root)
