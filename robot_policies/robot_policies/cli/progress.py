"""Progress of long commands: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

# Without a terminal a line every so many percent tells that the run is alive.
LINE_EVERY_PERCENT = 20

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

        def update(done: int, total: int, note: str) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "", note=note)

        yield update


def _lines(unit: str) -> Update:
    said = 0

    def update(done: int, total: int, note: str) -> None:
        nonlocal said
        percent = 100 * done // max(total, 1)
        if percent >= said + LINE_EVERY_PERCENT:
            said = percent - percent % LINE_EVERY_PERCENT
            print(f"  {done}/{total} {unit}{note and f', {note}'}", file=sys.stderr)

    return update
