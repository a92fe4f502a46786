"""The clock of the message stamps, as a loop can wait on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from robot_datasets.errors import UserError
from robot_deploy.nodes.clock_offset import ClockOffset

_FARTHEST_NS = 1_000_000_000  # nobody waits longer for a tick than this: the clock went back
_POLL_S = 0.002


class ClockWentBackError(UserError):
    """The clock of the stamps was set back, or a simulation began anew."""


class StampClock:
    """See the module's docstring; a `robot_sim.twin.loop.Clock`.

    Args:
        clock_ns: The clock of the stamps [ns].
        simulated: It advances as a simulation pleases, not with the machine's time.
        stop: Ends every wait.
    """

    def __init__(self, clock_ns: Callable[[], int], *, simulated: bool, stop: threading.Event) -> None:
        self._clock_ns, self._simulated, self._stop = clock_ns, simulated, stop
        self._offset_ns = ClockOffset(clock_ns)

    def now_ns(self) -> int:
        """Return the time [ns]."""
        return self._clock_ns() if self._simulated else time.monotonic_ns() + self._offset_ns()

    def sleep_until(self, time_ns: int) -> None:
        """Wait until a time [ns], or the stop.

        Raises:
            ClockWentBackError: That is more than a second away.
        """
        while not self._stop.is_set():
            left = time_ns - self.now_ns()
            if left <= 0:
                return
            if left > _FARTHEST_NS:
                raise ClockWentBackError(f"the clock of the stamps went back by {left * 1e-9:.1f} s")
            # Long waits in pieces: a clock that is set meanwhile is noticed, and so is the stop.
            self._stop.wait(_POLL_S if self._simulated else left * 1e-9)
