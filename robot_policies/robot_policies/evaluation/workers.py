"""Environments in worker processes of this machine, which may crash without ending the run.

Workers are spawned, never forked: graphics contexts and threads do not survive a fork. A worker imports
the simulator but not torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from robot_policies.evaluation.environments import Answer, Command, RolloutPlan
from robot_policies.evaluation.worker_pool import (
    STARTUP_TIMEOUT_S,
    WORKER_THREADS,
    Opening,
    PoolWorker,
    WorkerError,
    WorkerGoneError,
    WorkerPool,
    open_host,
)
from robot_sim.worker_environment import environment_variables


def serve(connection: Connection, plan: RolloutPlan) -> None:
    """Body of a worker process: build the task, then answer commands until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    host, opening = open_host(plan)
    connection.send(opening)
    if host is None:
        return
    try:
        while True:
            command: Command = connection.recv()
            connection.send((command[1], host.handle(command)))
    except (EOFError, OSError):
        pass  # the main process closed the pipe, or is gone
    finally:
        host.close()


class Worker(PoolWorker):
    """One worker process."""

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, plan), daemon=True)
        with environment_variables(WORKER_THREADS):
            self.process.start()
        theirs.close()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()

    def stop(self) -> str:
        """Close the pipe, wait, then kill; return how the process ended."""
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _opening(self) -> Opening:
        try:
            if not self.connection.poll(STARTUP_TIMEOUT_S):
                raise WorkerError(f"an evaluation worker did not start within {STARTUP_TIMEOUT_S:g} s")
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"an evaluation worker died while it started ({self.stop()})") from error

    def _pass_on(self, command: Command) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(command)

    def _take(self) -> tuple[int, Answer]:
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerGoneError from error


class ProcessPool(WorkerPool):
    """A `WorkerPool` of processes."""

    def _new_worker(self) -> Worker:
        return Worker(self._plan)

    def _answering(self, busy: Sequence[PoolWorker], timeout_s: float) -> list[PoolWorker]:
        by_connection = {worker.connection: worker for worker in busy if isinstance(worker, Worker)}
        return [by_connection[c] for c in wait(list(by_connection), timeout=timeout_s)]  # type: ignore[index]
