"""What a worker does: read a batch of episodes, check each, and leave it as a part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from robot_datasets.engine.dispatch import Dispatcher, Finished, Lost, Task
from robot_datasets.engine.reading import read_episodes
from robot_datasets.episode import Episode
from robot_datasets.importers.base import Importer, Plan, Rejected
from robot_datasets.store.layout import StoreSpec
from robot_datasets.store.parts import EpisodePart, PartWriter


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to know once; goes to it by pickle.

    Attributes:
        importer: Reads the source.
        plan: Its plan without references, which come with the batches.
        spec: What the store holds.
        parts: Folder of the part folders.
        directory: Working directory that relative paths in the plan refer to.
    """

    importer: Importer
    plan: Plan
    spec: StoreSpec
    parts: Path
    directory: Path

    @classmethod
    def of(cls, importer: Importer, plan: Plan, spec: StoreSpec, parts: Path) -> Job:
        """Strip the plan of what grows with the number of episodes."""
        return cls(importer, replace(plan, refs=(), rejected=()), spec, parts, Path.cwd())


def work(job: Job, tasks: Sequence[Task]) -> Iterator[Finished]:
    """Read the episodes of a batch.

    Raises:
        DatasetError: The source as a whole cannot be read any more.
        OSError: A part cannot be written.
    """
    writer = PartWriter(job.spec)
    began = time.monotonic()

    def leave(episode: Episode) -> EpisodePart:
        return writer.write(episode, job.parts / str(task.slot))

    results = read_episodes(job.importer, job.plan, [task.ref for task in tasks], leave)
    for task in tasks:
        result = next(results)
        part = (
            EpisodePart.left_out(result.source_id, result.reason) if isinstance(result, Rejected) else result
        )
        now = time.monotonic()
        yield Finished(task, part, now - began)
        began = now


class Executor(Protocol):
    """Where batches are worked on."""

    def has_room(self) -> bool:
        """Whether another batch can be submitted."""
        ...

    def submit(self, tasks: tuple[Task, ...]) -> None:
        """Have a batch worked on."""
        ...

    def events(self) -> list[Finished | Lost]:
        """Wait until something happened, and return it.

        Raises:
            DatasetError: The source cannot be read any more, or the workers cannot be started.
            OSError: A part could not be written.
        """
        ...

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        ...


def stream_parts(executor: Executor, dispatcher: Dispatcher) -> Iterator[list[EpisodePart]]:
    """Yield everything in order, some at a time; a part is used up when the next are asked for."""
    while not dispatcher.is_done:
        while executor.has_room() and (tasks := dispatcher.next_batch()):
            executor.submit(tasks)
        for event in executor.events():
            dispatcher.note(event)
        yield from dispatcher.ready()
