"""Workers on a Ray cluster: one task per batch, run by whichever node has a free core.

Source and target must be on a file system that every node sees under the same path: workers leave their parts
beside the store, and the process that called writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from robot_datasets.engine.dispatch import Event, Finished, Lost, Task
from robot_datasets.engine.ray_connection import RayConnection
from robot_datasets.engine.work import Job, work
from robot_datasets.errors import DatasetError, UserError
from robot_datasets.store.parts import PartWriter

BATCH_SECONDS = 5.0
"""A task costs Ray some milliseconds and the importer another opening of the source."""


class RayCluster:
    """An `Executor` of so many concurrent Ray tasks."""

    def __init__(self, job: Job, workers: int) -> None:
        """Connect to the cluster that ``RAY_ADDRESS`` names, or start one on this machine.

        Raises:
            DatasetError: Ray is not installed or cannot be reached.
        """
        self._connection = RayConnection(cores=workers, instead="use --executor process")
        self._ray = ray = self._connection.ray
        self._workers = workers
        self._job: Any = ray.put(job)
        self._run: Any = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._running: dict[Any, tuple[Task, ...]] = {}

    def has_room(self) -> bool:
        """Whether less than the allowed number of tasks run."""
        return len(self._running) < self._workers

    def submit(self, tasks: tuple[Task, ...]) -> None:
        """Start a task."""
        self._running[self._run.remote(self._job, tasks)] = tasks

    def place(self, index: int, starts: Mapping[str, int]) -> None:
        """Never needed: tasks end before the place of their episodes is known, so all goes through files."""
        raise AssertionError("a Ray task holds nothing")

    def events(self) -> list[Event]:
        """Wait for a task to end; a node or worker that died loses its batch."""
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        found: list[Event] = []
        for reference in done:
            tasks = self._running.pop(reference)
            try:
                finished: list[Finished] = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, (UserError, OSError)):
                    raise cause from error
                raise
            except self._ray.exceptions.RayError as error:
                found.append(Lost(tasks, f"Ray says {type(error).__name__}", culprit_known=False))
            else:
                self._check_visible(finished)
                found += finished
        return found

    def close(self) -> None:
        """Cancel what runs; end the local Ray if it was started here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._connection.close()

    def _check_visible(self, finished: list[Finished]) -> None:
        for event in finished:
            if event.part.folder is not None and not event.part.rows.exists():
                raise DatasetError(
                    f"{event.part.rows} was written on another node and is not visible here; with --executor ray "
                    "source and target must be on a file system that all nodes share"
                )


def _run(job: Job, tasks: tuple[Task, ...]) -> list[Finished]:
    os.chdir(job.directory)
    return list(work(job, tasks, PartWriter(job.spec)))
