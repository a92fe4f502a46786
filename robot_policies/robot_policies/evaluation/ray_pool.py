"""Environments in actors of a Ray cluster, each on whichever node has a free core.

The policy stays in the process that called, where it answers the environments of all nodes with one batch; what
travels is an observation window one way and an action chunk the other. Rounds, slots and batches are those of local
workers, so the results are, too.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.engine.ray_connection import RayConnection
from robot_policies.evaluation.environments import Answer, Command, Filmed, RolloutPlan
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


class SlotActor:
    """What runs on a node: the slots of one worker."""

    def __init__(self, plan: RolloutPlan, directory: str) -> None:
        with contextlib.suppress(OSError):  # a node that does not share the folder has other paths
            os.chdir(directory)
        self._host, self._opening = open_host(plan)

    def opening(self) -> Opening:
        """Say what came of building the task."""
        return self._opening

    def handle(self, command: Command) -> tuple[int, Answer]:
        """Carry out a command; return its slot and answer."""
        assert self._host is not None, "commands are sent to workers that are ready"
        verb, slot, argument = command
        if verb == "advance":
            argument = np.array(argument)  # Ray's are read-only; an executor may write into its chunk
        return slot, self._host.handle((verb, slot, argument))


class RayWorker(PoolWorker):
    """One actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        super().__init__()
        self._ray, self._actor = ray, actor
        self._first = self._actor.opening.remote()
        self._answers: deque[Any] = deque()
        self._ending = "it was ended"

    @property
    def awaited(self) -> Any:
        """The reference that the answer to the first command in flight will be at."""
        return self._answers[0]

    def kill(self) -> None:
        """End the actor at once."""
        self._ray.kill(self._actor)

    def stop(self) -> str:
        """End the actor; return how it ended."""
        self.kill()
        return self._ending

    def _opening(self) -> Opening:
        try:
            return self._ray.get(self._first, timeout=STARTUP_TIMEOUT_S)
        except self._ray.exceptions.GetTimeoutError as error:
            self.kill()
            raise WorkerError(
                f"an evaluation worker did not start on Ray within {STARTUP_TIMEOUT_S:g} s; has the cluster a free "
                "core for each of the workers?"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerError(f"an evaluation worker died on Ray while it started: {error}") from error

    def _pass_on(self, command: Command) -> None:
        self._answers.append(self._actor.handle.remote(command))

    def _take(self) -> tuple[int, Answer]:
        command = self.in_flight[0]
        try:
            slot, answer = self._ray.get(self._answers[0])
        except self._ray.exceptions.RayTaskError:
            raise  # a bug in the host: what environments raise is an answer
        except self._ray.exceptions.RayError as error:
            self._ending = f"Ray says {type(error).__name__}"
            raise WorkerGoneError from error
        self._answers.popleft()
        return slot, _visible(answer, command) if isinstance(answer, Filmed) else answer


class RayPool(WorkerPool):
    """A `WorkerPool` of actors."""

    def __init__(self, plan: RolloutPlan, *, workers: int, timeout_s: float) -> None:
        """Connect to the cluster that ``RAY_ADDRESS`` names, or start one on this machine, and start the workers.

        Raises:
            DatasetError: Ray is not installed or cannot be reached.
        """
        self._connection = RayConnection(cores=workers, instead="use pool=process")
        try:
            ray = self._connection.ray
            self._shared_plan = ray.put(plan)
            # Ray restarts nothing: whoever dies loses its episodes, and the rollout decides what is tried again.
            environment = {"env_vars": WORKER_THREADS}
            self._actors = ray.remote(num_cpus=1, max_restarts=0, runtime_env=environment)(SlotActor)
            super().__init__(plan, workers=workers, timeout_s=timeout_s)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """End all actors, and the cluster if it was started here."""
        super().close()
        self._connection.close()

    def _new_worker(self) -> RayWorker:
        return RayWorker(self._connection.ray, self._actors.remote(self._shared_plan, os.getcwd()))

    def _answering(self, busy: Sequence[PoolWorker], timeout_s: float) -> list[PoolWorker]:
        by_reference = {worker.awaited: worker for worker in busy if isinstance(worker, RayWorker)}
        if not by_reference:
            return []
        done, _ = self._connection.ray.wait(list(by_reference), num_returns=1, timeout=timeout_s)
        return [by_reference[reference] for reference in done]


def _visible(answer: Filmed, command: Command) -> Filmed:
    """Say so if a film was written where this process does not see it."""
    path = Path(command[2].path)
    if answer.problem or path.exists():
        return answer
    return Filmed(
        problem=f"{path.name} was written on another node; films need a folder that all nodes share"
    )
