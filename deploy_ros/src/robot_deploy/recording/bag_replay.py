"""A bag fed through a runtime: what would the policy have commanded? The same bag and seed give the same bytes.

The clock is the bag's own: a message is taken at the time at which the recorder received it, the runtime ticks in
between at its command rate, and a chunk arrives a fixed number of ticks after it was asked for. No wall clock is read
and nothing waits, so the replay is as fast as the computer, and repeats to the bit. The arm does as was recorded,
whatever the policy commands; use mode ``shadow``, which starts again from the measured position with every chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import UserError
from robot_datasets.importers.rosbag2_bag import Bag, find_bags
from robot_datasets.importers.rosbag2_messages import MessageTypes
from robot_deploy.recording.contract import MESSAGE_OF_KIND
from robot_deploy.replay import tick_digest
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import ChunkRequest, Tick
from robot_deploy.supervision.states import Event, State

if TYPE_CHECKING:
    from robot_deploy.deployment import StreamConfig

Predict = Callable[[ChunkRequest], np.ndarray]
_OFFSET_NS = 1_000_000_000  # monotonic time begins here, not at 0


@dataclass(frozen=True, kw_only=True)
class BagReplay:
    """What a replay gave.

    Attributes:
        ticks: One per command period.
        chunks: Chunks that were asked for.
        digest: Checksum of all that the ticks say, commands included.
    """

    ticks: list[Tick]
    chunks: int
    digest: str


def replay_bag(
    folder: Path,
    streams: Mapping[str, StreamConfig],
    runtime: Runtime,
    predict: Predict,
    *,
    command_rate: float,
    latency_ticks: int = 4,
) -> BagReplay:
    """Feed a bag through a runtime, which is started as soon as its observations allow it.

    Args:
        folder: The bag.
        streams: Its sources, by name, with their topics.
        runtime: A configured runtime that is idle.
        predict: From a request to a chunk (T_p, A). Seed its noise by the ticket.
        command_rate: Of the runtime [Hz].
        latency_ticks: Command periods from a request to its chunk.

    Raises:
        UserError: The bag has no such topics.
    """
    bags = find_bags(folder)
    if len(bags) != 1:
        raise UserError(f"{folder} holds {len(bags)} bags; expected one")
    by_topic: dict[str, list[tuple[str, StreamConfig]]] = {}
    for name, stream in streams.items():
        by_topic.setdefault(stream.topic, []).append((name, stream))
    with Bag(bags[0]) as bag:
        missing = [topic for topic in by_topic if topic not in bag.topics]
        if missing or bag.time_span is None:
            raise UserError(
                f"{folder} has no messages on {', '.join(missing) or 'any topic'}; it cannot be replayed"
            )
        types = MessageTypes(bag.topics)
        first, last = bag.time_span
        feeder = _Feeder(
            runtime, predict, clock_ns=first, period_ns=round(1e9 / command_rate), latency=latency_ticks
        )
        # A recorder writes messages as they come; those of equal time stay in the order of the file.
        for message in sorted(bag.messages(list(by_topic), first, last), key=lambda m: m.time):
            feeder.tick_until(message.time - first)
            decoded = types.decode(message)
            for name, stream in by_topic[message.topic]:
                payload, names = _sample(decoded, bag.topics[message.topic].type, stream)
                runtime.sample(
                    name, payload, stamp_ns=types.stamp(message), clock_ns=message.time, names=names
                )
        feeder.tick_until(last - first)
    return BagReplay(ticks=feeder.ticks, chunks=feeder.chunks, digest=tick_digest(feeder.ticks))


class _Feeder:
    """Ticks a runtime on the bag's clock, and brings its chunks."""

    def __init__(
        self, runtime: Runtime, predict: Predict, *, clock_ns: int, period_ns: int, latency: int
    ) -> None:
        self._runtime, self._predict, self._period_ns, self._latency = runtime, predict, period_ns, latency
        self._clock_ns = clock_ns  # of the bag's beginning
        self.ticks: list[Tick] = []
        self.chunks = 0
        self._next_ns = period_ns
        self._pending: list[tuple[int, ChunkRequest]] = []

    def tick_until(self, since_ns: int) -> None:
        """Make the ticks that are due before a time since the bag's beginning [ns]."""
        while self._next_ns <= since_ns:
            self._tick(self._next_ns)
            self._next_ns += self._period_ns

    def _tick(self, since_ns: int) -> None:
        runtime, clock_ns = self._runtime, self._clock_ns + since_ns
        if (
            runtime.machine.state is State.IDLE
            and not runtime.problems(clock_ns)
            and runtime.measured is not None
        ):
            runtime.command(Event.START)
        while self._pending and self._pending[0][0] <= len(self.ticks):
            request = self._pending.pop(0)[1]
            self.chunks += 1
            runtime.chunk(self._predict(request), ticket=request.ticket)
        tick = runtime.tick(_OFFSET_NS + since_ns, clock_ns=clock_ns)
        self.ticks.append(tick)
        if tick.request is not None:
            self._pending.append((len(self.ticks) + self._latency, tick.request))


def _sample(message: Any, kind: str, stream: StreamConfig) -> tuple[Any, tuple[str, ...]]:
    """Payload and names of a sample, as the policy node takes them from the same message."""
    if kind != MESSAGE_OF_KIND[stream.kind]:
        raise UserError(f"{stream.topic} holds {kind}, expected {MESSAGE_OF_KIND[stream.kind]}")
    if stream.kind == "state":
        return np.asarray(getattr(message, stream.value), dtype=np.float64), tuple(message.name)
    if stream.kind == "image":
        return bytes(message.data), ()
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w]), ()
