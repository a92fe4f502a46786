"""Episodes of a scripted expert, played one seed after another in worker processes."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, is_image
from robot_datasets.image_codec import encode_frame
from robot_sim.registry import make_expert, make_task
from robot_sim.task import Expert, Observation, TaskEnv
from robot_sim.worker_environment import environment_variables

# One thread per worker: N workers with N threads each would fight for the same cores. LP_NUM_THREADS is the
# software rasteriser's.
_WORKER_THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}
_QUEUED_PER_WORKER = 3


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer."""


@dataclass(frozen=True, kw_only=True)
class DemonstrationPlan:
    """What a worker needs to know to play any seed; see `robot_sim.generate.GenerationPlan`."""

    task: str
    task_options: Mapping[str, Any]
    expert_options: Mapping[str, Any]
    image_encoding: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The outcome of one seed.

    Attributes:
        seed: The seed.
        source_id: Name of the episode in the store.
        episode: The demonstration; None if the expert did not succeed.
        failure: Why there is none.
    """

    seed: int
    source_id: str
    episode: Episode | None
    failure: str = ""


class Demonstrator:
    """A task and its expert, ready to play seeds."""

    def __init__(self, plan: DemonstrationPlan) -> None:
        self._plan = plan
        self.env: TaskEnv = make_task(plan.task, **plan.task_options)
        self.expert: Expert = make_expert(plan.task, **plan.expert_options)

    def attempt(self, seed: int) -> Attempt:
        """Play the episode `seed` and return it if it succeeds."""
        env, expert = self.env, self.expert
        source_id = f"{self._plan.task}/seed-{seed:06d}"
        observation, _ = env.reset(seed=seed)
        expert.reset(env, seed)
        observations: list[dict[str, Any]] = []
        actions: list[np.ndarray] = []
        done = success = False
        while not done:
            action = expert.act(observation)
            observations.append(self._kept(observation))
            actions.append(action)
            observation, _, terminated, truncated, info = env.step(expert.perturb(action))
            success = success or info["is_success"]
            done = terminated or truncated
        if not success:
            return Attempt(
                seed=seed, source_id=source_id, episode=None, failure=f"no success in {len(actions)} steps"
            )
        return Attempt(
            seed=seed, source_id=source_id, episode=self._episode(source_id, observations, actions)
        )

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _kept(self, observation: Observation) -> dict[str, Any]:
        """Encode images at once: raw frames of a long episode would fill the memory."""
        return {
            name: encode_frame(value, self._plan.image_encoding) if is_image(name) else value
            for name, value in observation.items()
        }

    def _episode(
        self, source_id: str, observations: list[dict[str, Any]], actions: list[np.ndarray]
    ) -> Episode:
        spec = self.env.task_spec
        columns: dict[str, list[Any]] = {name: [o[name] for o in observations] for name in spec.observation}
        return Episode(
            source_id=source_id,
            data={name: np.stack(values) for name, values in columns.items() if not is_image(name)}
            | {ACTION: np.stack(actions).astype(spec.action.dtype)},
            images={name: values for name, values in columns.items() if is_image(name)},
            task=spec.instruction,
            success=True,
        )


def attempts(
    plan: DemonstrationPlan, seeds: Iterable[int], *, workers: int
) -> Generator[Attempt, None, None]:
    """Yield the attempts at `seeds`, in their order; close the generator to stop.

    Args:
        plan: What to play.
        seeds: Seeds, possibly without end: workers run only a few ahead of the reader.
        workers: Number of processes; 0 plays in this one.

    Raises:
        WorkerDiedError: A worker was killed, e.g. for want of memory.
    """
    if workers == 0:
        yield from _attempts_here(plan, seeds)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # graphics contexts do not survive a fork
        initializer=_start_worker,
        initargs=(plan,),
    )
    pending: deque[Future[Attempt]] = deque()
    remaining = iter(seeds)
    try:
        with environment_variables(_WORKER_THREADS):  # the pool starts its processes as work arrives
            for seed in itertools.islice(remaining, workers * _QUEUED_PER_WORKER):
                pending.append(pool.submit(_attempt, seed))
        while pending:
            attempt = pending.popleft().result()
            pending.extend(pool.submit(_attempt, seed) for seed in itertools.islice(remaining, 1))
            yield attempt
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            "a worker process was killed while it played an episode (out of memory?); "
            "run the same command again to go on, with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempts_here(plan: DemonstrationPlan, seeds: Iterable[int]) -> Iterator[Attempt]:
    demonstrator = Demonstrator(plan)
    try:
        for seed in seeds:
            yield demonstrator.attempt(seed)
    finally:
        demonstrator.close()


_demonstrator: Demonstrator | None = None  # of this worker process


def _start_worker(plan: DemonstrationPlan) -> None:
    global _demonstrator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    _demonstrator = Demonstrator(plan)


def _attempt(seed: int) -> Attempt:
    assert _demonstrator is not None, "the pool's initializer builds it"
    return _demonstrator.attempt(seed)
