"""Progress of long commands: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

# Without a terminal a line every so often tells that the run is alive.
LINE_EVERY_PERCENT = 20
LINE_EVERY_SECONDS = 60.0

Update = Callable[[int, int, str], None]


@contextlib.contextmanager
def progress_bar(unit: str, *, enabled: bool = True) -> Iterator[Update]:
    """Yield ``update(done, total, note)``; everything goes to standard error."""
    if not enabled:
        yield lambda done, total, note: None
        return
    if not sys.stderr.isatty():
        yield _lines(unit)
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[note]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, rate="", note="")
        counted_from: int | None = None

        def update(done: int, total: int, note: str) -> None:
            nonlocal counted_from
            if counted_from is None:  # what an earlier run did says nothing about the speed of this one
                counted_from, began = done, bar.tasks[0].start_time
                bar.reset(task, total=total, completed=done)
                bar.tasks[0].start_time = began
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "", note=note)

        yield update


def _lines(unit: str) -> Update:
    first: tuple[float, int] | None = None
    said_percent, said_at = 0, time.monotonic()

    def update(done: int, total: int, note: str) -> None:
        nonlocal first, said_percent, said_at
        now = time.monotonic()
        first = first or (now, done)
        percent = 100 * done // max(total, 1)
        if percent < said_percent + LINE_EVERY_PERCENT and now < said_at + LINE_EVERY_SECONDS:
            return
        said_percent, said_at = max(said_percent, percent - percent % LINE_EVERY_PERCENT), now
        rate = (done - first[1]) / (now - first[0]) if now > first[0] else 0.0
        left = f", {rate:.1f}/s, {timedelta(seconds=round((total - done) / rate))} left" if rate else ""
        print(f"  {done}/{total} {unit}{left}{note and f', {note}'}", file=sys.stderr)

    return update
