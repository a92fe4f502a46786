"""Worker processes on this machine: spawned, watched, and gone when the main process is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from robot_datasets.engine.dispatch import Finished, Lost, Task
from robot_datasets.engine.memory import keep_freed_memory
from robot_datasets.engine.work import Job, work
from robot_datasets.errors import DatasetError, UserError

STARTUP_SECONDS = 120.0
_BATCHES_AHEAD = 2  # one being worked on and one waiting, so that no worker idles while parts are appended


class WorkerError(Exception):
    """A worker failed because of a bug, whose traceback this carries."""


def serve(connection: Connection, job: Job) -> None:
    """Run in a worker: work on batches until the main process closes the pipe or is gone."""
    keep_freed_memory()
    batches: queue.SimpleQueue[tuple[Task, ...]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, batches), daemon=True).start()
    try:
        connection.send("ready")
        while True:
            for finished in work(job, batches.get()):
                connection.send(finished)
    except (BrokenPipeError, ConnectionResetError):
        return
    except (UserError, OSError) as error:
        _send_last(connection, error)
    except Exception:  # noqa: BLE001  goes to the main process, which raises it
        _send_last(connection, WorkerError(traceback.format_exc()))


def _receive(connection: Connection, batches: queue.SimpleQueue[tuple[Task, ...]]) -> None:
    """Take batches off the pipe, whatever the worker does, so that the main process never waits to send."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            batches.put(connection.recv())
    os._exit(0)  # the main process is gone or wants an end; nothing here is worth finishing


def _send_last(connection: Connection, error: Exception) -> None:
    with contextlib.suppress(OSError):
        connection.send(error)


class _Worker:
    """The main process's view of one worker."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, job), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.began = time.monotonic()
        self.is_ready = False
        self.batches: deque[deque[Task]] = deque()

    def give(self, tasks: tuple[Task, ...]) -> None:
        self.batches.append(deque(tasks))
        with contextlib.suppress(OSError):  # dead; noticed when its pipe is read
            self.connection.send(tasks)

    def finish(self, task: Task) -> None:
        batch = self.batches[0]
        batch.remove(task)
        if not batch:
            self.batches.popleft()

    def unfinished(self) -> tuple[Task, ...]:
        return tuple(task for batch in self.batches for task in batch)

    def end(self) -> str:
        """Kill it and return how it ended."""
        self.connection.close()
        self.process.join(timeout=1.0)  # a dead one is gone at once; others are told by the closed pipe
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class ProcessPool:
    """An `Executor` of so many processes."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._workers = [_Worker(job) for _ in range(workers)]

    def has_room(self) -> bool:
        """Whether a worker has less than two batches."""
        return min(len(worker.batches) for worker in self._workers) < _BATCHES_AHEAD

    def submit(self, tasks: tuple[Task, ...]) -> None:
        """Give a batch to the worker with the least to do."""
        min(self._workers, key=lambda worker: len(worker.unfinished())).give(tasks)

    def events(self) -> list[Finished | Lost]:
        """Wait for reports; a dead worker is replaced."""
        found: list[Finished | Lost] = []
        while not found:
            by_connection = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(by_connection), timeout=STARTUP_SECONDS):
                found += self._read(by_connection[cast(Connection, connection)])
            self._check_started()
        return found

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers:
            with contextlib.suppress(ValueError):  # closed already
                worker.process.kill()
        for worker in self._workers:
            with contextlib.suppress(ValueError):
                worker.end()

    def _read(self, worker: _Worker) -> Iterator[Finished | Lost]:
        """Yield everything that a worker has to say now."""
        while True:
            try:
                if not worker.connection.poll():
                    return
                message: Any = worker.connection.recv()
            except (EOFError, OSError):  # OSError: it died in the middle of a message
                yield from self._replace(worker)
                return
            if isinstance(message, Finished):
                worker.finish(message.task)
                yield message
            elif isinstance(message, Exception):
                raise message
            else:
                worker.is_ready = True

    def _replace(self, worker: _Worker) -> Iterator[Lost]:
        tasks, was_ready = worker.unfinished(), worker.is_ready
        ending = worker.end()
        if not was_ready:
            raise DatasetError(
                f"a conversion worker could not be started ({ending}); if you called convert() from a script, "
                "put the call under: if __name__ == '__main__'"
            )
        self._workers[self._workers.index(worker)] = _Worker(self._job)
        if tasks:
            yield Lost(tasks, ending, culprit_known=True)

    def _check_started(self) -> None:
        for worker in self._workers:
            if not worker.is_ready and time.monotonic() - worker.began > STARTUP_SECONDS:
                raise DatasetError(
                    f"a conversion worker did not start within {STARTUP_SECONDS:g} s; use fewer workers"
                )


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process that never sees Ctrl-C: the main process decides what becomes of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
