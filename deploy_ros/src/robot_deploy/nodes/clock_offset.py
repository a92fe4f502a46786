"""How far the clock of the stamps is from monotonic time, without the jitter of reading two clocks one after the other.

A thread can be put aside between the two readings. The difference would then jump, and with it, by speed times
jump, every position that is commanded for a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_TIGHT_NS = 30_000  # readings that took longer say nothing
_TRIES = 3
_DRIFT_NS = 2_000  # largest correction at a time: clocks that are disciplined differ by parts per million
_JUMP_NS = 5_000_000  # beyond it, somebody has set the clock


class ClockOffset:
    """Clock of the stamps minus monotonic time, smooth but for real jumps."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """Measure at the first call.

        Args:
            clock_ns: The clock of the stamps [ns].
        """
        self._clock_ns = clock_ns
        self._offset_ns: int | None = None

    def __call__(self) -> int:
        """The offset now [ns]."""
        best_span, best = None, 0
        for _ in range(_TRIES):
            before = time.monotonic_ns()
            clock = self._clock_ns()
            after = time.monotonic_ns()
            if best_span is None or after - before < best_span:
                best_span, best = after - before, clock - (before + after) // 2
            if best_span < _TIGHT_NS:
                break
        if self._offset_ns is None or abs(best - self._offset_ns) > _JUMP_NS + (best_span or 0):
            self._offset_ns = best
        elif best_span is not None and best_span < _TIGHT_NS:
            self._offset_ns += max(-_DRIFT_NS, min(_DRIFT_NS, best - self._offset_ns))
        return self._offset_ns
