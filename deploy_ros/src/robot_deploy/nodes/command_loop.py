"""The thread that commands: one call per period, at absolute times, so that no delay adds up to a drift."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable

_MAX_REALTIME_PRIORITY = 99


class CommandLoop:
    """Calls a function at a fixed rate in its own thread until it is stopped.

    Attributes:
        realtime: Whether the thread got the real-time priority it asked for.
        missed: Periods that were skipped because a call came too late.
    """

    def __init__(
        self,
        period_ns: int,
        call: Callable[[int], None],
        on_error: Callable[[str], None],
        *,
        priority: int = 0,
    ) -> None:
        """Start the thread.

        Args:
            period_ns: Time between calls [ns].
            call: Given the monotonic time at which it is called [ns].
            on_error: Told what `call` raised; the thread goes on.
            priority: SCHED_FIFO priority, 1 to 99; 0 for none. Without the right to it the thread runs as any
                other, and `realtime` says so.
        """
        self._period_ns, self._call, self._on_error = period_ns, call, on_error
        self._priority = min(priority, _MAX_REALTIME_PRIORITY)
        self._stop = threading.Event()
        self.realtime, self.missed = False, 0
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the call it is in."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        if self._priority > 0:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._priority))
                self.realtime = True
            except OSError:  # told by `realtime`
                pass
        due = time.monotonic_ns()
        while not self._stop.is_set():
            due += self._period_ns
            wait = due - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait * 1e-9)
            late = (time.monotonic_ns() - due) // self._period_ns
            if late > 0:  # never catch up by commanding faster
                due += late * self._period_ns
                self.missed += late
            try:
                self._call(time.monotonic_ns())
            except Exception as error:  # noqa: BLE001  (the robot is stopped, and the loop must go on to do so)
                self._on_error(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
