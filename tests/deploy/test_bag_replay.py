"""The same run again: a journal from a file, and a bag through a runtime, both to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mcap", reason="the extra 'ros' is not installed")

from robot_datasets.errors import UserError
from robot_datasets.importers.rosbag2_messages import known_types
from robot_datasets.mapping import from_mapping
from robot_deploy.deployment import StreamConfig
from robot_deploy.drill import DrillRun, SimulatedArm, drill_config, drill_spec
from robot_deploy.observation.rings import Reason
from robot_deploy.observation.window import Problem
from robot_deploy.recording.bag_replay import BagReplay, replay_bag
from robot_deploy.recording.bag_writer import BagWriter
from robot_deploy.recording.journal_file import JournalError, line_of, read_journal, write_journal
from robot_deploy.replay import Call, Journal, replay, tick_digest
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import ChunkRequest
from robot_deploy.supervision.states import Event, State

EPOCH = 1_700_000_000_000_000_000
JOINT_STATE = "sensor_msgs/msg/JointState"


def test_a_run_can_be_had_again_from_its_file(tmp_path: Path, panda, home):
    """A journal through a file into a new runtime: the same ticks, commands included, to the bit."""

    def fresh() -> Runtime:
        return Runtime(drill_config(panda.names), drill_spec(panda.names), panda)

    journal = Journal(fresh())
    run = DrillRun(journal, SimulatedArm(home.copy()), home, panda)  # type: ignore[arg-type]
    run.run(10)
    journal.command(Event.START)
    run.run(50)
    journal.publishers(3)
    run.run(20)
    file = tmp_path / "journal.jsonl"
    write_journal(file, journal.calls)
    again = replay(list(read_journal(file)), fresh())
    assert tick_digest(again) == tick_digest(run.ticks)
    assert any(tick.send for tick in again)
    text = file.read_text()
    file.write_text(text[:-40])
    assert len(list(read_journal(file))) == len(journal.calls) - 1


def test_every_kind_of_value_survives_the_file(tmp_path: Path):
    """Arrays of each type, bytes, events, problems, and the numbers that are easily lost."""
    arrays = [
        np.array([[0.1, np.nan], [np.inf, -0.0]]),
        np.arange(3, dtype=np.uint8),
        np.array([True, False]),
    ]
    problem = Problem(source="wrist", reason=Reason.BLANK, detail="contrast 0.1")
    calls = [
        Call("chunk", tuple(arrays), {"ticket": 3}),
        Call("sample", ("wrist", b"\x00\xff"), {"stamp_ns": EPOCH + 1, "names": ("a", "b")}),
        Call("command", (Event.FAULT, "why: \u00e9\n"), {}),
        Call("unusable", ([problem],), {"ticket": 4}),
    ]
    write_journal(tmp_path / "j", calls)
    found = list(read_journal(tmp_path / "j"))
    for mine, theirs in zip(arrays, found[0].arguments, strict=True):
        assert theirs.dtype == mine.dtype
        assert theirs.tobytes() == mine.tobytes()
    assert found[1] == calls[1]
    assert found[2] == calls[2]
    assert found[3].arguments == ((problem,),)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps({"call": "__init__", "arguments": [], "keywords": {}}),
        json.dumps({"call": "tick", "arguments": [{"$array": ["object", [1], ""]}], "keywords": {}}),
        json.dumps({"call": "tick", "arguments": [{"$code": "x"}], "keywords": {}}),
        json.dumps({"call": "chunk", "arguments": [{"$array": ["float64", [9], "AAAA"]}], "keywords": {}}),
    ],
)
def test_a_hostile_journal_is_refused(tmp_path: Path, line: str):
    """Nothing but inputs of a runtime is ever called, and nothing but plain values is built."""
    (tmp_path / "j").write_text(line_of(Call("tick", (1,), {"clock_ns": 2})) + "\n" + line + "\n")
    with pytest.raises(JournalError, match="line 2"):
        list(read_journal(tmp_path / "j"))


def write_bag(folder: Path, names: tuple[str, ...], home: np.ndarray, seconds: float = 2.0) -> None:
    """Joint states of an arm that swings, with jitter, as a recorder would have got them."""
    types, random = known_types(), np.random.default_rng(0)
    bag = BagWriter(folder, about={})
    bag.add_topic("/joint_states", JOINT_STATE)
    for at in np.cumsum(random.uniform(0.006, 0.012, round(seconds / 0.009))):
        stamp = EPOCH + round(at * 1e9)
        time = types.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        message = types.types[JOINT_STATE](
            header=types.types["std_msgs/msg/Header"](stamp=time, frame_id=""),
            name=list(names), position=home + 0.1 * np.sin(3 * at), velocity=np.empty(0), effort=np.empty(0),
        )  # fmt: skip
        bag.write("/joint_states", bytes(types.serialize_cdr(message, JOINT_STATE)), log_ns=stamp + 700_000)
    bag.close()


def replayed(folder: Path, panda: Any, *, seed: int = 0, topic: str = "/joint_states") -> BagReplay:
    stream = from_mapping(
        StreamConfig, {"kind": "state", "names": list(panda.names), "topic": topic}, where="test"
    )
    config = drill_config(panda.names, mode="shadow", sources={"joints": stream})

    def predict(request: ChunkRequest) -> np.ndarray:
        noise = np.random.default_rng([seed, request.ticket]).normal(size=(16, 7)) * 0.01
        return (request.window.arrays["observation.state"][-1] + noise).astype(np.float32)

    runtime = Runtime(config, drill_spec(panda.names), panda)
    return replay_bag(folder, {"joints": stream}, runtime, predict, command_rate=100.0)


def test_a_bag_gives_the_same_commands_every_time(tmp_path: Path, panda, home):
    """Twice through a new runtime: equal to the last bit; another seed of the noise: other commands."""
    write_bag(tmp_path / "take", panda.names, home)
    first, second = replayed(tmp_path / "take", panda), replayed(tmp_path / "take", panda)
    assert first.digest == second.digest
    for one, other in zip(first.ticks, second.ticks, strict=True):
        if one.trajectory is not None and other.trajectory is not None:
            assert one.trajectory.positions.tobytes() == other.trajectory.positions.tobytes()
    assert first.chunks >= 4
    assert first.ticks[-1].state is State.AUTONOMOUS, first.ticks[-1].fault
    assert not any(tick.send for tick in first.ticks)
    assert replayed(tmp_path / "take", panda, seed=1).digest != first.digest


def test_a_bag_without_the_topics_is_refused(tmp_path: Path, panda, home):
    """A missing topic is named; so is a folder without a bag."""
    write_bag(tmp_path / "take", panda.names, home, seconds=0.2)
    with pytest.raises(UserError, match="/other"):
        replayed(tmp_path / "take", panda, topic="/other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds 0 bags"):
        replayed(tmp_path / "empty", panda)
