"""Episodes lose their beginning or end: waiting, or steps that are not wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from robot_datasets.checks.context import StoreContext
from robot_datasets.edit.plan import Edit, Piece, whole_episodes
from robot_datasets.errors import DatasetError
from robot_datasets.store import EpisodeStore

Range = tuple[int | None, int | None]


def trim(
    store: EpisodeStore,
    *,
    idle: bool = False,
    margin: float = 0.5,
    steps: Range | None = None,
    episodes: Mapping[int, Range] | None = None,
    min_steps: int = 2,
) -> Edit:
    """Plan a store of shorter episodes.

    Args:
        store: What to trim.
        idle: Cut off the beginning and the end, as far as neither state nor action change.
        margin: Seconds of an idle end that are kept.
        steps: First step and one past the last, of every episode; negative ones count from its end.
        episodes: The same for single episodes, by number; `steps` does not hold for these.
        min_steps: Episodes left with fewer are dropped.

    Raises:
        DatasetError: Nothing was asked for, there is no such episode, or a margin or minimum makes no sense.
    """
    single = dict(episodes or {})
    if not (idle or steps or single):
        raise DatasetError("trim was not told what; give --idle, --steps A:B or --episode N=A:B")
    if not 0 <= margin < math.inf:
        raise DatasetError(f"margin is {margin:g} s; expected 0 or more")
    if min_steps < 1:
        raise DatasetError(f"min_steps is {min_steps}; an episode has at least one step")
    for number in single:
        if not 0 <= number < store.n_episodes:
            raise DatasetError(f"there is no episode {number}; the store has 0 to {store.n_episodes - 1}")
    context = StoreContext(store)
    kept, dropped = [], {}
    for piece in whole_episodes(store):
        start, end = _range(single.get(piece.episode, steps or (None, None)), piece.end)
        if idle and end > start:
            start, end = _busy(context, piece, start, end, round(margin * store.fps))
        if end - start < min_steps:
            dropped[piece.source_id] = f"trimmed to {max(0, end - start)} steps, fewer than {min_steps}"
        else:
            kept.append(replace(piece, start=start, end=end))
    return Edit(
        operation="trim",
        options={
            "idle": idle,
            "margin": margin,
            "steps": list(steps) if steps else None,
            "episodes": {str(number): list(part) for number, part in sorted(single.items())},
            "min_steps": min_steps,
        },
        sources=[store],
        pieces=kept,
        features=store.features,
        embodiment=store.embodiment,
        dropped=dropped,
    )


def _range(wanted: Range, length: int) -> tuple[int, int]:
    start, end, _ = slice(*wanted).indices(length)
    return start, end


def _busy(context: StoreContext, piece: Piece, start: int, end: int, margin: int) -> tuple[int, int]:
    """Narrow [start, end) to where something moves, and a margin; all of it if nothing ever does."""
    moves = ~context.episode(piece.episode).idle[start : end - 1]
    busy = np.flatnonzero(moves)
    if not len(busy):
        return start, end
    return max(start, start + int(busy[0]) - margin), min(end, start + int(busy[-1]) + 2 + margin)
