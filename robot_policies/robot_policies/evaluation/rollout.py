"""Rounds of rollouts: collect what the environments ask for, answer all of them with one batch, repeat."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_datasets.errors import unknown_name
from robot_policies.configuration import ConfigError
from robot_policies.evaluation.environments import (
    EnvironmentPool,
    Filmed,
    LocalPool,
    Lost,
    RolloutPlan,
)
from robot_policies.evaluation.episode import ChunkRequest, EpisodeOutcome
from robot_policies.evaluation.foresight import MAX_EPISODES as FORESEEN
from robot_policies.evaluation.foresight import ForesightLog, Watch
from robot_policies.evaluation.inference import episode_generator, predict
from robot_policies.evaluation.results import EpisodeResult
from robot_policies.evaluation.video import Film
from robot_policies.evaluation.workers import ProcessPool
from robot_policies.policy import Policy

POOLS = ("process", "ray")
"""Where workers are: processes of this machine, or actors of a Ray cluster."""
ENVIRONMENTS_DEFAULT = 16
# A worker may be killed from outside (out of memory), so an episode gets a second chance before it is
# recorded as the one that kills its worker.
ATTEMPTS = 2


@contextmanager
def open_pool(
    plan: RolloutPlan, *, workers: int, timeout_s: float = 300.0, kind: str = "process"
) -> Iterator[EnvironmentPool]:
    """Environments in `workers` processes of this machine or of a Ray cluster, or in this process if 0.

    Raises:
        ConfigError: `kind` is none of `POOLS`, or does not go with the number of workers.
        UserError: The task is unknown, or refused its options; or Ray is not there.
    """
    check_pool(kind, workers)
    pool: EnvironmentPool
    if workers == 0:
        pool = LocalPool(plan)
    elif kind == "ray":
        from robot_policies.evaluation.ray_pool import RayPool

        pool = RayPool(plan, workers=workers, timeout_s=timeout_s)
    else:
        pool = ProcessPool(plan, workers=workers, timeout_s=timeout_s)
    try:
        yield pool
    finally:
        pool.close()


def check_pool(kind: str, workers: int) -> None:
    """Raise `ConfigError` unless there is such a pool, with so many workers."""
    if kind not in POOLS:
        raise ConfigError(unknown_name("pool", kind, POOLS))
    if workers < 0:
        raise ConfigError(f"workers: expected >= 0, got {workers}; 0 runs the environments in this process")
    if kind == "ray" and workers == 0:
        raise ConfigError(
            "workers: pool=ray has at least one, got 0; use pool=process to stay in this process"
        )


@contextmanager
def evaluating(policy: Policy, device: torch.device) -> Iterator[None]:
    """Put the policy into evaluation mode on a device; training mode comes back afterwards."""
    was_training = policy.training
    policy.to(device).eval()
    try:
        yield
    finally:
        policy.train(was_training)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ConfigError` unless there is at least one seed, none is negative and none comes twice."""
    if len(seeds) == 0:
        raise ConfigError("no seeds to evaluate on: got 0 episodes, expected at least 1; set episodes")
    if len(set(seeds)) != len(seeds):
        twice = next(seed for i, seed in enumerate(seeds) if seed in seeds[:i])
        raise ConfigError(f"seeds must differ, but {twice} is given twice; every episode needs its own")
    if min(seeds) < 0:
        raise ConfigError(f"seeds must be >= 0, got {min(seeds)}")


@dataclass
class _Running:
    """An episode in progress, seen from the policy's side."""

    seed: int
    generator: torch.Generator
    request: ChunkRequest | None = None
    latencies_s: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    n_network_calls: int = 0
    foresight: ForesightLog | None = None
    energies: list[float] = field(default_factory=list)


class Rollout:
    """Drives a pool in rounds until every seed has its result."""

    def __init__(
        self,
        pool: EnvironmentPool,
        policy: Policy,
        *,
        sampler: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        policy_seed: int = 0,
        on_result: Callable[[EpisodeResult], None] | None = None,
        enough: Callable[[], bool] | None = None,
    ) -> None:
        """Prepare; see `robot_policies.evaluation.evaluate.evaluate_policy` for the arguments.

        `enough` is asked before an episode is started; once it says so, only those under way are finished.
        """
        self._pool = pool
        self._policy = policy
        self._sampler = sampler
        self._device = device or torch.device("cpu")
        self._policy_seed = policy_seed
        self._on_result = on_result
        self._enough = enough
        self._queue: deque[int] = deque()
        self._running: dict[int, _Running] = {}
        self._attempts: dict[int, int] = {}
        self._results: dict[int, EpisodeResult] = {}
        self._foreseen: set[int] = set()
        self.example: ChunkRequest | None = None  # something to measure the policy's latency on

    def run(self, seeds: Sequence[int], n_envs: int) -> list[EpisodeResult]:
        """Run one episode per seed, `n_envs` at a time; results in the order of `seeds`."""
        self._queue.extend(seeds)
        self._foreseen = set(seeds[:FORESEEN])
        with evaluating(self._policy, self._device):
            for slot in range(min(n_envs, len(seeds))):
                self._start_next(slot)
            while self._running:
                for slot, answer in self._pool.collect().items():
                    self._take(slot, answer)
                self._predict()
        return [self._results[seed] for seed in seeds if seed in self._results]

    def _start_next(self, slot: int) -> None:
        self._running.pop(slot, None)
        if self._enough is not None and self._enough():
            self._queue = deque(
                seed for seed in self._queue if seed in self._attempts
            )  # a lost one is not dropped
        if self._queue:
            seed = self._queue.popleft()
            generator = episode_generator(seed, self._policy_seed)
            log = ForesightLog() if seed in self._foreseen else None
            self._running[slot] = _Running(seed=seed, generator=generator, foresight=log)
            self._pool.start(slot, seed)

    def _take(self, slot: int, answer: ChunkRequest | EpisodeOutcome | Filmed | Lost) -> None:
        running = self._running[slot]
        if isinstance(answer, ChunkRequest):
            running.request = self.example = answer
            return
        if isinstance(answer, Lost):
            seed = running.seed
            self._attempts[seed] = self._attempts.get(seed, 0) + answer.culprit
            if self._attempts[seed] < ATTEMPTS:
                self._queue.appendleft(seed)
                self._start_next(slot)
                return
            answer = self._fatal(answer.reason)
        assert isinstance(answer, EpisodeOutcome)
        self._finish(running, answer)
        self._start_next(slot)

    def _finish(self, running: _Running, outcome: EpisodeOutcome) -> None:
        result = EpisodeResult.from_outcome(
            outcome,
            seed=running.seed,
            task=self._pool.task_spec,
            latencies_ms=1e3 * np.array(running.latencies_s),
            batch_sizes=np.array(running.batch_sizes, dtype=np.int64),
            n_network_calls=running.n_network_calls,
            foresight=None if running.foresight is None else running.foresight.result(),
            energies=np.array(running.energies),
        )
        self._results[running.seed] = result
        if self._on_result is not None:
            self._on_result(result)

    def _predict(self) -> None:
        """Answer all waiting episodes with one call of the policy."""
        waiting = [
            (slot, run, run.request) for slot, run in sorted(self._running.items(), key=lambda i: i[0])
        ]
        ready = [(slot, run, request) for slot, run, request in waiting if request is not None]
        if not ready:
            return
        prediction = predict(
            self._policy,
            [request for _, _, request in ready],
            [run.generator for _, run, _ in ready],
            sampler=self._sampler,
            device=self._device,
        )
        for row, ((slot, run, request), chunk) in enumerate(zip(ready, prediction.chunks, strict=True)):
            run.request = None
            if prediction.energy is not None:
                run.energies.append(float(prediction.energy[row]))
            if run.foresight is not None and prediction.frames is not None:
                run.foresight.add(request.step, prediction.frames, row)
            run.latencies_s.append(prediction.latency_s)
            run.batch_sizes.append(len(ready))
            run.n_network_calls += prediction.n_network_calls
            self._pool.advance(slot, chunk)

    def _fatal(self, reason: str) -> EpisodeOutcome:
        return EpisodeOutcome(
            actions=np.empty((0, self._policy.spec.action_dim), dtype=np.float32),
            rewards=np.empty(0),
            failure=f"the worker process died {ATTEMPTS} times in this episode ({reason})",
        )


def film_results(
    pool: EnvironmentPool, results: Sequence[EpisodeResult], folder: Path, n_envs: int
) -> dict[int, str]:
    """Film episodes into ``folder/<seed>.mp4``; return what is wrong with a video, by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    problems: dict[int, str] = {}
    home = folder.parent
    for start in range(0, len(results), n_envs):
        batch = results[start : start + n_envs]
        for slot, result in enumerate(batch):
            path = folder / f"{result.seed}.mp4"
            film = Film(
                path=path,
                seed=result.seed,
                actions=result.actions,
                rewards=result.rewards,
                watch=Watch.of(home, result.seed),
            )
            pool.film(slot, film)
        for slot, answer in pool.collect().items():
            if isinstance(answer, Lost):
                problems[batch[slot].seed] = f"the worker process died while filming ({answer.reason})"
            elif isinstance(answer, Filmed) and answer.problem:
                problems[batch[slot].seed] = answer.problem
    return problems
