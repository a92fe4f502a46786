"""Worker processes that play episodes: answers in order, no episode lost, none counted twice.

Each worker plays one episode at a time, so when it dies, which episode it died of is known. That one is tried
once more, in a new process; a second death makes it a failed attempt like any other. All others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar, cast

from robot_datasets.errors import UserError
from robot_sim.worker_environment import environment_variables

# One thread per worker: N workers with N threads each would fight for the same cores. LP_NUM_THREADS is the
# software rasteriser's.
_WORKER_THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}
_AHEAD_PER_WORKER = 3  # episodes that may be finished, or under way, beyond the one that is waited for
MAX_DEATHS_IN_A_ROW = 5  # workers that die one after the other, with no episode finished in between

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")


class WorkerDiedError(UserError):
    """Worker processes keep dying, whatever they play."""


class WorkerFailedError(RuntimeError):
    """A worker failed because of a bug, whose traceback this carries."""


def _serve(connection: Connection, play: Callable[[Any], Any]) -> None:
    """Body of a worker: play jobs until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                answer: tuple[str, Any] = ("done", play(job))
            except UserError as error:
                answer = ("refused", error)
            except Exception:  # noqa: BLE001  goes to the main process, which raises it
                answer = ("failed", traceback.format_exc())
            connection.send(answer)


class _Worker:
    def __init__(self, play: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # graphics contexts do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, play), daemon=True)
        with environment_variables(_WORKER_THREADS):
            self.process.start()
        theirs.close()
        self.job: int | None = None

    def give(self, number: int, job: object) -> None:
        self.job = number
        with contextlib.suppress(OSError):  # dead; noticed when its pipe is read
            self.connection.send(job)

    def end(self) -> str:
        """Kill it and return how it ended."""
        self.connection.close()
        self.process.join(timeout=0.2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@dataclass
class _Slot(Generic[JobT, AnswerT]):
    job: JobT
    deaths: int = 0
    answer: AnswerT | None = None
    is_answered: bool = False


class AttemptPool(Generic[JobT, AnswerT]):
    """Plays jobs in processes.

    Args:
        play: Module-level function that plays one job; keeps what it builds in its module.
        give_up: Makes the answer to a job whose worker died twice, from the job and how the worker ended.
        workers: Number of processes, at least 1.
    """

    def __init__(
        self,
        play: Callable[[JobT], AnswerT],
        give_up: Callable[[JobT, str], AnswerT],
        *,
        workers: int,
    ) -> None:
        self._play, self._give_up = play, give_up
        self._workers = [_Worker(play) for _ in range(workers)]
        self._slots: dict[int, _Slot[JobT, AnswerT]] = {}
        self._todo: deque[int] = deque()
        self._deaths_in_a_row = 0
        self.n_deaths = 0

    def run(self, jobs: Iterable[JobT]) -> Generator[AnswerT, None, None]:
        """Yield the answers to `jobs`, in their order; jobs may be without end, workers run a few ahead.

        Raises:
            WorkerDiedError: Workers die one after the other.
            WorkerFailedError: A worker raised what it should not.
            UserError: What a worker raised for the user.
        """
        remaining, taken, given = iter(jobs), 0, 0
        exhausted = False
        while True:
            while not exhausted and taken - given < len(self._workers) * _AHEAD_PER_WORKER:
                try:
                    self._slots[taken] = _Slot(next(remaining))
                except StopIteration:
                    exhausted = True
                    break
                self._todo.append(taken)
                taken += 1
            if given == taken:
                return
            while not self._slots[given].is_answered:
                self._dispatch()
                self._listen()
            yield cast(AnswerT, self._slots.pop(given).answer)
            given += 1

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _dispatch(self) -> None:
        for worker in self._workers:
            if worker.job is None and self._todo:
                number = self._todo.popleft()
                worker.give(number, self._slots[number].job)

    def _listen(self) -> None:
        busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
        for connection in wait(list(busy)):
            self._read(busy[cast(Connection, connection)])

    def _read(self, worker: _Worker) -> None:
        number = worker.job
        assert number is not None, "only busy workers are listened to"
        slot = self._slots[number]
        try:
            kind, payload = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker, number, slot)
            return
        worker.job = None
        self._deaths_in_a_row = 0
        if kind == "refused":
            raise payload
        if kind == "failed":
            raise WorkerFailedError(f"a worker failed:\n{payload}")
        slot.answer, slot.is_answered = payload, True

    def _bury(self, worker: _Worker, number: int, slot: _Slot[JobT, AnswerT]) -> None:
        """Replace a dead worker; its episode goes first in the queue, or is given up."""
        ending = worker.end()
        self.n_deaths += 1
        self._deaths_in_a_row += 1
        slot.deaths += 1
        if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise WorkerDiedError(
                f"{self._deaths_in_a_row} worker processes died one after the other (the last {ending}; out of "
                "memory?); run the same command again to go on, with fewer workers"
            )
        if slot.deaths > 1:
            slot.answer, slot.is_answered = self._give_up(slot.job, ending), True
        else:
            self._todo.appendleft(number)
        self._workers[self._workers.index(worker)] = _Worker(self._play)
