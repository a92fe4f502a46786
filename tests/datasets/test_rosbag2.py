"""The importer of ROS 2 bags: its conformance, the resampling of real streams, and every documented trap."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from robot_datasets.convert import ConversionReport, convert
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import Importer
from robot_datasets.importers.rosbag2 import Rosbag2
from robot_datasets.importers.rosbag2_bag import Bag, find_bags
from robot_datasets.importers.rosbag2_map import read_map
from robot_datasets.importers.rosbag2_messages import MessageTypes
from robot_datasets.importers.rosbag2_storage import BagError, RawMessage, Topic
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.rosbag import (
    MAP,
    BagSpec,
    edit_metadata,
    frame_level,
    joint_position,
    write_bag,
    write_killed_mcap,
    write_split_bag,
    yaw_quaternion,
)

IMAGE = "observation.images.top"
ALL_TIME = (0, 1 << 63)


def _map(folder: Path, text: str = MAP, **changes: object) -> str:
    values = yaml.safe_load(text) | changes
    file = folder / "map.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(file)


def _convert(source: Path, map_file: str, **options: str) -> tuple[EpisodeStore, ConversionReport]:
    target = source.parent / "out.zarr"
    report = convert(source, target, format="rosbag2", options={"map": map_file, **options}, overwrite=True)
    return EpisodeStore.open(target), report


def _levels(store: EpisodeStore) -> list[int]:
    frames = store.images(IMAGE).decode(np.arange(store.n_steps))
    return [round(float(frame.mean()) / 16) * 16 % 256 for frame in frames]


class _BagTests(ImporterTests):
    @pytest.fixture(autouse=True)
    def _give_a_map(self, tmp_path: Path) -> None:
        self.options = {"map": _map(tmp_path)}

    @pytest.fixture
    def importer(self) -> Importer:
        return Rosbag2()


class TestMcapBags(_BagTests):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for number in range(3):
            write_bag(tmp_path / "bags" / f"take{number}", BagSpec(duration=1 + number / 5))
        write_bag(tmp_path / "bags" / "gap", BagSpec(silence={"/joint_states": (1.0, 2.0)}))
        return tmp_path / "bags"


class TestSqliteBagWithMarkers(_BagTests):
    @pytest.fixture(autouse=True)
    def _give_a_map(self, tmp_path: Path) -> None:
        marker = {"per": "marker", "topic": "/episode", "start": ["go"], "stop": ["good", "bad"]}
        self.options = {"map": _map(tmp_path, episodes=marker | {"success": ["good"], "failure": ["bad"]})}

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        markers = [
            (0.2, "go"),
            (1.0, "good"),
            (1.1, "go"),
            (1.8, "bad"),
            (1.9, "go"),
            (2.7, "good"),
            (2.8, "go"),
        ]
        return write_bag(tmp_path / "bags" / "long", BagSpec(storage="sqlite3", markers=markers))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compression", ["", "message", "file", "storage"])
def test_every_way_of_storing_gives_the_same_episode(tmp_path: Path, storage: str, compression: str) -> None:
    """Both storages, and zstd over messages, files or chunks: the same numbers and frames as without."""
    if (storage, compression) == ("sqlite3", "storage"):
        pytest.skip("sqlite has no chunks to compress")
    spec = BagSpec(duration=1, storage=storage, compression=compression, image_rate=16)
    bag = write_bag(tmp_path / "bag", spec)
    store, report = _convert(bag, _map(tmp_path))
    clock = np.arange(store.n_steps) / 10
    assert store.n_steps == 10
    np.testing.assert_allclose(store.column("observation.state")[:, :3], joint_position(clock), atol=1e-6)
    assert _levels(store) == [frame_level(k) for k in (0, 2, 3, 5, 6, 8, 10, 11, 13, 14)]
    assert report.warnings == {}


def test_a_bag_whose_camera_is_of_another_type_is_set_aside(tmp_path: Path) -> None:
    """One damaged type name costs one bag, also if it is the first one read."""
    for number in range(2):
        write_bag(tmp_path / "bags" / f"take{number}", BagSpec(duration=1, storage="sqlite3"))
    for file in (tmp_path / "bags" / "take0").iterdir():
        file.write_bytes(file.read_bytes().replace(b"msg/CompressedImage", b"msg/CompressedImAge"))
    store, report = _convert(tmp_path / "bags", _map(tmp_path))
    assert store.n_episodes == 1
    assert list(report.quarantined) == ["take0"]
    assert "CompressedImAge" in report.quarantined["take0"]


def test_numbers_are_interpolated_between_samples(tmp_path: Path) -> None:
    """A clock that never hits a joint state gives values on the line between two, not stale ones."""
    bag = write_bag(tmp_path / "bag", BagSpec(joint_rate=13.0))
    store, _ = _convert(bag, _map(tmp_path, clock={"rate": 7}))
    times = np.arange(3 * 13) / 13
    clock = np.arange(store.n_steps) / 7
    expected = [np.interp(clock, times, column) for column in joint_position(times).T]
    np.testing.assert_allclose(
        store.column("observation.state")[:, :3], np.stack(expected, axis=1), atol=1e-6
    )


def test_commands_are_those_in_force(tmp_path: Path) -> None:
    """latest_before never looks ahead: the action at t is the last command received until then."""
    bag = write_bag(tmp_path / "bag")
    store, _ = _convert(bag, _map(tmp_path, clock={"rate": 7}))
    last = np.floor(np.arange(store.n_steps) / 7 * 20 + 1e-9) / 20
    np.testing.assert_allclose(store.column("action"), joint_position(last + 0.1), atol=1e-6)
    gripper = store.column("observation.state")[:, 3]
    assert gripper.tolist() == [1.0 if t < 1.5 else 0.0 for t in np.arange(store.n_steps) / 7]


def test_joints_are_found_by_name(tmp_path: Path) -> None:
    """A driver that changes the order of joints from message to message does not shuffle them here."""
    plain = _convert(write_bag(tmp_path / "plain"), _map(tmp_path))[0].column("observation.state")
    shuffled, _ = _convert(write_bag(tmp_path / "shuffled", BagSpec(reorder=True)), _map(tmp_path))
    np.testing.assert_array_equal(shuffled.column("observation.state"), plain)
    assert shuffled.features["observation.state"].names == ("shoulder", "elbow", "wrist", "gripper")


def test_header_times_undo_latency(tmp_path: Path) -> None:
    """Messages that arrive late are placed where they were taken with time: header, where they arrived with log."""
    bag = write_bag(tmp_path / "bag", BagSpec(latency=0.3))
    values = yaml.safe_load(MAP)
    for part in (values["features"]["observation.state"]["parts"][1], values["action"]["parts"][0]):
        del part["time"]
    values["features"]["observation.state"]["parts"].pop()
    values["action"] = {"next_of": "observation.state"}
    by_header, _ = _convert(bag, _map(tmp_path, yaml.safe_dump(values), time="header"))
    np.testing.assert_allclose(by_header.column("observation.state")[0], joint_position(0.0), atol=1e-6)
    by_log, _ = _convert(bag, _map(tmp_path, yaml.safe_dump(values), time="log"))
    np.testing.assert_array_equal(by_log.column("observation.state"), by_header.column("observation.state"))


def test_clocks_that_disagree_are_not_mixed(tmp_path: Path) -> None:
    """Stamps of a simulated clock next to the recorder's times of topics without header would be far apart."""
    folder = tmp_path / "bags"
    write_bag(folder / "simulated", BagSpec(stamp_offset=-1.6e9))
    write_bag(folder / "real")
    _, report = _convert(folder, _map(tmp_path))
    assert "header and recorder disagree by" in report.quarantined["simulated"]


def test_next_state_as_action(tmp_path: Path) -> None:
    """Without a command topic, the action is the next state, and the last step has none."""
    bag = write_bag(tmp_path / "bag")
    store, _ = _convert(bag, _map(tmp_path, action={"next_of": "observation.state"}))
    state = store.column("observation.state")
    np.testing.assert_array_equal(store.column("action")[:-1], state[1:])
    assert store.features["action"].meaning == "next observation.state"
    assert store.features["action"].names == store.features["observation.state"].names


def test_poses_turn_the_short_way(tmp_path: Path) -> None:
    """Quaternions whose sign jumps are interpolated on the shortest arc; positions on lines; names as in ROS."""
    values = yaml.safe_load(MAP)
    values["features"]["observation.pose"] = {
        "parts": [
            {"topic": "/pose", "field": "pose.position", "units": "m", "policy": "linear"},
            {"topic": "/pose", "field": "pose.orientation", "units": "1", "policy": "slerp"},
        ],
        "rotation": "quat_xyzw",
        "frame": "base",
    }
    bag = write_bag(tmp_path / "bag", BagSpec(with_pose=True))
    store, _ = _convert(bag, _map(tmp_path, yaml.safe_dump(values)))
    pose, clock = store.column("observation.pose"), np.arange(store.n_steps) / 10
    np.testing.assert_allclose(pose[:, :2], np.stack([clock, 2 * clock], axis=1), atol=1e-6)
    truth = Rotation.from_quat([yaw_quaternion(t) for t in clock])
    assert (Rotation.from_quat(pose[:, 3:]) * truth.inv()).magnitude().max() < 1e-3
    assert store.features["observation.pose"].units == ("m", "m", "m", "1", "1", "1", "1")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "mono8"])
def test_raw_images_come_out_as_rgb(tmp_path: Path, encoding: str) -> None:
    """Channel order, alpha and the padding of rows are taken care of."""
    bag = write_bag(tmp_path / "bag", BagSpec(duration=1, raw=encoding))
    store, _ = _convert(bag, _map(tmp_path, cameras={"top": {"topic": "/camera", "policy": "nearest"}}))
    frame = store.images(IMAGE).decode([9])[0]
    level = frame_level(13)
    blue = level if encoding == "mono8" else level // 2
    np.testing.assert_array_equal(frame, np.broadcast_to([level, level, blue], frame.shape))


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_stored_in_millimetres(tmp_path: Path, encoding: str) -> None:
    """Whole millimetres stay, metres become millimetres."""
    camera = {"topic": "/camera", "policy": "nearest", "depth": True}
    bag = write_bag(tmp_path / "bag", BagSpec(duration=1, raw=encoding))
    store, _ = _convert(bag, _map(tmp_path, cameras={"top": camera}))
    assert store.features["observation.depth.top"].units == ("mm",)
    assert (store.images("observation.depth.top").decode([9]) == frame_level(13) * 10).all()


def test_clock_of_a_topic(tmp_path: Path) -> None:
    """The steps are the camera's frames, each exactly once, and the rate is measured."""
    bag = write_bag(tmp_path / "bag", BagSpec(duration=1))
    store, report = _convert(bag, _map(tmp_path, clock={"topic": "/camera/compressed"}))
    assert store.fps == 15.0
    assert _levels(store) == [frame_level(k) for k in range(15)]
    assert report.warnings == {}
    gappy = write_bag(tmp_path / "gappy", BagSpec(duration=1, silence={"/camera/compressed": (0.5, 0.6)}))
    _, report = _convert(gappy, _map(tmp_path, clock={"topic": "/camera/compressed"}))
    assert "steps differ by more than 10%" in report.warnings["gappy"][0]


def test_a_silent_topic_sets_the_episode_aside(tmp_path: Path) -> None:
    """A gap longer than max_age is not bridged; the message names topic, time and limit."""
    folder = tmp_path / "bags"
    write_bag(folder / "good")
    write_bag(folder / "gap", BagSpec(silence={"/joint_states": (1.0, 2.0)}))
    _, report = _convert(folder, _map(tmp_path))
    assert "/joint_states is silent at" in report.quarantined["gap"]
    assert "max_age 0.1 s" in report.quarantined["gap"]


def test_late_beginnings_and_early_ends_are_trimmed(tmp_path: Path) -> None:
    """Steps before the last topic begins and after the first one ends are left out, not filled with zeros."""
    silence = {"/camera/compressed": (0.0, 0.7), "/joint_states": (2.2, 9.0)}
    store, _ = _convert(write_bag(tmp_path / "bag", BagSpec(silence=silence)), _map(tmp_path))
    first = joint_position(store.n_steps * 0.0 + _first_time(store))
    np.testing.assert_allclose(store.column("observation.state")[0, :3], first, atol=1e-3)
    assert 0.5 <= _first_time(store) <= 0.74
    assert _first_time(store) + (store.n_steps - 1) / 10 <= 2.2


def _first_time(store: EpisodeStore) -> float:
    times = np.arange(0, 3, 0.001)
    distance = np.abs(joint_position(times) - store.column("observation.state")[0, :3]).sum(axis=1)
    return float(times[np.argmin(distance)])


def test_markers_cut_episodes_and_tell_success(tmp_path: Path) -> None:
    """Between start and stop; an unfinished one is reported; instructions come from their own topic."""
    marker = {"per": "marker", "topic": "/episode", "start": ["go"], "stop": ["good", "bad"]}
    marker |= {"success": ["good"], "failure": ["bad"]}
    markers = [(0.3, "go"), (1.0, "good"), (1.2, "go"), (1.4, "go"), (2.1, "bad"), (2.5, "go")]
    spec = BagSpec(markers=markers, texts=[(0.0, "pour"), (1.5, "wipe")])
    bag = write_bag(tmp_path / "long", spec)
    map_file = _map(tmp_path, episodes=marker, task="", task_from={"topic": "/task"})
    store, report = _convert(bag, map_file)
    assert store.episodes["source_id"] == ["long/000", "long/002"]
    assert store.episodes["success"].tolist() == [1, 0]
    assert store.tasks == ["pour", "wipe"]
    assert {name: reason.split(" before")[0] for name, reason in report.quarantined.items()} == {
        "long/001": "another one starts",
        "long/003": "the bag ends",
    }
    np.testing.assert_allclose(store.column("observation.state")[0, :3], joint_position(0.3), atol=1e-3)


def test_ranges_cut_episodes(tmp_path: Path) -> None:
    """Times given by the user, in seconds from the bag's first message."""
    bag = write_bag(tmp_path / "long")
    rule = {"per": "range", "ranges": {"long": [[0.5, 1.0], [2.0, 2.5]]}}
    store, _ = _convert(bag, _map(tmp_path, episodes=rule))
    starts = store.episode_starts
    np.testing.assert_allclose(
        store.column("observation.state")[starts, :3], joint_position(np.array([0.5, 2.0])), atol=1e-3
    )
    late = {"per": "range", "ranges": {"long": [[5.0, 6.0]]}}
    with pytest.raises(DatasetError, match="lies behind the bag's end"):
        _convert(bag, _map(tmp_path, episodes=late))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_split_bags_are_one_episode(tmp_path: Path, storage: str) -> None:
    """Files cut by duration are read one after the other, across the seam."""
    whole, _ = _convert(write_bag(tmp_path / "whole", BagSpec(storage=storage)), _map(tmp_path))
    numbers = whole.column("observation.state")
    split, report = _convert(
        write_split_bag(tmp_path / "split", BagSpec(storage=storage), parts=3), _map(tmp_path)
    )
    np.testing.assert_array_equal(split.column("observation.state"), numbers)
    assert (split.n_episodes, report.warnings) == (1, {})


def test_qos_trap_does_not_silence_topics(tmp_path: Path) -> None:
    """A bag whose metadata states other qualities of service than its file gives all its messages."""
    bag = write_bag(tmp_path / "bag")

    def offer_other_qualities(information: dict) -> None:
        for topic in information["topics_with_message_count"]:
            topic["topic_metadata"]["offered_qos_profiles"] = [
                {
                    "history": 3,
                    "depth": 0,
                    "reliability": 1,
                    "durability": 2,
                    "deadline": {"sec": 0, "nsec": 0},
                }
                | {
                    "lifespan": {"sec": 0, "nsec": 0},
                    "liveliness": 1,
                    "avoid_ros_namespace_conventions": False,
                }
                | {"liveliness_lease_duration": {"sec": 0, "nsec": 0}}
            ]

    edit_metadata(bag, offer_other_qualities)
    store, report = _convert(bag, _map(tmp_path))
    assert store.n_steps == 30
    assert report.warnings == {}


def test_real_bags_with_that_trap_are_read_whole(shared_data: Path) -> None:
    """The reference bags of rosbag2: every topic has as many messages as its metadata says."""
    folder = shared_data / "rosbag2_reference_resources"
    read = {}
    for files in find_bags(folder):
        with Bag(files) as bag:
            assert bag.faults == []
            counts = dict.fromkeys(bag.topics, 0)
            for message in bag.messages(list(counts), *ALL_TIME):
                counts[message.topic] += 1
            assert counts == {name: topic.count for name, topic in bag.topics.items()}
            read[files.name] = sum(counts.values())
    assert len(read) == 17
    assert (
        read["rosbag2_py/test/resources/mcap/wbag"] == read["rosbag2_py/test/resources/sqlite3/wbag"] == 6074
    )
    assert read["ros2bag/test/resources/empty_bag"] == 0


def test_both_storages_of_the_real_bags_hold_the_same(shared_data: Path) -> None:
    """The same recording as mcap and as sqlite3 decodes to the same messages, by definitions or without."""
    folder = shared_data / "rosbag2_reference_resources" / "rosbag2_py" / "test" / "resources"
    texts = {}
    for storage in ("mcap", "sqlite3"):
        (files,) = find_bags(folder / storage / "talker")
        with Bag(files) as bag:
            types = MessageTypes(bag.topics)
            messages = [types.decode(m) for m in bag.messages(["/topic", "/rosout"], *ALL_TIME)]
            texts[storage] = sorted(getattr(m, "data", "") or m.msg for m in messages)
    assert texts["mcap"] == texts["sqlite3"]
    assert len(texts["mcap"]) == 20


def test_empty_bag_is_a_clear_error(tmp_path: Path, shared_data: Path) -> None:
    """A bag in which nothing was recorded says so."""
    bag = shared_data / "rosbag2_reference_resources" / "ros2bag" / "test" / "resources" / "empty_bag"
    topics = {"topic": "/rosout", "field": "level"}
    values = {"robot": "r", "clock": {"rate": 10}, "features": {"observation.state": {"parts": [topics]}}}
    map_file = _map(tmp_path, yaml.safe_dump(values | {"action": {"next_of": "observation.state"}}))
    with pytest.raises(DatasetError, match="holds no messages; nothing was recorded"):
        convert(bag, tmp_path / "out.zarr", format="rosbag2", options={"map": map_file})


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_renamed_files_are_found(tmp_path: Path, storage: str) -> None:
    """The metadata names a file that was renamed since; it is read, and said."""
    bag = write_bag(tmp_path / "bag", BagSpec(storage=storage))
    file = next(path for path in bag.iterdir() if path.name != "metadata.yaml")
    file.rename(bag / f"renamed{file.suffix}")
    store, report = _convert(bag, _map(tmp_path))
    assert store.n_steps == 30
    assert "taken for the same files, renamed" in report.warnings["bag"][0]


def test_missing_part_of_a_split_bag_is_an_error(tmp_path: Path) -> None:
    """A bag of which a file is missing is not converted as if it were whole."""
    write_bag(tmp_path / "bags" / "good")
    bag = write_split_bag(tmp_path / "bags" / "split", parts=3)
    (bag / "split_1.mcap").unlink()
    _, report = _convert(tmp_path / "bags", _map(tmp_path))
    assert "names split_1.mcap" in report.quarantined["split"]


def test_messages_that_are_promised_but_missing(tmp_path: Path) -> None:
    """Fewer than the metadata counts: set aside unless the user says otherwise; none at all: always an error."""
    folder = tmp_path / "bags"
    write_bag(folder / "good")

    def promise_more(information: dict) -> None:
        for topic in information["topics_with_message_count"]:
            topic["message_count"] += 5

    edit_metadata(write_bag(folder / "short"), promise_more)
    edit_metadata(
        write_bag(folder / "silent"), lambda i: i["topics_with_message_count"].append(_topic("/lidar"))
    )
    store, report = _convert(folder, _map(tmp_path))
    assert store.n_episodes == 1
    assert "metadata.yaml counts" in report.quarantined["short"]
    assert "/lidar: metadata.yaml counts 7 messages, the files hold 0" in report.quarantined["silent"]
    store, report = _convert(folder, _map(tmp_path), incomplete="keep")
    assert store.n_episodes == 2
    assert "counts" in report.warnings["short"][0]


def _topic(name: str) -> dict:
    metadata = {"name": name, "type": "std_msgs/msg/String", "serialization_format": "cdr"}
    return {"topic_metadata": metadata | {"offered_qos_profiles": []}, "message_count": 7}


def test_killed_recorder_loses_only_the_end(tmp_path: Path) -> None:
    """An mcap without footer and metadata is read up to its last whole chunk, and the episode says so."""
    write_killed_mcap(tmp_path / "bags" / "killed.mcap", BagSpec(duration=8))
    store, report = _convert(tmp_path / "bags", _map(tmp_path))
    assert 40 < store.n_steps < 80
    assert "the file ends early or is damaged after" in report.warnings["killed.mcap"][0]
    np.testing.assert_allclose(
        store.column("observation.state")[:, :3], joint_position(np.arange(store.n_steps) / 10), atol=1e-3
    )


@pytest.mark.parametrize(
    ("storage", "message"), [("sqlite3", "cannot be read|no readable"), ("mcap", "damaged")]
)
def test_damage_within_a_bag_is_noticed(tmp_path: Path, storage: str, message: str) -> None:
    """Bytes overwritten in the middle: the bag is set aside, the other one converted."""
    folder = tmp_path / "bags"
    write_bag(folder / "good")
    bag = write_bag(folder / "bad", BagSpec(storage=storage, duration=20))
    file = next(path for path in bag.iterdir() if path.name != "metadata.yaml")
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 20000] = bytes(20000)
    file.write_bytes(content)
    store, report = _convert(folder, _map(tmp_path))
    assert store.n_episodes == 1
    assert re.search(message, report.quarantined["bad"])


def test_duplicate_messages_do_no_harm(tmp_path: Path) -> None:
    """The same joint state twice at the same time gives the same numbers as once."""
    once = _convert(write_bag(tmp_path / "once"), _map(tmp_path))[0].column("observation.state")
    twice, _ = _convert(write_bag(tmp_path / "twice", BagSpec(duplicates=True)), _map(tmp_path))
    np.testing.assert_array_equal(twice.column("observation.state"), once)


def test_without_a_map_the_topics_are_listed(tmp_path: Path) -> None:
    """The error shows what there is to map."""
    bag = write_bag(tmp_path / "bag")
    with pytest.raises(DatasetError, match=r"/joint_states \(sensor_msgs/msg/JointState, 150 messages\)"):
        convert(bag, tmp_path / "out.zarr", format="rosbag2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clok": {"rate": 3}}, "unknown key 'clok'; did you mean 'clock'"),
        ({"clock": {}}, "clock: give rate"),
        ({"clock": {"rate": -1}}, "expected a positive rate"),
        ({"time": "stamp"}, "unknown time 'stamp'"),
        ({"features": {}}, "features: empty"),
        ({"action": {}}, "give either parts"),
        ({"action": {"next_of": "observation.stat"}}, "did you mean 'observation.state'"),
        ({"cameras": {"top": {"topic": "/c", "policy": "linear"}}}, "frames are taken as they are"),
        ({"cameras": {"top": {"topic": "/joint_states"}}}, "a camera's topic holds"),
        ({"cameras": {"top": {"topic": "/camera/compresed"}}}, "did you mean '/camera/compressed'"),
        ({"episodes": {"per": "marker"}}, "needs topic, start and stop"),
        ({"episodes": {"per": "day"}}, "unknown rule 'day'"),
        ({"episodes": {"per": "range", "ranges": {"bag": [[3, 1]]}}}, r"expected \[start, end\]"),
        ({"features": {"action": {"parts": [{"topic": "/t"}]}}}, "sections of their own"),
        ({"features": {"observation.a": {"parts": [{"topic": "/t", "policy": "lin"}]}}}, "unknown policy"),
        (
            {"features": {"observation.a": {"parts": [{"topic": "/joint_states", "field": "positon"}]}}},
            "no field",
        ),
        (
            {"features": {"observation.a": {"parts": [{"topic": "/joint_states", "field": "name"}]}}},
            "expected numbers",
        ),
        (
            {
                "features": {
                    "observation.a": {"parts": [{"topic": "/gripper", "field": "data", "time": "header"}]}
                }
            },
            "has no header",
        ),
    ],
)
def test_mistakes_in_a_map_are_named(tmp_path: Path, change: dict, message: str) -> None:
    """Each mistake is one line that names file, key or topic."""
    bag = write_bag(tmp_path / "bag", BagSpec(duration=0.5))
    values = yaml.safe_load(MAP)
    if change.get("features"):
        values["action"] = {"next_of": next(iter(change["features"]))}
    with pytest.raises(DatasetError, match=message):
        _convert(bag, _map(tmp_path, yaml.safe_dump(values), **change))
    assert not (tmp_path / "out.zarr").exists()


def test_missing_joint_names_those_that_are_there(tmp_path: Path) -> None:
    """A misspelt joint is an error, not a column of zeros."""
    bag = write_bag(tmp_path / "bag", BagSpec(duration=0.5))
    text = MAP.replace("joints: [shoulder, elbow, wrist]", "joints: [shoulder, elbow, hand]")
    with pytest.raises(DatasetError, match="has no joint hand; it names shoulder, elbow, wrist"):
        _convert(bag, _map(tmp_path, text))


def test_fractions_are_not_cut_off(tmp_path: Path) -> None:
    """A feature declared as whole numbers does not truncate angles."""
    values = yaml.safe_load(MAP)
    values["features"]["observation.state"]["dtype"] = "int64"
    with pytest.raises(DatasetError, match="do not fit int64"):
        _convert(write_bag(tmp_path / "bag", BagSpec(duration=0.5)), _map(tmp_path, yaml.safe_dump(values)))


def test_map_is_recorded_by_its_content(tmp_path: Path) -> None:
    """Two maps of the same name but other content make different stores; the place of the file does not matter."""
    first = read_map(Path(_map(tmp_path)))[1]
    second = read_map(Path(_map(tmp_path, robot="other")))[1]
    assert first != second
    assert first.startswith("map blake2b:")
    assert str(tmp_path) not in first


def test_hostile_definitions_are_not_executed(tmp_path: Path) -> None:
    """Definitions become code; one whose names are code is refused."""
    name = "x/msg/A:\n    import os\n    os.abort()\nclass B"
    topic = Topic("/t", name, "int32 a\n", "ros2msg", 1)
    types = MessageTypes({"/t": topic})
    with pytest.raises(BagError, match="unreadable"):
        types.decode(RawMessage("/t", 0, bytes(8)))


def test_unknown_types_are_only_an_error_where_they_are_mapped(tmp_path: Path) -> None:
    """A topic of a type that nobody defines does not keep others from being read."""
    types = MessageTypes({"/t": Topic("/t", "my_msgs/msg/Odd"), "/s": Topic("/s", "std_msgs/msg/String")})
    assert types.decode(RawMessage("/s", 0, b"\0\1\0\0\3\0\0\0hi\0")).data == "hi"
    with pytest.raises(BagError, match="neither the bag nor ROS 2 defines"):
        types.decode(RawMessage("/t", 0, bytes(8)))
    with pytest.raises(BagError, match="is no std_msgs/msg/String"):
        types.decode(RawMessage("/s", 0, b"\0\1\0\0\xff\xff\0\0hi"))


def test_loose_files_are_bags_of_their_own(tmp_path: Path) -> None:
    """Files without metadata: those that differ in a number are parts of one bag, others are not."""
    for name in ("take_0.mcap", "take_1.mcap", "other.mcap", "more.db3"):
        (tmp_path / name).touch()
    found = {bag.name: [file.name for file in bag.files] for bag in find_bags(tmp_path)}
    assert found == {
        "take": ["take_0.mcap", "take_1.mcap"],
        "other.mcap": ["other.mcap"],
        "more.db3": ["more.db3"],
    }


def test_pending_write_ahead_log_is_read(tmp_path: Path) -> None:
    """A sqlite bag whose recorder was killed keeps its last messages in a log beside it."""
    bag = write_bag(tmp_path / "bag", BagSpec(storage="sqlite3"))
    file = next(bag.glob("*.db3"))
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute(
        "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp + 1, data FROM messages LIMIT 3"
    )
    writer.commit()
    with Bag(replace(find_bags(bag)[0], metadata=None)) as opened:
        assert sum(topic.count for topic in opened.topics.values()) == sum(
            1 for _ in opened.messages(list(opened.topics), *ALL_TIME)
        )
        assert "write-ahead log" in opened.unfinished
    writer.close()
