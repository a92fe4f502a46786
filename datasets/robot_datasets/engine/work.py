"""What a worker does: read a batch of episodes, check each, and hold it or leave it in files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from robot_datasets.engine.dispatch import Event, Finished, Task
from robot_datasets.engine.reading import read_episodes
from robot_datasets.episode import Episode
from robot_datasets.importers.base import Importer, Plan, Rejected
from robot_datasets.store import EpisodeStoreWriter
from robot_datasets.store.blob import BlobPlace
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
        places: Where the frames of each image feature are written, once it is known at which position.
        workers_lock: File that a worker locks as long as it may write frames.
        directory: Working directory that relative paths in the plan refer to.
    """

    importer: Importer
    plan: Plan
    spec: StoreSpec
    parts: Path
    places: Mapping[str, BlobPlace]
    workers_lock: Path
    directory: Path

    @classmethod
    def of(cls, importer: Importer, plan: Plan, writer: EpisodeStoreWriter) -> Job:
        """Strip the plan of what grows with the number of episodes."""
        small = replace(plan, refs=(), rejected=())
        parts, places = writer.parts_folder(), writer.places()
        return cls(importer, small, writer.spec, parts, places, writer.workers_lock, Path.cwd())


def work(job: Job, tasks: Sequence[Task], writer: PartWriter) -> Iterator[Finished]:
    """Read the episodes of a batch.

    Raises:
        DatasetError: The source as a whole cannot be read any more.
        OSError: A part cannot be written.
    """
    began = time.monotonic()

    def leave(episode: Episode) -> EpisodePart:
        return writer.write(episode, job.parts / str(task.slot), task.index)

    results = read_episodes(job.importer, job.plan, [task.ref for task in tasks], leave)
    for task in tasks:
        result = next(results)
        part = (
            EpisodePart.left_out(result.source_id, result.reason) if isinstance(result, Rejected) else result
        )
        now = time.monotonic()
        yield Finished(task, part, now - began)
        began = time.monotonic()  # what happened since then is not part of reading


class Executor(Protocol):
    """Where batches are worked on."""

    def has_room(self) -> bool:
        """Whether another batch can be submitted."""
        ...

    def submit(self, tasks: tuple[Task, ...]) -> None:
        """Have a batch worked on."""
        ...

    def place(self, index: int, starts: Mapping[str, int]) -> None:
        """Have the worker that holds an episode write its frames.

        Args:
            index: Of the episode.
            starts: Image feature -> position in the payload [bytes].
        """
        ...

    def events(self) -> list[Event]:
        """Wait until something happened, and return it.

        Raises:
            DatasetError: The source cannot be read any more, or the workers cannot be started.
            OSError: A part, or frames, could not be written.
        """
        ...

    def close(self) -> None:
        """End all workers, whatever they are doing; when this returns none of them writes any more."""
        ...
