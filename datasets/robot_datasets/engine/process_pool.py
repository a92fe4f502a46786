"""Worker processes on this machine: forked from a clean server, watched, and gone when the main process is."""

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from robot_datasets.engine.dispatch import HOLD_BYTES, Event, Finished, Lost, Task, Withdrawn, Written
from robot_datasets.engine.memory import keep_freed_memory
from robot_datasets.engine.work import Job, work
from robot_datasets.errors import DatasetError, UserError
from robot_datasets.store.parts import PartWriter
from robot_datasets.store.staging import wait_for_writers, writing_for_another

STARTUP_SECONDS = 120.0
_PRELOADED = ("robot_datasets.engine.process_pool", "h5py")
_BATCHES_AHEAD = 2  # one being worked on and one waiting, so that no worker idles while parts are appended


class WorkerError(Exception):
    """A worker failed because of a bug, whose traceback this carries."""


def start_server() -> None:
    """Start the process from which workers are forked; it imports what they need while this one goes on.

    It ends with this process. Imports are most of what a worker costs at its start, and are paid once this way.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_PRELOADED))
    with _interrupts_held():
        forkserver.ensure_running()


@dataclass(frozen=True)
class _Place:
    """Tells a worker where the frames of an episode belong that it holds."""

    index: int
    starts: Mapping[str, int]


def serve(connection: Connection, job: Job) -> None:
    """Run in a worker: work on batches until the main process closes the pipe or is gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # also if somebody else started the fork server
    # Locks that libraries make in here (numcodecs does) leave no name behind then, of which Python would warn.
    multiprocessing.set_start_method("fork", force=True)
    keep_freed_memory(HOLD_BYTES)
    inbox = _Inbox(connection)
    threading.Thread(target=inbox.fill, daemon=True).start()
    writer = PartWriter(job.spec, hold_bytes=HOLD_BYTES)
    try:
        with writing_for_another(job.workers_lock):
            connection.send("ready")
            while True:
                for finished in work(job, inbox.batches.get(), writer):
                    connection.send(finished)
                    _write_frames(connection, job, inbox, writer)
                _write_frames(connection, job, inbox, writer)
    except (BrokenPipeError, ConnectionResetError):
        return
    except (UserError, OSError) as error:
        _send_last(connection, error)
    except Exception:  # noqa: BLE001  goes to the main process, which raises it
        _send_last(connection, WorkerError(traceback.format_exc()))


class _Inbox:
    """What the main process wants of a worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.batches: queue.SimpleQueue[tuple[Task, ...]] = queue.SimpleQueue()
        """Empty ones are for a worker that has nothing to read, to look at `places`."""
        self.places: queue.SimpleQueue[_Place] = queue.SimpleQueue()

    def fill(self) -> None:
        """Take messages off the pipe, whatever the worker does, so that the main process never waits to send."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                if isinstance(message, _Place):
                    self.places.put(message)
                    self.batches.put(())
                else:
                    self.batches.put(message)
        os._exit(0)  # the main process is gone or wants an end; nothing here is worth finishing


def _write_frames(connection: Connection, job: Job, inbox: _Inbox, writer: PartWriter) -> None:
    """Write all held frames whose place is known by now."""
    while not inbox.places.empty():
        place = inbox.places.get()
        for name, blocks in writer.let_go(place.index).items():
            job.places[name].write(place.starts[name], blocks)
        connection.send(Written(place.index))


def _send_last(connection: Connection, error: Exception) -> None:
    with contextlib.suppress(OSError):
        connection.send(error)


class _Worker:
    """The main process's view of one worker."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, job), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.began = time.monotonic()
        self.is_ready = False
        self.is_dead = False
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

    def place(self, place: _Place) -> None:
        with contextlib.suppress(OSError):  # dead; noticed when its pipe is read
            self.connection.send(place)

    def unfinished(self) -> tuple[Task, ...]:
        return tuple(task for batch in self.batches for task in batch)

    def end(self) -> str | None:
        """Have it end, and return how it did if it had died by itself."""
        self.connection.close()
        self.process.join(timeout=1.0)  # a dead one is gone at once; others are told by the closed pipe
        was_told = self.process.is_alive()
        if was_told:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        if was_told or code == 0:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class ProcessPool:
    """An `Executor` of so many processes."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._holders: dict[int, _Worker] = {}
        self._workers = [_Worker(job) for _ in range(workers)]

    def has_room(self) -> bool:
        """Whether a worker has less than two batches."""
        return min(len(worker.batches) for worker in self._workers) < _BATCHES_AHEAD

    def submit(self, tasks: tuple[Task, ...]) -> None:
        """Give a batch to the worker with the least to do."""
        min(self._workers, key=lambda worker: len(worker.unfinished())).give(tasks)

    def place(self, index: int, starts: Mapping[str, int]) -> None:
        """Have the frames of a held episode written."""
        self._holders.pop(index).place(_Place(index, starts))

    def events(self) -> list[Event]:
        """Wait for reports; if a worker died, all are ended and replaced.

        What a dead worker was told to write lies in the middle of the store, and others write behind it, so that
        beginning again after the last episode that counts is the one way out that is always right.
        """
        found: list[Event] = []
        while not found:
            by_connection = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(by_connection), timeout=STARTUP_SECONDS):
                found += self._read(by_connection[cast(Connection, connection)])
            if any(worker.is_dead for worker in self._workers):
                found += self._replace_all()
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
        wait_for_writers(self._job.workers_lock)

    def _read(self, worker: _Worker) -> Iterator[Event]:
        """Yield everything that a worker has to say now."""
        while True:
            try:
                if not worker.connection.poll():
                    return
                message: Any = worker.connection.recv()
            except (EOFError, OSError):  # OSError: it died in the middle of a message
                worker.is_dead = True
                return
            if isinstance(message, Finished):
                worker.finish(message.task)
                if message.part.is_held:
                    self._holders[message.task.index] = worker
                yield message
            elif isinstance(message, Written):
                yield message
            elif isinstance(message, Exception):
                raise message
            else:
                worker.is_ready = True

    def _replace_all(self) -> Iterator[Event]:
        for worker in self._workers:
            yield from self._read(worker)  # the others may have finished something, or be dead, too
        for worker in self._workers:
            worker.connection.close()  # tells all before waiting for one
        for worker in self._workers:
            ending = worker.end()
            if ending is None and worker.is_dead:
                ending = "exit code 0"
            if ending is None:
                continue
            if not worker.is_ready and ending.startswith("exit"):
                raise DatasetError(
                    f"a conversion worker could not be started ({ending}); if you called convert() from a "
                    "script, put the call under: if __name__ == '__main__'"
                )
            begun = worker.unfinished() if worker.is_ready else ()  # killed at its start, it read nothing
            yield Lost(begun, ending, culprit_known=True)
        self._holders.clear()
        wait_for_writers(self._job.workers_lock)  # were the fork server dead, its workers would seem so, too
        self._workers = [_Worker(self._job) for _ in self._workers]
        yield Withdrawn()

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
