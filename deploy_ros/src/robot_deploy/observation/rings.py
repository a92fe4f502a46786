"""Bounded memories of sensor samples by their own stamps, which refuse what cannot be right.

Times are integer nanoseconds: they are exact, so that a log gives the same windows again, and a double would
round today's time to 0.2 us. Stamps are in the clock of the message headers (ROS time); `now` is the same clock
when the sample arrived.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from robot_datasets.mapping import ConfigError


class Reason(str, Enum):
    """Why a sample was refused, or why there is no window; the value is what a person reads."""

    MISSING = "missing"
    STALE = "stale"
    GAP = "gap in the samples"
    FROZEN = "frozen"
    BLANK = "blank image"
    NOT_FINITE = "not finite"
    MISSING_JOINT = "missing joint"
    WRONG_SIZE = "wrong size"
    ZERO_STAMP = "zero stamp"
    FUTURE_STAMP = "stamp in the future"
    BACKWARDS = "stamp not after the last one"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One sensor stream.

    Attributes:
        kind: ``state`` (numbers with names, interpolated linearly), ``pose`` (x, y, z [m] and a quaternion, whose
            order of components does not matter), or ``image``.
        names: Component names wanted from a state, in this order; empty for a pose or an image.
        max_age_ms: A window is refused if the newest sample is older than this [ms].
        max_gap_ms: Largest distance between a time of the window and the samples it is taken from [ms].
        latency_ms: How long after the event the sensor stamps it [ms]; subtracted from every stamp.
        frozen_ms: Refused if the payload has been the same, to the bit, for so long [ms]; None for no check.
            Sound for cameras and noisy sensors only: encoders of an arm at rest may well repeat.
        min_contrast: Images: smallest standard deviation of the pixel values, 0 to 255; 0 for no check.
        capacity: Samples kept.
    """

    kind: Literal["state", "pose", "image"]
    names: tuple[str, ...] = ()
    max_age_ms: float = 50.0
    max_gap_ms: float = 50.0
    latency_ms: float = 0.0
    frozen_ms: float | None = None
    min_contrast: float = 0.0
    capacity: int = 200

    def __post_init__(self) -> None:
        if self.kind == "state" and (not self.names or len(set(self.names)) != len(self.names)):
            raise ConfigError(f"source: a state needs names, each once, got {list(self.names)}")
        if min(self.max_age_ms, self.max_gap_ms) <= 0 or self.latency_ms < 0 or self.capacity < 2:
            raise ConfigError(
                "source needs max_age_ms > 0, max_gap_ms > 0, latency_ms >= 0 and capacity >= 2, got "
                f"{self.max_age_ms:g}, {self.max_gap_ms:g}, {self.latency_ms:g} and {self.capacity}"
            )


Decoder = Callable[[object], np.ndarray]
FUTURE_TOLERANCE_NS = 5_000_000
"""A stamp may be this far ahead of the clock [ns]: two machines' clocks are never the same."""


class SampleRing:
    """The newest samples of one source.

    Attributes:
        config: The source's configuration.
        refused: How many samples were refused, by reason.
    """

    def __init__(self, config: SourceConfig) -> None:
        """Start empty."""
        self.config = config
        self.refused: Counter[Reason] = Counter()
        self._samples: deque[tuple[int, object]] = deque(maxlen=config.capacity)
        self._fingerprint: int | None = None
        self._since_ns = 0  # stamp from which on the payload has been the same
        self._latency_ns = round(config.latency_ms * 1e6)
        self._last_names: tuple[str, ...] = ()
        self._last_order: np.ndarray | Reason = Reason.MISSING_JOINT  # of no names

    def add(self, payload: object, *, stamp_ns: int, now_ns: int, names: Sequence[str] = ()) -> Reason | None:
        """Take a sample.

        Args:
            payload: State: (len(names),) numbers; pose: (7,) numbers; image: anything the decoder of the window
                understands, encoded bytes as a rule: only the frames that are used get decoded.
            stamp_ns: The sample's time, from its header [ns].
            now_ns: The same clock now [ns].
            names: State: names of the numbers, in any order; more than wanted may be there.

        Returns:
            Why the sample was refused, or None.
        """
        reason = self._refusal(stamp_ns, now_ns)
        if reason is None and self.config.kind != "image":
            payload, reason = self._numbers(payload, names)
        if reason is not None:
            self.refused[reason] += 1
            return reason
        mark = _fingerprint(payload) if self.config.frozen_ms is not None else None
        if mark != self._fingerprint or mark is None:
            self._fingerprint, self._since_ns = mark, stamp_ns
        self._samples.append((stamp_ns - self._latency_ns, payload))
        return None

    def clear(self) -> None:
        """Forget all samples, after a jump of the clock."""
        self._samples.clear()
        self._fingerprint = None

    @property
    def newest_ns(self) -> int | None:
        """Time of the newest sample, latency subtracted [ns]."""
        return self._samples[-1][0] if self._samples else None

    @property
    def newest(self) -> object | None:
        """The newest payload."""
        return self._samples[-1][1] if self._samples else None

    @property
    def unchanged_ns(self) -> int:
        """For how long the payload has been the same [ns]; 0 without a check for it."""
        if self._fingerprint is None or not self._samples:
            return 0
        return self._samples[-1][0] + self._latency_ns - self._since_ns

    def samples(self, since_ns: int = 0) -> tuple[np.ndarray, list[object]]:
        """The samples on which values from a time on rest: back to the last one at or before it.

        Args:
            since_ns: The time [ns].

        Returns:
            Times (N,) int64 [ns], increasing, and payloads.
        """
        newest: deque[tuple[int, object]] = deque()
        for sample in reversed(self._samples):
            newest.appendleft(sample)
            if sample[0] <= since_ns:
                break
        return np.array([t for t, _ in newest], dtype=np.int64), [p for _, p in newest]

    def _refusal(self, stamp_ns: int, now_ns: int) -> Reason | None:
        if stamp_ns <= 0:
            return Reason.ZERO_STAMP
        if stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            return Reason.FUTURE_STAMP
        if self._samples and stamp_ns - self._latency_ns <= self._samples[-1][0]:
            return Reason.BACKWARDS
        return None

    def _numbers(self, payload: object, names: Sequence[str]) -> tuple[np.ndarray, Reason | None]:
        values = np.array(payload, dtype=np.float64)
        if self.config.kind == "pose":
            if values.shape != (7,):
                return values, Reason.WRONG_SIZE
        elif values.shape != (len(names),):
            return values, Reason.WRONG_SIZE
        else:
            order = self._order(tuple(names))
            if isinstance(order, Reason):
                return values, order
            values = values[order]
        if not np.isfinite(values).all():
            return values, Reason.NOT_FINITE
        if self.config.kind == "pose" and not np.linalg.norm(values[3:]) > 0.5:
            return values, Reason.NOT_FINITE
        return values, None

    def _order(self, names: tuple[str, ...]) -> np.ndarray | Reason:
        """Where the wanted components are among `names`, or why they are not; a source repeats its names."""
        if names != self._last_names:
            place = {name: index for index, name in enumerate(names)}
            self._last_names = names
            if len(place) != len(names):
                self._last_order = Reason.WRONG_SIZE
            elif any(name not in place for name in self.config.names):
                self._last_order = Reason.MISSING_JOINT
            else:
                self._last_order = np.array([place[name] for name in self.config.names], dtype=np.intp)
        return self._last_order


def _fingerprint(payload: object) -> int:
    if isinstance(payload, np.ndarray):
        return zlib.crc32(payload.tobytes())
    return zlib.crc32(payload) if isinstance(payload, (bytes, bytearray, memoryview)) else hash(payload)
