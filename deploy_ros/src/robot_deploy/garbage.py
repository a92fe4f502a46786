"""Keeps the garbage collector away from deadlines."""

from __future__ import annotations

import gc


def settle() -> None:
    """Take everything that is there out of the collector's sight, once a process has loaded what it keeps.

    Otherwise a full collection, which comes by itself now and then, walks all of it, while no thread can run: for
    tens of milliseconds in a node, for longer in a process with torch. What comes later is collected as ever.
    """
    gc.collect()
    gc.freeze()


def unsettle() -> None:
    """Let the collector see everything again, before what was kept is given up."""
    gc.unfreeze()
