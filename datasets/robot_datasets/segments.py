"""Training on labelled parts of episodes only, such as what a person did when a policy went wrong.

After "RaC" (Hu et al., arXiv 2509.07953) a deployment's frames are tagged with who moved the robot: ``policy``,
``recovery`` (a person brings the robot back to a state it knows) and ``correction`` (a person shows what to do). What
the policy did before it was stopped should not be learned again. With some tags chosen, windows are drawn whose "now"
lies in such a segment, and ``batch["action_counts"]`` (B, T_p) says which of their actions do::

    step of the episode   0   1   2   3   4   5   6   7   8
    tag                   p   p   p   c   c   c   c   p   p         p policy, c correction
    windows drawn: now                x   x   x   x
    actions counted, now = 4      .   .   a   a   a   a   .   .     the chunk reaches from 3 to 10

Observations are what the robot saw, also before the segment began: a policy that is asked there has seen them, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError
from robot_datasets.windows import Batch, Int64, WindowDataset, WindowIndex

ACTION_COUNTS = "action_counts"
"""``batch[ACTION_COUNTS]`` (B, T_p) bool: actions that count in the loss; absent if all do."""


def steps_in_segments(store: Any, tags: Sequence[str]) -> NDArray[np.bool_]:
    """Which steps of a store lie in segments with one of the tags, (T,).

    Raises:
        DatasetError: A tag occurs nowhere in the store.
    """
    ends = np.asarray(store.episode_ends, dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    inside = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=bool)
    found: set[str] = set()
    for start, segments in zip(starts, store.episodes["segments"], strict=True):
        for segment in segments:
            found.add(segment.tag)
            if segment.tag in tags:
                inside[start + segment.start : start + segment.end] = True
    missing = [tag for tag in tags if tag not in found]
    if missing:
        raise DatasetError(
            f"no segment of the store is tagged {', '.join(missing)}; there is {', '.join(sorted(found)) or 'none'}"
        )
    return inside


def windows_in_segments(index: WindowIndex, inside: NDArray[np.bool_], *, where: str) -> NDArray[np.bool_]:
    """Whether "now" of each window lies in the chosen segments, (n_windows,).

    Args:
        index: Windows of the store.
        inside: From `steps_in_segments`.
        where: Names the store, for the message.

    Raises:
        DatasetError: None does.
    """
    now, _ = index.now_and_last(np.arange(len(index), dtype=np.int64))
    chosen = inside[now]
    if not chosen.any():
        raise DatasetError(f"{where}: no window of the training episodes lies in the chosen segments")
    return chosen


class SegmentDataset:
    """Windows with ``batch["action_counts"]``.

    Args:
        dataset: All windows of a store.
        inside: From `steps_in_segments`; None counts every action.
    """

    def __init__(self, dataset: WindowDataset, inside: NDArray[np.bool_] | None) -> None:
        self._dataset, self._inside = dataset, inside

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, windows: Sequence[int] | Int64, draws: Int64 | None = None) -> Batch:
        """Return the batch of the given windows."""
        batch = self._dataset.__getitems__(windows, draws)
        steps, _ = self._dataset.index.steps(np.asarray(windows, dtype=np.int64))
        counts = np.ones(steps.shape, dtype=bool) if self._inside is None else self._inside[steps]
        return batch | {ACTION_COUNTS: counts}
