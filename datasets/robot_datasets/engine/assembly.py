"""Putting what workers took in into the store: in the order of the plan, each episode counted once it is all there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from robot_datasets.engine.dispatch import Dispatcher, Withdrawn, Written
from robot_datasets.engine.work import Executor
from robot_datasets.store import EpisodeStoreWriter
from robot_datasets.store.parts import EpisodePart


def assemble(
    executor: Executor,
    dispatcher: Dispatcher,
    writer: EpisodeStoreWriter,
    written: Callable[[Sequence[str]], None],
) -> None:
    """Have everything read and add it to the store; what does not count at an error is cut off.

    Args:
        executor: Does the reading; closed at the end.
        dispatcher: Knows what to read.
        writer: The store.
        written: Called with the names of the episodes that the store has now, or has set aside.

    Raises:
        DatasetError: The source cannot be read any more, or workers cannot be started or only die.
        OSError: The store cannot be written.
    """
    queue = _Queue(executor, writer)
    try:
        while not dispatcher.is_done or queue.laid:
            while executor.has_room() and (tasks := dispatcher.next_batch()):
                executor.submit(tasks)
            for event in executor.events():
                if isinstance(event, Written):
                    queue.waits_for.discard(event.index)
                elif isinstance(event, Withdrawn):
                    dispatcher.withdraw(queue.take_back())
                else:
                    dispatcher.note(event)
            for index, part in dispatcher.ready():
                queue.lay(index, part)
            if names := queue.commit():
                written(names)
    except BaseException:
        executor.close()  # before anything is cut off, so that nobody writes there afterwards
        writer.take_back()
        raise
    executor.close()


class _Queue:
    """Episodes that have their place in the store, the oldest first, until they count."""

    def __init__(self, executor: Executor, writer: EpisodeStoreWriter) -> None:
        self._executor, self._writer = executor, writer
        self.laid: deque[tuple[int, EpisodePart]] = deque()
        self.waits_for: set[int] = set()  # those whose frames are being written by a worker

    def lay(self, index: int, part: EpisodePart) -> None:
        """Give an episode its place behind all others."""
        starts = self._writer.lay(part)
        self.laid.append((index, part))
        if part.is_held:
            self.waits_for.add(index)
            self._executor.place(index, starts)

    def commit(self) -> list[str]:
        """Make those count that are complete, as are all before them; return their names."""
        complete = []
        while self.laid and self.laid[0][0] not in self.waits_for:
            complete.append(self.laid.popleft()[1].source_id)
        self._writer.commit(len(complete))
        return complete

    def take_back(self) -> list[tuple[int, EpisodePart]]:
        """Cut off what does not count, and return it."""
        self._writer.take_back()
        taken = list(self.laid)
        self.laid.clear()
        self.waits_for.clear()
        return taken
