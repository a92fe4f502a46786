"""Who reads what next, and in which order the results are taken: bookkeeping without processes.

Batches are consecutive episodes, because importers keep files and decoded blocks between neighbours. They grow
until a batch takes about half a second, and shrink again towards the end so that no worker idles there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef
from robot_datasets.store.parts import EpisodePart

BATCH_SECONDS = 0.5
MAX_BATCH = 64
HOLD_BYTES = 64 << 20
"""What a worker holds in memory of episodes whose place in the store is not known yet, at most."""

MAX_AHEAD_BYTES = 4 << 30
"""Parts that wait for an earlier episode take at most about this much disk space before no more are begun."""

_MAX_ATTEMPTS = 3
"""A death is often the machine's fault: two unrelated ones may well meet in the same episode."""


@dataclass(frozen=True)
class Task:
    """One episode to read.

    Attributes:
        index: Its place in the order of the store.
        ref: What the importer needs.
        slot: Number of the folder in which its part is left.
    """

    index: int
    ref: EpisodeRef
    slot: int


@dataclass(frozen=True)
class Finished:
    """An episode was taken in or set aside, which took so many seconds."""

    task: Task
    part: EpisodePart
    seconds: float


@dataclass(frozen=True)
class Lost:
    """A worker is gone. `tasks` were not finished; the first of them was being read, if `culprit_known`."""

    tasks: tuple[Task, ...]
    reason: str
    culprit_known: bool


@dataclass(frozen=True)
class Written:
    """The frames of an episode are where they belong."""

    index: int


@dataclass(frozen=True)
class Withdrawn:
    """All workers were ended: nothing that they hold, or were told to write, can be relied on."""


Event: TypeAlias = Finished | Lost | Written | Withdrawn


class Dispatcher:
    """Hands out batches and puts the results back in order."""

    def __init__(
        self,
        refs: Sequence[EpisodeRef],
        *,
        workers: int,
        max_ahead_bytes: int = MAX_AHEAD_BYTES,
        batch_seconds: float = BATCH_SECONDS,
        batch_bytes: float = math.inf,
    ) -> None:
        """Plan to read `refs` by so many `workers`, in batches of about so much time and not more bytes."""
        self._refs = refs
        self._workers = workers
        self._max_ahead_bytes = max_ahead_bytes
        self._batch_seconds = batch_seconds
        self._batch_bytes = batch_bytes
        self._next_new = 0
        self._again: deque[tuple[int, ...]] = deque()
        self._attempts: dict[int, int] = {}
        self._losses = 0
        self._losses_in_a_row = 0
        self._results: dict[int, EpisodePart] = {}
        self._slot_of: dict[int, int] = {}
        self._free_slots: list[int] = []
        self._n_slots = 0
        self._ahead_bytes = 0
        self._taken = 0
        self._mean_seconds = 0.0
        self._mean_bytes = 0.0

    @property
    def is_done(self) -> bool:
        """Whether every result has been taken."""
        return self._taken == len(self._refs)

    @property
    def n_losses(self) -> int:
        """How many workers died."""
        return self._losses

    def next_batch(self) -> tuple[Task, ...]:
        """Return what a free worker should read; empty if there is nothing to begin now."""
        if self._again:
            return self._tasks(self._again.popleft())
        self._next_new = max(self._next_new, self._taken)
        while self._next_new in self._results:  # like those taken just now, known from before a withdrawal
            self._next_new += 1
        if self._next_new == len(self._refs):
            return ()
        if self._ahead_bytes > self._max_ahead_bytes and self._next_new != self._taken:
            return ()
        first = self._next_new
        self._next_new = self._batch_end(first, first + self._batch_length(first))
        return self._tasks(tuple(range(first, self._next_new)))

    def note(self, event: Finished | Lost) -> None:
        """Record what a worker reported.

        Raises:
            DatasetError: Workers die without getting anything done.
        """
        if isinstance(event, Lost):
            self._note_loss(event)
            return
        self._losses_in_a_row = 0
        weight = 0.2 if self._mean_seconds else 1.0
        self._mean_seconds += weight * (event.seconds - self._mean_seconds)
        self._mean_bytes += (0.2 if self._mean_bytes else 1.0) * (event.part.n_bytes - self._mean_bytes)
        self._results[event.task.index] = event.part
        self._ahead_bytes += event.part.n_bytes

    def ready(self) -> Iterator[tuple[int, EpisodePart]]:
        """Yield the results whose turn it is, with their index; when resumed, their folders are used again."""
        while self._taken in self._results:
            index = self._taken
            part = self._results.pop(index)
            self._taken += 1
            yield index, part
            self._ahead_bytes -= part.n_bytes
            if index in self._slot_of:
                self._free_slots.append(self._slot_of.pop(index))

    def withdraw(self, taken: Sequence[tuple[int, EpisodePart]]) -> None:
        """Have episodes read again, unless it is known that they cannot be.

        Args:
            taken: The last results, which are not in the store after all; of later ones nothing is left either.
        """
        known = self._results | dict(taken)
        self._results = {index: part for index, part in known.items() if part.is_left_out}
        self._ahead_bytes = 0
        self._again.clear()
        self._taken -= len(taken)
        self._next_new = self._taken

    def _batch_end(self, first: int, wanted: int) -> int:
        """Return where a batch ends: before what is known already, and one whose reader died is read alone."""
        if first in self._attempts:
            return first + 1
        return next((i for i in range(first, wanted) if i in self._results or i in self._attempts), wanted)

    def _batch_length(self, first: int) -> int:
        left = len(self._refs) - first
        group = self._refs[first].group
        if group:
            same = (n for n in range(first, len(self._refs)) if self._refs[n].group != group)
            return next(same, len(self._refs)) - first
        wanted = int(self._batch_seconds / self._mean_seconds) if self._mean_seconds else 1
        if self._mean_bytes:
            wanted = min(wanted, int(min(MAX_BATCH, self._batch_bytes / self._mean_bytes)))
        return max(1, min(wanted, MAX_BATCH, math.ceil(left / (4 * self._workers))))

    def _tasks(self, indices: tuple[int, ...]) -> tuple[Task, ...]:
        return tuple(Task(i, self._refs[i], self._slot(i)) for i in indices)

    def _slot(self, index: int) -> int:
        if index not in self._slot_of:
            if not self._free_slots:
                self._free_slots.append(self._n_slots)
                self._n_slots += 1
            self._slot_of[index] = self._free_slots.pop()
        return self._slot_of[index]

    def _note_loss(self, event: Lost) -> None:
        tasks = list(event.tasks)
        self._losses += 1
        self._losses_in_a_row += 1
        if self._losses_in_a_row > _MAX_ATTEMPTS * (self._workers + 1):
            raise DatasetError(
                f"{self._losses_in_a_row} workers died one after the other ({event.reason}) and nothing got done "
                "between; find out why, or use fewer workers, and run the same command again"
            )
        if not tasks:  # it died while it had nothing to read
            return
        if not event.culprit_known and len(event.tasks) > 1:  # find out by reading them one at a time
            self._again.extendleft((task.index,) for task in reversed(event.tasks))
            return
        culprit, *others = tasks
        if others:
            self._again.appendleft(tuple(task.index for task in others))
        attempts = self._attempts[culprit.index] = self._attempts.get(culprit.index, 0) + 1
        if attempts < _MAX_ATTEMPTS:
            self._again.appendleft((culprit.index,))
            return
        reason = (
            f"the process that read it died {attempts} times ({event.reason}); if memory ran out, convert with "
            "fewer workers"
        )
        self._results[culprit.index] = EpisodePart.left_out(culprit.ref.source_id, reason)
