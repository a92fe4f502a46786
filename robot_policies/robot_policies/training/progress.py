"""Progress with the time left: a bar on a terminal, a plain line every now and then in a log file."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class Progress:
    """Shows how far a run is.

    Args:
        fraction: Share of the run done when this process took over, 0..1.
        interval: Seconds between lines where standard error is no terminal.
        enabled: False shows nothing (ranks other than 0).
    """

    def __init__(self, *, fraction: float, interval: float, enabled: bool = True) -> None:
        self._enabled = enabled
        self._start_fraction = fraction
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        terminal = sys.stderr.isatty()
        self._interval = 0.2 if terminal else interval
        self._next = self._start + (0.0 if terminal else min(interval, 5.0))
        if enabled and terminal:
            self._open_bar(fraction)

    def update(self, fraction: float, step: int, values: dict[str, float]) -> None:
        """Show the state, unless it was shown a moment ago; cheap to call at every step."""
        now = time.monotonic()
        if now < self._next or not self._enabled:
            return
        self._next = now + self._interval
        text = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=fraction, step=step, text=text)
            return
        left = format_seconds(seconds_left(self._start_fraction, fraction, now - self._start))
        logger.info("step %d  %.1f %%  %s  %s left", step, 100 * fraction, text, left)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _open_bar(self, fraction: float) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("train", total=1.0, completed=fraction, step=0, text="")
        self._bar.start()


def seconds_left(start: float, now: float, elapsed: float) -> float:
    """Estimate of the time left [s], from the share done at the start and now; infinite if nothing was done."""
    return elapsed * (1.0 - now) / (now - start) if now > start else float("inf")


def format_seconds(seconds: float) -> str:
    """``4000`` -> ``1:06:40``; ``?`` if infinite."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
