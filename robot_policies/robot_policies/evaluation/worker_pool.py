"""Slots spread over workers that may die: who holds which episode, what is under way, who is replaced.

A worker works through its commands one by one, so when it dies, the command at the head of its queue is the culprit;
all its episodes are reported as `Lost`, and a new worker takes its place. What a worker is, a process of this machine
or an actor of a cluster, the subclasses say; results do not depend on it.
"""

from __future__ import annotations

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import UserError
from robot_policies.evaluation.environments import Answer, Command, Lost, RolloutPlan, SlotHost
from robot_policies.evaluation.episode import ChunkRequest

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
_WAIT_S = 1.0

Opening = tuple[str, Any]
"""What a worker says first: ``("ready", TaskSpec)``, or ``("refused", (is a user's error, message, details))``."""


class WorkerError(RuntimeError):
    """A worker could not be started."""


class WorkerGoneError(Exception):
    """A worker is dead and will not answer."""


def open_host(plan: RolloutPlan) -> tuple[SlotHost | None, Opening]:
    """Build the task in a worker, and say what came of it; the main process raises what went wrong."""
    try:
        host = SlotHost(plan)
    except Exception as error:  # noqa: BLE001
        return None, ("refused", (isinstance(error, UserError), str(error), traceback.format_exc()))
    return host, ("ready", host.task_spec)


class PoolWorker(ABC):
    """The main process's view of one worker."""

    def __init__(self) -> None:
        self.in_flight: deque[Command] = deque()
        self._waiting: deque[Command] = deque()
        self._busy_since = time.monotonic()

    def await_ready(self) -> TaskSpec:
        """Wait for the task to be built.

        Raises:
            UserError: The task refused its options or is not there.
            WorkerError: The worker died or took too long.
        """
        kind, payload = self._opening()
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
        """Take one answer; `WorkerGoneError` if the worker is dead."""
        slot, answer = self._take()
        self.in_flight.popleft()
        self._busy_since = time.monotonic()
        self._flush()
        return slot, answer

    def silent_for(self) -> float:
        """How long the worker has been working on its current command [s]; 0 if idle."""
        return time.monotonic() - self._busy_since if self.in_flight else 0.0

    @abstractmethod
    def kill(self) -> None:
        """End it at once, whatever it is doing."""

    @abstractmethod
    def stop(self) -> str:
        """End it; return how it ended."""

    @abstractmethod
    def _opening(self) -> Opening:
        """Wait for what it says first; `WorkerError` if it dies or takes too long."""

    @abstractmethod
    def _pass_on(self, command: Command) -> None:
        """Give it a command without waiting; if it is dead, `_take` will say so."""

    @abstractmethod
    def _take(self) -> tuple[int, Answer]:
        """Return slot and answer of the first command in flight; `WorkerGoneError` if it is dead."""

    def _flush(self) -> None:
        while self._waiting and len(self.in_flight) < COMMANDS_IN_FLIGHT:
            command = self._waiting.popleft()
            if not self.in_flight:
                self._busy_since = time.monotonic()
            self.in_flight.append(command)
            self._pass_on(command)


class WorkerPool(ABC):
    """Slots spread over workers, slot i in worker i modulo their number."""

    def __init__(self, plan: RolloutPlan, *, workers: int, timeout_s: float) -> None:
        """Start the workers and wait until each has built its task.

        Args:
            plan: What to run.
            workers: Their number, >= 1.
            timeout_s: A worker that is silent for so long on one command is killed [s].
        """
        self._plan = plan
        self._timeout_s = timeout_s
        self._workers: list[PoolWorker] = []
        self._slots: dict[int, set[int]] = {i: set() for i in range(workers)}
        self._awaited: set[int] = set()
        try:
            for _ in range(workers):
                self._workers.append(self._new_worker())
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
            busy = [worker for worker in self._workers if worker.in_flight]
            for worker in self._answering(busy, _WAIT_S):
                answers.update(self._receive(self._workers.index(worker)))
            for i, worker in enumerate(self._workers):
                if worker.silent_for() > self._timeout_s:
                    worker.kill()
                    answers.update(self._replace(i, f"no answer for {self._timeout_s:g} s"))
        self._awaited.clear()
        return dict(sorted(answers.items()))

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()

    @abstractmethod
    def _new_worker(self) -> PoolWorker:
        """Start a worker without waiting for it."""

    @abstractmethod
    def _answering(self, busy: Sequence[PoolWorker], timeout_s: float) -> Sequence[PoolWorker]:
        """Return those of the busy workers that have an answer or are dead; wait at most so long for one."""

    def _send(self, slot: int, command: Command) -> None:
        index = slot % len(self._workers)
        self._slots[index].add(slot)
        self._awaited.add(slot)
        self._workers[index].send(command)

    def _receive(self, index: int) -> dict[int, Answer | Lost]:
        try:
            slot, answer = self._workers[index].receive()
        except WorkerGoneError:
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
        self._workers[index] = self._new_worker()
        self._workers[index].await_ready()
        return lost
