"""The twin in step with a clock: fixed rate, by deadline, measured.

A tick is due at a multiple of the period since the start, so that lateness does not add up. A tick that is not done
when the next one is due is an overrun; beyond `MOST_BEHIND` the loop gives up what it missed and says so, because a
twin that lags for ever is worse than one that jumps once: the twin is told, too (`Twin.skip`), so that its time stays
the clock's and the stamps of observations keep their meaning.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robot_sim.twin.cell import Cell
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.twin import Twin, TwinReport

MOST_BEHIND = 6  # ticks
_REMEMBERED = 100_000  # ticks whose times are kept: half an hour


class Clock(Protocol):
    """A clock that can be waited on."""

    def now_ns(self) -> int:
        """Return the time [ns]."""
        ...

    def sleep_until(self, time_ns: int) -> None:
        """Wait until a time [ns]."""
        ...


class Ticking(Protocol):
    """What a loop ticks: a `Twin`, or what stands around one."""

    @property
    def cell(self) -> Cell:
        """The cell; its rate is the loop's."""
        ...

    @property
    def time_ns(self) -> int:
        """Time of the state [ns]."""
        ...

    def tick(self, observed: Sequence[ObservedState]) -> TwinReport:
        """Advance by one tick with what arrived since the last one."""
        ...

    def skip(self, ticks: int) -> None:
        """Let time pass without simulating it."""
        ...


class MonotonicClock:
    """The machine's."""

    def now_ns(self) -> int:
        """Return the monotonic time [ns]."""
        return time.monotonic_ns()

    def sleep_until(self, time_ns: int) -> None:
        """Sleep; a time that is past does not."""
        left = time_ns - time.monotonic_ns()
        if left > 0:
            time.sleep(left * 1e-9)


@dataclass
class LoopTiming:
    """How regular a loop was.

    Attributes:
        starts_ns: When each of the last ticks began [ns].
        busy_ns: How long each took [ns].
        ticks: Ticks made.
        overruns: Ticks that were not done when the next was due.
        skipped: Ticks given up.
    """

    starts_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    busy_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    ticks: int = 0
    overruns: int = 0
    skipped: int = 0

    @classmethod
    def of_the_last(cls, ticks: int) -> LoopTiming:
        """Return one that remembers so many ticks, for loops without an end."""
        return cls(starts_ns=deque(maxlen=ticks), busy_ns=deque(maxlen=ticks))

    def to_dict(self) -> dict[str, Any]:
        """Return counts, and percentiles of period and work [ms], ready for JSON."""
        # As lists at once: the loop's thread may add to them meanwhile.
        starts, spent = list(self.starts_ns), list(self.busy_ns)
        period, busy = np.diff(np.array(starts)) * 1e-6, np.array(spent) * 1e-6
        figures: dict[str, Any] = {
            "ticks": self.ticks,
            "overruns": self.overruns,
            "skipped": self.skipped,
        }
        for name, values in (("period", period), ("work", busy)):
            for share in (50, 99):
                figures[f"{name}_p{share}_ms"] = (
                    round(float(np.percentile(values, share)), 3) if len(values) else None
                )
        return figures


class TwinLoop:
    """Ticks a twin by a clock.

    Args:
        twin: The twin.
        source: Called with the twin's time [ns]; returns what arrived since the last call.
        clock: What is waited on; None is the machine's.
        on_report: Called after each tick.
        timing: Where it is counted; None counts anew.

    Attributes:
        timing: How regular it was.
    """

    def __init__(
        self,
        twin: Ticking,
        source: Callable[[int], Sequence[ObservedState]],
        *,
        clock: Clock | None = None,
        on_report: Callable[[TwinReport], None] | None = None,
        timing: LoopTiming | None = None,
    ) -> None:
        self._twin, self._source, self._clock = twin, source, clock or MonotonicClock()
        self._on_report = on_report
        self.timing = timing or LoopTiming()

    def run(
        self,
        ticks: int | None = None,
        *,
        begin_ns: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> LoopTiming:
        """Make so many ticks, those given up not counted, or go on until it is told to stop.

        Args:
            ticks: How many; None for no end.
            begin_ns: When the first is due, by the clock [ns]; None for now.
            stop: Asked before every tick.
        """
        period, timing, done = self._twin.cell.tick_ns, self.timing, 0
        begin = self._clock.now_ns() if begin_ns is None else begin_ns
        while ticks is None or done < ticks:
            self._clock.sleep_until(begin + done * period)
            if stop():
                break
            started = self._clock.now_ns()
            report = self._twin.tick(self._source(self._twin.time_ns))
            if self._on_report is not None:
                self._on_report(report)
            ended = self._clock.now_ns()
            timing.starts_ns.append(started)
            timing.busy_ns.append(ended - started)
            timing.ticks += 1
            done += 1
            behind = (ended - begin) // period - done
            if ended > begin + done * period:
                timing.overruns += 1
            if behind > MOST_BEHIND:
                timing.skipped += behind
                begin += behind * period
                self._twin.skip(behind)
        return timing


def run_loop(
    twin: Twin, messages: Sequence[tuple[int, ObservedState]], *, seconds: float, clock: Clock | None = None
) -> LoopTiming:
    """Run a twin on recorded messages (arrival [ns], message), as if they arrived now."""
    place = 0

    def arrived(now_ns: int) -> list[ObservedState]:
        nonlocal place
        first = place
        while place < len(messages) and messages[place][0] <= now_ns:
            place += 1
        return [message for _, message in messages[first:place]]

    return TwinLoop(twin, arrived, clock=clock).run(round(seconds * twin.cell.rates.twin))
