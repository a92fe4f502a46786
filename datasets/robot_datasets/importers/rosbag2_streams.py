"""One episode of a bag: its streams read, brought to one clock, and put together.

Numbers are read whole. Of frames only the times are kept at first; the frames that the clock chooses are read again
when they are asked for, one at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.episode import EpisodeError, Segment
from robot_datasets.features import ACTION
from robot_datasets.importers.rosbag2_bag import Bag
from robot_datasets.importers.rosbag2_images import frame_of
from robot_datasets.importers.rosbag2_map import BagMap, MapCamera, MapPart
from robot_datasets.importers.rosbag2_messages import MessageTypes, by_joint, numbers, text
from robot_datasets.importers.rosbag2_storage import BagError, RawMessage
from robot_datasets.kinematics import get_arm
from robot_datasets.resampling import (
    NEAREST,
    SELECTING,
    latest_before,
    nearest,
    resample,
    sample_age,
    seconds,
    uniform_clock_ns,
)

_NS = 1e-9
_CLOCKS_APART = 1.0
_SLACK_NS = 2_000_000_000
_JITTER = 0.1
_CENTURY = 3.2e9  # s


@dataclass(frozen=True)
class Span:
    """A part of a bag by the recorder's times [ns], both ends included; `whole` if it is all of it."""

    start: int
    end: int
    whole: bool = True


@dataclass
class _Stream:
    """Samples of one part or camera: `times` [ns] after the span's start, in order; frames have no values."""

    source: MapPart | MapCamera
    times: np.ndarray
    values: np.ndarray | None
    order: np.ndarray
    """Place in the bag of the sample in each row."""

    @property
    def reach(self) -> int:
        """How long a sample can be used after it was taken [ns]; for an age of infinity, a century."""
        age = self.source.max_age if self.source.policy in SELECTING else 0.0
        return round(min(age, _CENTURY) / _NS)

    def is_fresh(self, clock: np.ndarray) -> np.ndarray:
        """Whether there is a sample that is recent enough, for each clock time."""
        age = sample_age(self.times, clock, self.source.policy)
        return np.isfinite(age) & (age <= self.source.max_age)


class EpisodeReader:
    """Reads episodes of one opened bag with one map."""

    def __init__(
        self, bag: Bag, types: MessageTypes, mapping: BagMap, *, encoding: str, complete: bool = True
    ) -> None:
        """Keep what is needed.

        Args:
            bag: The bag.
            types: Its message types.
            mapping: The user's map.
            encoding: What raw colour images are encoded to.
            complete: Refuse a bag of which fewer messages can be read than it counts.
        """
        self._bag = bag
        self._types = types
        self._map = mapping
        self._encoding = encoding
        self._complete = complete

    def read(
        self, span: Span
    ) -> tuple[dict[str, np.ndarray], dict[str, Iterator[bytes]], list[Segment], list[str]]:
        """Read one episode.

        Returns:
            Columns, frames, labelled segments, and warnings.

        Raises:
            EpisodeError: A topic is silent, too old in between, damaged, or not as the map says.
        """
        parts, cameras, clock_times = self._streams(span)
        self._compare_clocks(span)
        clock = self._clock(parts, cameras, clock_times, span)
        taken = [self._values(stream, clock) for stream in parts]
        data: dict[str, np.ndarray] = {}
        place = 0
        for name, feature in self._map.features.items():
            data[name] = _side_by_side(taken[place : place + len(feature.parts)], feature.dtype)
            place += len(feature.parts)
        steps, action = self._action(data, taken[place:], len(clock))
        data = {name: values[steps] for name, values in data.items()} | {ACTION: action}
        frames = {
            self._map.image_name(name): self._frames(stream, clock[steps], span)
            for name, stream in zip(self._map.cameras, cameras, strict=True)
        }
        segments = self._segments(clock[steps], span)
        return data, frames, segments, _jitter(clock) if self._map.clock.topic else []

    def clock_rate(self, span: Span) -> float:
        """Return the rate [Hz] of the clock's topic, from the median distance of its messages."""
        topic = self._map.clock.topic
        times = np.sort(
            [self._time(m, self._map.time) for m in self._bag.messages([topic], span.start, span.end)]
        )
        gap = float(np.median(np.diff(times))) * _NS if len(times) > 1 else 0.0
        if gap <= 0:
            raise EpisodeError(f"{topic} has {len(times)} messages; a clock needs at least two")
        return float(f"{1 / gap:.4g}")

    def _streams(self, span: Span) -> tuple[list[_Stream], list[_Stream], np.ndarray]:
        """Read all topics of the map once; return parts, cameras, and the times of the clock's topic [s]."""
        wanted = [*self._map.parts(), *self._map.cameras.values()]
        rows: list[list[tuple[int, np.ndarray | None]]] = [[] for _ in wanted]
        by_topic: dict[str, list[int]] = {}
        for i, source in enumerate(wanted):
            by_topic.setdefault(source.topic, []).append(i)
        ticks: list[int] = []
        read = dict.fromkeys(self._map.topics(), 0)
        for message in self._messages(list(read), span):
            read[message.topic] += 1
            decoded = None
            for i in by_topic.get(message.topic, ()):
                source = wanted[i]
                value = None
                if isinstance(source, MapPart):
                    decoded = decoded if decoded is not None else self._types.decode(message)
                    value = _part_values(decoded, source)
                time = self._since(message, source.time, span) - round(source.latency / _NS)
                rows[i].append((time, value))
            if message.topic == self._map.clock.topic:
                ticks.append(self._since(message, "", span))
        self._check_counts(read, span)
        streams = [_sorted(source, samples) for source, samples in zip(wanted, rows, strict=True)]
        n_parts = len(self._map.parts())
        end = span.end - span.start
        chosen = [t for t in ticks if 0 <= t <= end] if not span.whole else ticks
        inside = np.unique(np.array(chosen, dtype=np.int64))
        return streams[:n_parts], streams[n_parts:], inside

    def _messages(self, topics: Sequence[str], span: Span) -> Iterator[RawMessage]:
        """Yield the messages that can matter to a span: those within it, and those around it up to their max_age."""
        if span.whole:
            yield from self._bag.messages(topics, span.start, span.end)
            return
        margins: dict[int, list[str]] = {}
        for topic in topics:
            margins.setdefault(self._margin(topic, span), []).append(topic)
        for margin, alike in margins.items():
            yield from self._bag.messages(alike, span.start - margin, span.end + margin)

    def _margin(self, topic: str, span: Span) -> int:
        """Return how long before and after a span a topic's messages can matter [ns]."""
        ages = [
            s.max_age + s.latency
            for s in (*self._map.parts(), *self._map.cameras.values())
            if s.topic == topic
        ]
        first, last = self._bag.time_span or (span.start, span.end)
        return int(min(max(ages, default=0.0) / _NS + _SLACK_NS, last - first))

    def _check_counts(self, read: Mapping[str, int], span: Span) -> None:
        """No topic may be silent, and of a whole bag every message that it counts must have been read."""
        for topic, count in read.items():
            expected = self._bag.topics[topic].count
            if not count:
                where = "in the bag" if span.whole else "in this part of the bag"
                raise EpisodeError(f"{topic} has no messages {where}; expected at least one")
            if self._complete and span.whole and expected >= 0 and count != expected:
                raise EpisodeError(
                    f"{topic}: {count} messages could be read of the {expected} that the file counts; it is damaged"
                )

    def _compare_clocks(self, span: Span) -> None:
        """Refuse to mix header and recorder times of clocks that do not agree, e.g. simulated and real time."""
        sources = [*self._map.parts(), *self._map.cameras.values()]
        used = {source.topic: source.time or self._map.time for source in sources}
        if len(set(used.values())) < 2 and span.whole:
            return
        for topic in [topic for topic, time in used.items() if time == "header"]:
            message = next(iter(self._bag.messages([topic], span.start, span.end)), None)
            apart = abs(message.time - self._time(message, "header")) * _NS if message is not None else 0.0
            if apart > _CLOCKS_APART:
                raise EpisodeError(
                    f"{topic}: header and recorder disagree by {apart:.3f} s, so its header times cannot be used "
                    "together with the recorder's, nor to cut a bag into episodes; use one kind of time for all"
                )

    def _clock(
        self, parts: Sequence[_Stream], cameras: Sequence[_Stream], ticks: np.ndarray, span: Span
    ) -> np.ndarray:
        """Return the steps [ns]: all those from the first to the last at which every stream is fresh enough.

        Raises:
            EpisodeError: Some stream is not in between.
        """
        streams = [*parts, *cameras]
        clock = ticks if self._map.clock.topic else self._uniform(streams, span)
        fresh = [stream.is_fresh(clock) for stream in streams]
        found = np.flatnonzero(np.logical_and.reduce(fresh))
        if len(found) < 2:
            raise EpisodeError(
                f"there are {len(found)} steps at which every topic is fresh enough; {_worst(streams, fresh)}"
            )
        inside = slice(int(found[0]), int(found[-1]) + 1)
        for stream, ok in zip(streams, fresh, strict=True):
            gaps = inside.start + np.flatnonzero(~ok[inside])
            if len(gaps):
                raise EpisodeError(
                    f"{stream.source.topic} is silent at {len(gaps)} of {inside.stop - inside.start} steps, first "
                    f"{clock[gaps[0]] * _NS:.3f} s after the beginning, for longer than max_age "
                    f"{stream.source.max_age:g} s; raise it, or cut the bag there"
                )
        return clock[inside]

    def _uniform(self, streams: Sequence[_Stream], span: Span) -> np.ndarray:
        """Return a clock of fixed rate over the time in which all streams can be fresh."""
        assert self._map.clock.rate is not None
        begins = [s.times[0] - s.reach * (s.source.policy == NEAREST) for s in streams]
        ends = [s.times[-1] + s.reach for s in streams]
        start = max(max(begins), min(s.times[0] for s in streams))
        end = min(min(ends), max(s.times[-1] for s in streams))
        if not span.whole:
            start, end = max(start, 0), min(end, span.end - span.start)
        return uniform_clock_ns(int(start), int(end), self._map.clock.rate)

    def _values(self, stream: _Stream, clock: np.ndarray) -> np.ndarray:
        assert stream.values is not None
        policy, max_age = stream.source.policy, stream.source.max_age
        return resample(stream.times, stream.values, clock, policy=policy, max_age=max_age)[0]

    def _action(
        self, data: Mapping[str, np.ndarray], taken: Sequence[np.ndarray], n_steps: int
    ) -> tuple[slice, np.ndarray]:
        """Return which steps have an action, and the actions."""
        action = self._map.action
        shift = 1 if action.next_of else action.shift
        values = data[action.next_of] if action.next_of else _side_by_side(taken, action.dtype)
        steps = slice(max(0, -shift), n_steps - max(0, shift))
        if steps.stop <= steps.start:
            raise EpisodeError(f"{n_steps} steps leave none with an action {shift} steps ahead")
        return steps, values[steps.start + shift : steps.stop + shift]

    def _frames(self, stream: _Stream, clock: np.ndarray, span: Span) -> Iterator[bytes]:
        """Yield the frame of each step: the bag is read on, and a frame is kept while steps still need it."""
        camera = stream.source
        assert isinstance(camera, MapCamera)
        choose = latest_before if camera.policy == SELECTING[0] else nearest
        wanted = stream.order[choose(stream.times, clock)]
        last_use = {int(place): step for step, place in enumerate(wanted)}
        kind = self._bag.topics[camera.topic].type
        held: dict[int, bytes] = {}
        step = 0
        for place, message in enumerate(self._messages([camera.topic], span)):
            if place in last_use:
                decoded = self._types.decode(message)
                held[place] = frame_of(
                    decoded, kind, camera.topic, depth=camera.depth, encoding=self._encoding
                )
            while step < len(wanted) and int(wanted[step]) in held:
                needed = int(wanted[step])
                yield held[needed]
                step += 1
                if last_use[needed] < step:
                    del held[needed]
            if step == len(wanted):
                return
        raise BagError(f"{camera.topic} ended after {step} of {len(wanted)} frames; the file has changed")

    def _segments(self, clock: np.ndarray, span: Span) -> list[Segment]:
        """Return the stretches of equal tags, in steps of the clock."""
        told = self._map.segments_from
        if told is None or told.topic not in self._bag.topics:
            return []
        marks: list[tuple[int, str]] = []
        for message in self._bag.messages([told.topic], 0, span.end):
            tag = text(self._types.decode(message), told.field, told.topic)
            marks.append((self._since(message, told.time, span), tag))
        marks.sort(key=lambda mark: mark[0])
        rows = latest_before(np.array([time for time, _ in marks], dtype=np.int64), clock)
        tags = [marks[row][1] if row >= 0 else "" for row in rows]
        edges = [0, *(k for k in range(1, len(tags)) if tags[k] != tags[k - 1]), len(tags)]
        return [Segment(a, b, tags[a]) for a, b in itertools.pairwise(edges) if tags[a]]

    def _since(self, message: RawMessage, time: str, span: Span) -> int:
        """Return a message's time [ns] after the beginning of the span, as `time` or the map says."""
        kind = time or self._map.time
        return self._time(message, kind) - span.start

    def _time(self, message: RawMessage, kind: str) -> int:
        if kind == "log":
            return message.time
        if not self._types.has_header(message.topic):
            raise BagError(f"{message.topic} has no header; give it time: log in the map")
        return self._types.stamp(message)


def _side_by_side(columns: Sequence[np.ndarray], dtype: str) -> np.ndarray:
    """Put columns next to each other in the type of their feature, which must hold whole numbers if it says so."""
    values = np.concatenate(columns, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused by the store
        cast = values.astype(dtype)
    if cast.dtype.kind != "f" and not np.array_equal(cast, values):
        raise EpisodeError(
            f"values such as {values[cast != values][0]:g} do not fit {dtype}; choose another dtype"
        )
    return cast


def _part_values(message: object, part: MapPart) -> np.ndarray:
    if part.joints:
        values = by_joint(message, part.field, part.joints, part.topic)
        if part.kinematics is None:
            return values
        return np.array(get_arm(part.kinematics.arm).tool_point(values.tolist(), part.kinematics.tool))
    values, _ = numbers(message, part.field, part.topic)
    if not part.columns:
        return values
    first, end = part.columns
    if end > len(values):
        raise BagError(
            f"{part.topic}: field '{part.field}' has {len(values)} numbers, expected at least {end}"
        )
    return values[first:end]


def _sorted(source: MapPart | MapCamera, samples: list[tuple[int, np.ndarray | None]]) -> _Stream:
    """Bring samples into the order of their times; those of equal time stay as they were."""
    times = np.array([time for time, _ in samples], dtype=np.int64)
    order = np.argsort(times, kind="stable")
    values = None
    if isinstance(source, MapPart):
        rows = [value for _, value in samples if value is not None]
        sizes = {len(row) for row in rows}
        if len(sizes) > 1:
            raise BagError(
                f"{source.topic}: field '{source.field}' has {sorted(sizes)} numbers; expected one size"
            )
        values = np.stack(rows)[order]
    return _Stream(source, times[order], values, order)


def _worst(streams: Sequence[_Stream], fresh: Sequence[np.ndarray]) -> str:
    """Say which stream is the least often fresh."""
    shares = [float(np.mean(ok)) if len(ok) else 0.0 for ok in fresh]
    least = int(np.argmin(shares))
    source = streams[least].source
    return (
        f"{source.topic} is within max_age {source.max_age:g} s ({source.policy}) at {shares[least]:.0%} of them; "
        "check the map's times and ages"
    )


def _jitter(clock: np.ndarray) -> list[str]:
    gaps = seconds(np.diff(clock))
    typical = float(np.median(gaps))
    odd = int(np.sum(np.abs(gaps - typical) > _JITTER * typical))
    if not odd:
        return []
    return [
        f"clock: {odd} of {len(gaps)} steps differ by more than {_JITTER:.0%} from {typical:.4f} s; largest "
        f"{gaps.max():.4f} s"
    ]
