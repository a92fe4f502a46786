"""Environments in worker processes that may crash without ending the run.

Workers are spawned, never forked: graphics contexts and threads do not survive a fork. A worker imports
the simulator but not torch. Each works through its commands one by one, so when it dies, the command at the
head of its queue is the culprit; all its episodes are reported as `Lost`, and a new worker takes its place.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
import traceback
from collections import deque
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

import numpy as np

from robot_datasets.errors import UserError
from robot_policies.evaluation.environments import Answer, Command, Lost, RolloutPlan, SlotHost
from robot_policies.evaluation.episode import ChunkRequest
from robot_sim.worker_environment import environment_variables

if TYPE_CHECKING:
    from robot_policies.evaluation.video import Film
    from robot_sim.task import TaskSpec

logger = logging.getLogger(__name__)

# One thread per worker: N workers with N threads each would fight for the same cores. LP_NUM_THREADS is the
# software rasteriser's.
WORKER_THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}
STARTUP_TIMEOUT_S = 300.0
# Commands sent ahead of the answers; small, so that neither side ever blocks on a full pipe.
COMMANDS_IN_FLIGHT = 2


class WorkerError(RuntimeError):
    """A worker could not be started."""


def serve(connection: Connection, plan: RolloutPlan) -> None:
    """Body of a worker process: build the task, then answer commands until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    try:
        host = SlotHost(plan)
    # Reported to the main process, which raises it there.
    except Exception as error:  # noqa: BLE001
        connection.send(("refused", (isinstance(error, UserError), str(error), traceback.format_exc())))
        return
    connection.send(("ready", host.task_spec))
    try:
        while True:
            command: Command = connection.recv()
            connection.send((command[1], host.handle(command)))
    except (EOFError, OSError):
        pass  # the main process closed the pipe, or is gone
    finally:
        host.close()


class Worker:
    """The main process's view of one worker process."""

    def __init__(self, plan: RolloutPlan) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, plan), daemon=True)
        with environment_variables(WORKER_THREADS):
            self.process.start()
        theirs.close()
        self.in_flight: deque[Command] = deque()
        self._waiting: deque[Command] = deque()
        self._busy_since = time.monotonic()

    def await_ready(self) -> TaskSpec:
        """Wait for the task to be built.

        Raises:
            UserError: The task refused its options or is not there.
            WorkerError: The worker died or took too long.
        """
        try:
            if not self.connection.poll(STARTUP_TIMEOUT_S):
                raise WorkerError(f"an evaluation worker did not start within {STARTUP_TIMEOUT_S:g} s")
            kind, payload = self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"an evaluation worker died while it started ({self.stop()})") from error
        if kind == "ready":
            return payload
        is_user_error, message, details = payload
        self.stop()
        if is_user_error:
            raise UserError(message)
        raise WorkerError(f"the task could not be built in an evaluation worker:\n{details}")

    def send(self, command: Command) -> None:
        """Queue a command and send as much of the queue as may be in flight."""
        self._waiting.append(command)
        self._flush()

    def receive(self) -> tuple[int, Answer]:
        """Take one answer; EOFError or OSError if the worker is dead."""
        slot, answer = self.connection.recv()
        self.in_flight.popleft()
        self._busy_since = time.monotonic()
        self._flush()
        return slot, answer

    def silent_for(self) -> float:
        """How long the worker has been working on its current command [s]; 0 if idle."""
        return time.monotonic() - self._busy_since if self.in_flight else 0.0

    def stop(self) -> str:
        """Close the pipe, wait, then kill; return how the process ended."""
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _flush(self) -> None:
        while self._waiting and len(self.in_flight) < COMMANDS_IN_FLIGHT:
            command = self._waiting.popleft()
            if not self.in_flight:
                self._busy_since = time.monotonic()
            self.in_flight.append(command)
            try:
                self.connection.send(command)
            except OSError:
                return  # dead; `receive` will say so


class ProcessPool:
    """Slots spread over worker processes, slot i in worker i modulo their number."""

    def __init__(self, plan: RolloutPlan, *, workers: int, timeout_s: float) -> None:
        """Start the workers and wait until each has built its task.

        Args:
            plan: What to run.
            workers: Number of processes, >= 1.
            timeout_s: A worker that is silent for so long on one command is killed [s].
        """
        self._plan = plan
        self._timeout_s = timeout_s
        self._workers: list[Worker] = []
        self._slots: dict[int, set[int]] = {i: set() for i in range(workers)}
        self._awaited: set[int] = set()
        try:
            self._workers = [Worker(plan) for _ in range(workers)]
            specs = [worker.await_ready() for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.task_spec = specs[0]

    def start(self, slot: int, seed: int) -> None:
        """Begin the episode `seed` in this slot."""
        self._send(slot, ("start", slot, seed))

    def advance(self, slot: int, chunk: np.ndarray) -> None:
        """Give the slot's episode its chunk."""
        self._send(slot, ("advance", slot, chunk))

    def film(self, slot: int, film: Film) -> None:
        """Replay an episode in this slot and film it."""
        self._send(slot, ("film", slot, film))

    def collect(self) -> dict[int, Answer | Lost]:
        """Wait for the answers of this round; a dead or hanging worker is replaced."""
        answers: dict[int, Answer | Lost] = {}
        while self._awaited - set(answers):
            busy = {w.connection: i for i, w in enumerate(self._workers) if w.in_flight}
            for connection in wait(list(busy), timeout=1.0):
                answers.update(self._receive(busy[cast(Connection, connection)]))
            for i, worker in enumerate(self._workers):
                if worker.silent_for() > self._timeout_s:
                    worker.process.kill()
                    answers.update(self._replace(i, f"no answer for {self._timeout_s:g} s"))
        self._awaited.clear()
        return dict(sorted(answers.items()))

    def close(self) -> None:
        """End all worker processes."""
        for worker in self._workers:
            worker.stop()

    def _send(self, slot: int, command: Command) -> None:
        index = slot % len(self._workers)
        self._slots[index].add(slot)
        self._awaited.add(slot)
        self._workers[index].send(command)

    def _receive(self, index: int) -> dict[int, Answer | Lost]:
        try:
            slot, answer = self._workers[index].receive()
        except (EOFError, OSError):
            return dict(self._replace(index, ""))
        if not isinstance(answer, ChunkRequest):
            self._slots[index].discard(slot)
        return {slot: answer}

    def _replace(self, index: int, reason: str) -> dict[int, Lost]:
        """Start a new worker in place of a dead one; all its episodes are lost."""
        dead = self._workers[index]
        culprit = dead.in_flight[0][1]
        ended = dead.stop()
        reason = reason or ended
        logger.warning("an evaluation worker died (%s); a new one takes its place", reason)
        lost = {slot: Lost(reason=reason, culprit=slot == culprit) for slot in self._slots[index]}
        self._slots[index].clear()
        self._workers[index] = Worker(self._plan)
        self._workers[index].await_ready()
        return lost
