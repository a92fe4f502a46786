"""Recordings: whole after a kill, bounded when the disk is slow or full, and converted to what the node saw."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("mcap", reason="the extra 'ros' is not installed")

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import decode_frame, encode_frame
from robot_datasets.importers.rosbag2_bag import Bag, find_bags
from robot_datasets.importers.rosbag2_messages import known_types
from robot_datasets.kinematics import PANDA
from robot_datasets.mapping import ConfigError, from_mapping
from robot_datasets.resampling import resample, step_times_ns
from robot_datasets.store import EpisodeStore
from robot_deploy.deployment import DeploymentConfig
from robot_deploy.motion.workspace import SerialTool
from robot_deploy.observation.rings import SampleRing
from robot_deploy.observation.window import Window, WindowBuilder
from robot_deploy.recording import contract
from robot_deploy.recording.bag_writer import BagWriter, RecordingError
from robot_deploy.recording.parity import checksum, compare, step_events
from robot_deploy.recording.recorder import Recorder, RecorderLimits, RecorderState
from robot_deploy.recording.recovery import recover
from robot_policies.spec import PolicySpec

JOINT_STATE = "sensor_msgs/msg/JointState"
EPOCH = 1_700_000_000_000_000_000
ALL_TIME = (0, 1 << 63)


def cdr(kind: str, **fields: Any) -> bytes:
    types = known_types()
    return bytes(types.serialize_cdr(types.types[kind](**fields), kind))


def header(stamp_ns: int) -> Any:
    types = known_types().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id="")


def joint_state(stamp_ns: int, names: tuple[str, ...], position: np.ndarray) -> bytes:
    empty = np.empty(0)
    return cdr(
        JOINT_STATE, header=header(stamp_ns), name=list(names), position=position, velocity=empty, effort=empty
    )  # fmt: skip


def event(stamp_ns: int, text: str) -> bytes:
    head = header(stamp_ns)
    return cdr(contract.EVENT_TYPE, header=head, time_ref=head.stamp, source=text)


def read(folder: Path) -> tuple[Bag, dict[str, int]]:
    bag = Bag(find_bags(folder)[0])
    counts: dict[str, int] = {}
    for message in bag.messages(list(bag.topics), *ALL_TIME):
        counts[message.topic] = counts.get(message.topic, 0) + 1
    return bag, counts


def start_bag(folder: Path, **options: Any) -> BagWriter:
    bag = BagWriter(folder, about=contract.about("robot: panda\n", revision="abc"), **options)
    bag.add_topic("/joint_states", JOINT_STATE)
    return bag


def test_a_closed_bag_is_whole(tmp_path: Path):
    """Counts, times, index and metadata agree; the contract and the revision stand in the file."""
    bag = start_bag(tmp_path / "take", compression="zstd")
    for k in range(500):
        bag.write("/joint_states", joint_state(EPOCH + k, ("a",), np.array([k / 7])), log_ns=EPOCH + k)
    bag.close()
    bag.close()
    found, counts = read(tmp_path / "take")
    assert found.faults == []
    assert counts == {"/joint_states": 500}
    assert found.time_span == (EPOCH, EPOCH + 499)
    from mcap.reader import make_reader

    with next((tmp_path / "take").glob("*.mcap")).open("rb") as file:
        metadata = {m.name: m.metadata for m in make_reader(file).iter_metadata()}
    assert metadata["robot_policies.contract"]["yaml"] == "robot: panda\n"
    assert metadata["robot_policies.software"]["git_commit"] == "abc"


def test_what_cannot_be_recorded_is_refused(tmp_path: Path):
    """A folder that exists, a type that nobody knows, a place that cannot be written."""
    bag = start_bag(tmp_path / "take")
    with pytest.raises(RecordingError, match="is unknown"):
        bag.add_topic("/x", "my_msgs/msg/Thing")
    bag.close()
    with pytest.raises(RecordingError, match="exists"):
        start_bag(tmp_path / "take")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written"):
        start_bag(tmp_path / "file" / "take")


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_recording import EPOCH, joint_state, start_bag
from robot_deploy.recording.recorder import Recorder, RecorderLimits
import numpy as np
recorder = Recorder(start_bag(Path(sys.argv[1]), chunk_bytes=16 * 1024), RecorderLimits(flush_s=0.1, min_free_mb=0))
for k in range(10**6):
    recorder.offer("/joint_states", joint_state(EPOCH + k, ("a",) * 7, np.full(7, k)), log_ns=EPOCH + k)
    if k % 50 == 0:
        print(k, recorder.status().bytes, flush=True)
        time.sleep(0.01)
"""


def test_a_killed_recorder_loses_at_most_its_last_chunk(tmp_path: Path):
    """SIGKILL in the middle of writing: every finished chunk is read, and recovered into a whole bag."""
    folder = tmp_path / "take"
    command = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        offered = 0
        for line in process.stdout:
            offered, size = map(int, line.split())
            if offered >= 2000 and size > 100_000:
                os.kill(process.pid, signal.SIGKILL)
                break
    bag, counts = read(folder)
    per_message = len(joint_state(EPOCH, ("a",) * 7, np.zeros(7)))
    in_a_chunk = 16 * 1024 // per_message + 1
    assert "no footer" in bag.unfinished or bag.unfinished
    assert counts["/joint_states"] >= offered - 50 - 2 * in_a_chunk
    report = recover(folder, tmp_path / "recovered")
    assert report.messages == counts
    assert report.ending or report.read_bytes <= report.file_bytes
    whole, again = read(tmp_path / "recovered")
    assert whole.faults == []
    assert again == counts
    numbers = [m.data for m in whole.messages(["/joint_states"], *ALL_TIME)]
    assert numbers == [joint_state(EPOCH + k, ("a",) * 7, np.full(7, k)) for k in range(len(numbers))]


@pytest.mark.parametrize("cut", [1, 9, 4000])
def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path: Path, cut: int):
    """A file without its last bytes, or in the middle of a chunk, gives all chunks before that."""
    bag = start_bag(tmp_path / "take", chunk_bytes=4096)
    for k in range(200):
        bag.write("/joint_states", joint_state(EPOCH + k, ("a",), np.array([k])), log_ns=EPOCH + k)
    bag.flush()
    path = next((tmp_path / "take").glob("*.mcap"))
    whole = path.read_bytes()
    bag.abandon()
    path.write_bytes(whole[:-cut])
    found = recover(path, tmp_path / "out").messages["/joint_states"]
    assert 100 <= found < 200 or (found == 200 and cut < 10)  # a few bytes are only of the last chunk's index
    path.write_bytes(whole[:20])
    with pytest.raises(RecordingError, match="no whole chunk"):
        recover(path, tmp_path / "nothing")
    with pytest.raises(RecordingError, match=r"0 \.mcap files"):
        recover(tmp_path, tmp_path / "nowhere")


class SlowBag(BagWriter):
    """A bag on a disk that takes its time, or is full."""

    delay = 0.0
    full = False

    def write(self, topic: str, data: bytes, *, log_ns: int, publish_ns: int | None = None) -> None:
        time.sleep(self.delay)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(topic, data, log_ns=log_ns, publish_ns=publish_ns)


def test_a_slow_disk_drops_and_counts(tmp_path: Path):
    """Offering never waits; what found no room is counted, and written and dropped add up to all that was offered."""
    bag = SlowBag(tmp_path / "take", about={})
    bag.add_topic("/joint_states", JOINT_STATE)
    bag.delay = 0.05
    recorder = Recorder(bag, RecorderLimits(queue_mb=0.02, min_free_mb=0))
    data = bytes(1000)
    began = time.monotonic()
    taken = sum(recorder.offer("/joint_states", data, log_ns=EPOCH + k) for k in range(100))
    assert time.monotonic() - began < 0.5
    status = recorder.close()
    assert taken < 60
    assert status.dropped == {"/joint_states": 100 - taken}
    assert status.written == {"/joint_states": taken}
    assert status.state is RecorderState.CLOSED
    assert not recorder.offer("/joint_states", data, log_ns=EPOCH)


def test_a_full_disk_ends_the_recording_and_leaves_it_readable(tmp_path: Path):
    """An error of the disk is told, later messages are counted as dropped, and what was flushed is read."""
    bag = SlowBag(tmp_path / "take", about={})
    bag.add_topic("/joint_states", JOINT_STATE)
    recorder = Recorder(bag, RecorderLimits(flush_s=0.0, min_free_mb=0))
    for k in range(20):
        recorder.offer("/joint_states", joint_state(EPOCH + k, ("a",), np.zeros(1)), log_ns=EPOCH + k)
    deadline = time.monotonic() + 10
    while recorder.status().written["/joint_states"] < 20 or bag.unflushed_since is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bag.full = True
    for _ in range(3):
        recorder.offer("/joint_states", b"", log_ns=EPOCH)
    status = recorder.close()
    assert status.state is RecorderState.FAILED
    assert "No space left" in status.reason
    assert status.dropped == {"/joint_states": 3}
    assert read(tmp_path / "take")[1] == {"/joint_states": 20}


def test_a_nearly_full_disk_ends_the_recording_in_good_order(tmp_path: Path):
    """With less room than wanted the bag is closed whole, while there is room for its index."""
    recorder = Recorder(
        start_bag(tmp_path / "take"), RecorderLimits(min_free_mb=100), free_bytes=lambda _: 10**6
    )
    recorder.offer("/joint_states", joint_state(EPOCH, ("a",), np.zeros(1)), log_ns=EPOCH)
    status = recorder.close()
    assert status.state is RecorderState.DISK_FULL
    assert "1 MB left" in status.reason
    assert read(tmp_path / "take")[0].faults == []


# Bag -> store -> what the node saw.

CAMERA = IMAGE_PREFIX + "wrist"
NAMES = ("j1", "j2", "j3")


def deployment(**changes: Any) -> DeploymentConfig:
    values = {
        "robot": "panda",
        "streams": {
            "joints": {
                "kind": "state", "names": [f"arm_{n}" for n in NAMES], "topic": "/joint_states", "latency_ms": 3.0
            },
            "wrist": {
                "kind": "image", "topic": "/wrist/compressed", "max_age_ms": 150, "max_gap_ms": 150, "latency_ms": 41.0
            },
        },
        "features": {STATE: [{"source": "joints"}], CAMERA: [{"source": "wrist"}]},
        "action_joints": {f"arm_{n}": n for n in NAMES},
        **changes,
    }  # fmt: skip
    return from_mapping(DeploymentConfig, values, where="test")


SPEC = PolicySpec(
    observation={
        STATE: Feature(dtype="float32", shape=(3,), names=tuple(f"arm_{n}" for n in NAMES), units=("rad",)),
        CAMERA: Feature(dtype="uint8", shape=(24, 32, 3)),
    },
    action=Feature(dtype="float32", shape=(3,), names=NAMES, units=("rad",)),
    n_obs_steps=3,
    horizon=16,
    n_action_steps=8,
    fps=30.0,
)


def drive(bag: BagWriter, *, seconds: float = 4.0, seed: int = 0, encoded: bool = False) -> list[Window]:
    """Jittery sensors into rings and a bag; return the windows that a node would have given its policy."""
    random = np.random.default_rng(seed)
    config = deployment()
    rings = {name: SampleRing(stream) for name, stream in config.streams.items()}
    builder = WindowBuilder(
        SPEC, rings, config.features, decode=lambda payload: decode_frame(bytes(payload)), encoded=encoded  # type: ignore[arg-type]
    )  # fmt: skip
    arrivals = [(t, "joints") for t in np.cumsum(random.uniform(0.007, 0.013, round(seconds / 0.01)))]
    arrivals += [(t, "wrist") for t in np.cumsum(random.uniform(0.028, 0.040, round(seconds / 0.034)))]
    windows: list[Window] = []
    for number, (at, source) in enumerate(sorted(arrivals)):
        stamp = EPOCH + round(at * 1e9) + int(random.integers(1000))
        now = stamp + int(random.integers(200_000, 4_000_000))
        if source == "joints":
            names = tuple(f"arm_{n}" for n in random.permutation(NAMES))
            values = random.normal(size=3)
            rings[source].add(values, stamp_ns=stamp, now_ns=now, names=names)
            bag.write("/joint_states", joint_state(stamp, names, values), log_ns=now)
        else:
            frame = encode_frame(random.integers(0, 255, (24, 32, 3), dtype=np.uint8), "jpeg")
            rings[source].add(frame, stamp_ns=stamp, now_ns=now)
            data = np.frombuffer(frame, np.uint8)
            message = cdr("sensor_msgs/msg/CompressedImage", header=header(stamp), format="jpeg", data=data)
            bag.write("/wrist/compressed", message, log_ns=now)
        window = builder.build(now) if number % 7 == 0 else None
        if isinstance(window, Window):
            windows.append(window)
            for time_ns, text in step_events(window):
                bag.write(contract.WINDOW_TOPIC, event(time_ns, text), log_ns=now)
    return windows


def recorded(
    folder: Path, tags: tuple[tuple[float, str], ...] = (), *, encoded: bool = False
) -> list[Window]:
    bag = BagWriter(folder, about={})
    for topic, kind in contract.recorded_topics(deployment(), contract.RecordingConfig()).items():
        bag.add_topic(topic, kind)
    for at, tag in tags:
        stamp = EPOCH + round(at * 1e9)
        bag.write(contract.SEGMENT_TOPIC, cdr(contract.TEXT_TYPE, data=tag), log_ns=stamp)
    windows = drive(bag, encoded=encoded)
    bag.close()
    return windows


def converted(folder: Path, **options: Any) -> EpisodeStore:
    map_file = folder.parent / "map.yaml"
    contract.write_map(map_file, contract.topic_map(deployment(), SPEC, by_episode=False, **options))
    target = folder.parent / "out.zarr"
    convert(folder, target, format="rosbag2", options={"map": str(map_file)}, overwrite=True)
    return EpisodeStore.open(target)


def test_the_store_holds_what_the_node_saw_to_the_bit(tmp_path: Path):
    """Every step of every window, numbers and pixels, with latencies, jitter and joints in changing order."""
    windows = recorded(tmp_path / "take")
    assert len(windows) > 50
    store = converted(tmp_path / "take", clock_topic=contract.WINDOW_TOPIC)
    times = sorted({int(t) for window in windows for t in window.steps_ns})[
        :-1
    ]  # the last step has no action
    assert store.n_steps == len(times)
    row_of = {time_ns: row for row, time_ns in enumerate(times)}
    states, images = store.column(STATE), store.images(CAMERA)
    compared = 0
    for window in windows[:-1]:
        rows = [row_of[int(t)] for t in window.steps_ns]
        np.testing.assert_array_equal(states[rows], window.arrays[STATE])
        np.testing.assert_array_equal(images.decode(np.array(rows)), window.arrays[CAMERA])
        compared += len(rows)
    assert compared >= 150
    events = {int(t): text for window in windows for t, text in step_events(window)}
    report = compare(store, events, np.array(times))
    assert (report.steps, report.different, report.first) == (len(times), {}, "")


def test_frames_that_a_node_leaves_encoded_are_stored_as_they_came(tmp_path: Path):
    """A node that hands frames on undecoded: their bytes in the store are those it handed on."""
    windows = recorded(tmp_path / "take", encoded=True)
    store = converted(tmp_path / "take", clock_topic=contract.WINDOW_TOPIC)
    times = sorted({int(t) for window in windows for t in window.steps_ns})[:-1]
    events = {int(t): text for window in windows for t, text in step_events(window)}
    assert windows[0].frames[CAMERA]
    assert compare(store, events, np.array(times)).different == {}
    wrong = {t: json.dumps({k: v + 1 for k, v in json.loads(text).items()}) for t, text in events.items()}
    assert compare(store, wrong, np.array(times)).different == {
        STATE: len(times),
        f"encoded:{CAMERA}": len(times),
    }


def test_the_parity_check_notices_one_changed_bit(tmp_path: Path):
    """A checksum that differs is counted and named: the check can fail."""
    windows = recorded(tmp_path / "take")
    store = converted(tmp_path / "take", clock_topic=contract.WINDOW_TOPIC)
    times = sorted({int(t) for window in windows for t in window.steps_ns})[:-1]
    events = {int(t): text for window in windows for t, text in step_events(window)}
    changed = store.column(STATE)[5].copy()
    changed[0] = np.nextafter(changed[0], 10, dtype=np.float32)
    events[times[5]] = json.dumps(json.loads(events[times[5]]) | {STATE: checksum(changed)})
    report = compare(store, events, np.array(times))
    assert report.different == {STATE: 1}
    assert "at step 5" in report.first


def test_tags_become_segments_of_the_store(tmp_path: Path):
    """Who moved the robot, by stamped events, lands on the steps of a fixed clock; "" is nobody's."""
    recorded(tmp_path / "take", ((0.0, "policy"), (1.0, ""), (1.5, "recovery"), (2.5, "correction")))
    store = converted(tmp_path / "take")
    assert store.fps == 30.0
    segments = store.episodes["segments"][0]
    assert [s.tag for s in segments] == ["policy", "recovery", "correction"]
    lengths = np.array([s.end - s.start for s in segments]) / 30.0
    np.testing.assert_allclose(lengths[1], 1.0, atol=1.1 / 30.0)
    np.testing.assert_allclose((segments[1].start - segments[0].end) / 30.0, 0.5, atol=1.1 / 30.0)
    assert store.column(ACTION).shape[1] == 3
    np.testing.assert_array_equal(store.column(ACTION)[:-1], store.column(STATE)[1:])


def test_episodes_are_cut_by_their_events(tmp_path: Path):
    """Two episodes with their outcomes, and what was between them left out."""
    bag = BagWriter(tmp_path / "take", about={})
    for topic, kind in contract.recorded_topics(deployment(), contract.RecordingConfig()).items():
        bag.add_topic(topic, kind)
    marks = [(0.5, "start"), (1.5, "success"), (2.0, "start"), (3.5, "failure")]
    for at, text in marks:
        stamp = EPOCH + round(at * 1e9)
        bag.write(contract.EPISODE_TOPIC, event(stamp, text), log_ns=stamp)
    drive(bag)
    bag.close()
    map_file = tmp_path / "map.yaml"
    contract.write_map(map_file, contract.topic_map(deployment(), SPEC))
    assert yaml.safe_load(map_file.read_text())["episodes"]["per"] == "marker"
    convert(tmp_path / "take", tmp_path / "out.zarr", format="rosbag2", options={"map": str(map_file)})
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert list(store.episodes["success"]) == [True, False]
    assert [int(n) for n in np.diff(store.episode_ends, prepend=0)] == pytest.approx([29, 44], abs=2)


def test_where_the_tool_is_is_computed_again_to_the_bit(tmp_path: Path):
    """A source that no topic holds: the converter makes of the recorded joints what the node made of them."""
    joints = [f"panda_joint{i}" for i in range(1, 8)]
    streams = {
        "joints": {"kind": "state", "names": joints, "topic": "/joint_states"},
        "hand": {
            "kind": "state", "names": ["x", "y", "z"],
            "kinematics": {"joints": "joints", "arm": "panda", "tool": [0.0, 0.0, 0.097]},
        },
    }  # fmt: skip
    config = deployment(streams=streams, features={STATE: [{"source": "hand"}]}, action_joints={})
    spec = PolicySpec(
        observation={STATE: Feature(dtype="float32", shape=(3,), names=("a", "b", "c"), units=("m",))},
        action=Feature(dtype="float32", shape=(7,), names=tuple(joints)), n_obs_steps=1, horizon=4,
        n_action_steps=1, fps=10.0,
    )  # fmt: skip
    bag = BagWriter(tmp_path / "take", about={})
    for topic, kind in contract.recorded_topics(config, contract.RecordingConfig()).items():
        bag.add_topic(topic, kind)
    random, tool = np.random.default_rng(3), SerialTool(PANDA, (0.0, 0.0, 0.097))
    ring = SampleRing(config.streams["hand"])
    for number in range(200):
        stamp, values = EPOCH + number * 10_000_000, random.uniform(-1.0, 1.0, 7)
        bag.write("/joint_states", joint_state(stamp, tuple(joints), values), log_ns=stamp)
        ring.add(tool.position(values[None])[0], stamp_ns=stamp, now_ns=stamp, names=("x", "y", "z"))
    bag.close()
    mapping = contract.topic_map(config, spec, by_episode=False)
    contract.write_map(tmp_path / "take" / "map.yaml", mapping)
    convert(tmp_path / "take", tmp_path / "out.zarr", format="rosbag2")
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert store.features[STATE].names == ("a", "b", "c")
    times, points = ring.samples()
    clock = times[0] + step_times_ns(np.arange(store.n_steps), 10.0)
    expected = resample(times, np.stack(points), clock, policy="linear", max_age=0.05)[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(store.column(STATE), expected.astype(np.float32))


def test_a_part_of_a_computed_feature_cannot_be_mapped():
    """All of its components or none: the refusal names the feature."""
    computed = {"joints": "joints", "arm": "panda"}
    streams = {
        "joints": {"kind": "state", "names": list(NAMES), "topic": "/joint_states"},
        "hand": {"kind": "state", "names": ["x", "y", "z"], "kinematics": computed},
    }
    features = {STATE: [{"source": "hand", "names": ["z"]}]}
    config = deployment(streams=streams, features=features, action_joints={})
    spec = PolicySpec(
        observation={STATE: Feature(dtype="float32", shape=(1,))}, action=SPEC.action, n_obs_steps=1,
        horizon=4, n_action_steps=1, fps=10,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="take all components"):
        contract.topic_map(config, spec)


def test_bags_of_different_maps_are_not_mixed(tmp_path: Path):
    """Without a map that is given, all bags of a folder must have brought the same."""
    for name in ("one", "two"):
        recorded(tmp_path / "bags" / name)
        contract.write_map(
            tmp_path / "bags" / name / "map.yaml", contract.topic_map(deployment(), SPEC, by_episode=False)
        )
    out = tmp_path / "out.zarr"
    convert(tmp_path / "bags", out, format="rosbag2")
    assert len(EpisodeStore.open(out).episode_ends) == 2
    other = contract.topic_map(deployment(instruction="another task"), SPEC, by_episode=False)
    contract.write_map(tmp_path / "bags" / "two" / "map.yaml", other)
    with pytest.raises(DatasetError, match="differ; give the one"):
        convert(tmp_path / "bags", out, format="rosbag2", overwrite=True)
    (tmp_path / "bags" / "two" / "map.yaml").unlink()
    with pytest.raises(DatasetError, match="is not; give one for all"):
        convert(tmp_path / "bags", out, format="rosbag2", overwrite=True)
