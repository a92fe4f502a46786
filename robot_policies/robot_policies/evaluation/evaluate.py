"""The rollout loop: many environments, one policy, one result per seed.

A seed owns its episode: the initial state, everything that follows in the environment, and the policy's
noise. Results therefore do not depend on the number of workers, and depend on the number of environments
(the size of inference batches) only through floating-point rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.environments import (
    EnvironmentPool,
    LocalPool,
    Lost,
    RegisteredTask,
    RolloutPlan,
)
from robot_policies.evaluation.episode import ChunkRequest, EpisodeOutcome
from robot_policies.evaluation.inference import episode_generator, predict
from robot_policies.evaluation.results import EpisodeResult
from robot_policies.evaluation.workers import ProcessPool
from robot_policies.execution.executor import build_executor
from robot_policies.policy import Policy

if TYPE_CHECKING:
    from robot_sim.task import TaskEnv

ENVIRONMENTS_DEFAULT = 16
# A worker may be killed from outside (out of memory), so an episode gets a second chance before it is
# recorded as the one that kills its worker.
ATTEMPTS = 2


@dataclass
class _Running:
    """An episode in progress, seen from the policy's side."""

    seed: int
    generator: torch.Generator
    request: ChunkRequest | None = None
    latencies_s: list[float] = field(default_factory=list)
    n_network_calls: int = 0


def evaluate_policy(
    policy: Policy,
    task: str | Callable[[], TaskEnv],
    seeds: Sequence[int],
    *,
    task_options: Mapping[str, Any] | None = None,
    workers: int = 2,
    n_envs: int | None = None,
    executor: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    policy_seed: int = 0,
    timeout_s: float = 300.0,
    on_result: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Roll out a policy on one episode per seed.

    Args:
        policy: The policy; it is moved to `device` and put into evaluation mode for the duration.
        task: Name of a registered task, or a module-level callable that builds the environment.
        seeds: Episode seeds.
        task_options: Options of the registered task.
        workers: Processes for the environments; 0 runs them in this process.
        n_envs: Environments that run side by side, which is the largest inference batch; by default 16.
        executor: Executor, ``{"type": ...}``; None executes the policy's own T_a steps of each chunk.
        sampler: Replaces the policy's sampler, e.g. ``{"type": "ddim", "steps": 8}``.
        device: Where the policy computes.
        policy_seed: Another value repeats the same initial states with other policy noise.
        timeout_s: A worker silent for so long on one command is killed and its episode retried [s].
        on_result: Called with each result as soon as its episode ends, in the order of completion.

    Returns:
        One result per seed, in the order of `seeds`. An episode that raised is a result with `failure`.

    Raises:
        SpecError: The task does not offer what the policy reads and writes.
        ConfigError: No seeds, a seed twice, or an executor that does not fit.
    """
    _check_seeds(seeds)
    build_executor(executor, policy.spec)  # a bad configuration fails here, before any process starts
    make_env = RegisteredTask(name=task, options=dict(task_options or {})) if isinstance(task, str) else task
    plan = RolloutPlan(make_env=make_env, spec=policy.spec, executor=executor)
    n_envs = min(len(seeds), n_envs or ENVIRONMENTS_DEFAULT)
    with (
        _open_pool(plan, workers=min(workers, n_envs), timeout_s=timeout_s) as pool,
        _evaluating(policy, device),
    ):
        spec = pool.task_spec
        policy.spec.require(spec.features, fps=spec.fps, who=f"task '{spec.name}'")
        rollout = _Rollout(pool, policy, sampler, torch.device(device), policy_seed, on_result)
        results = rollout.run(seeds, n_envs)
    return [results[seed] for seed in seeds]


class _Rollout:
    """Drives a pool in rounds until every seed has its result."""

    def __init__(
        self,
        pool: EnvironmentPool,
        policy: Policy,
        sampler: Mapping[str, Any] | None,
        device: torch.device,
        policy_seed: int,
        on_result: Callable[[EpisodeResult], None] | None,
    ) -> None:
        self._pool = pool
        self._policy = policy
        self._sampler = sampler
        self._device = device
        self._policy_seed = policy_seed
        self._on_result = on_result
        self._queue: deque[int] = deque()
        self._running: dict[int, _Running] = {}
        self._attempts: dict[int, int] = {}
        self._results: dict[int, EpisodeResult] = {}

    def run(self, seeds: Sequence[int], n_envs: int) -> dict[int, EpisodeResult]:
        """Run one episode per seed, `n_envs` at a time."""
        self._queue.extend(seeds)
        for slot in range(n_envs):
            self._start_next(slot)
        while self._running:
            for slot, answer in self._pool.collect().items():
                self._take(slot, answer)
            self._predict()
        return self._results

    def _start_next(self, slot: int) -> None:
        self._running.pop(slot, None)
        if self._queue:
            seed = self._queue.popleft()
            generator = episode_generator(seed, self._policy_seed)
            self._running[slot] = _Running(seed=seed, generator=generator)
            self._pool.start(slot, seed)

    def _take(self, slot: int, answer: ChunkRequest | EpisodeOutcome | Lost) -> None:
        running = self._running[slot]
        if isinstance(answer, ChunkRequest):
            running.request = answer
            return
        if isinstance(answer, Lost):
            seed = running.seed
            self._attempts[seed] = self._attempts.get(seed, 0) + answer.culprit
            if self._attempts[seed] < ATTEMPTS:
                self._queue.appendleft(seed)
                self._start_next(slot)
                return
            answer = _killer(answer.reason, self._policy.spec.action_dim)
        self._finish(running, answer)
        self._start_next(slot)

    def _finish(self, running: _Running, outcome: EpisodeOutcome) -> None:
        result = EpisodeResult.from_outcome(
            outcome,
            seed=running.seed,
            task=self._pool.task_spec,
            latencies_s=running.latencies_s,
            n_network_calls=running.n_network_calls,
        )
        self._results[running.seed] = result
        if self._on_result is not None:
            self._on_result(result)

    def _predict(self) -> None:
        """Answer all waiting episodes with one call of the policy."""
        waiting = [(slot, run) for slot, run in sorted(self._running.items()) if run.request is not None]
        if not waiting:
            return
        requests = [run.request for _, run in waiting if run.request is not None]
        generators = [run.generator for _, run in waiting]
        prediction = predict(self._policy, requests, generators, sampler=self._sampler, device=self._device)
        for (slot, run), chunk in zip(waiting, prediction.chunks, strict=True):
            run.request = None
            run.latencies_s.append(prediction.latency_s)
            run.n_network_calls += prediction.n_network_calls
            self._pool.advance(slot, chunk)


def _killer(reason: str, action_dim: int) -> EpisodeOutcome:
    return EpisodeOutcome(
        actions=np.empty((0, action_dim), dtype=np.float32),
        rewards=np.empty(0),
        failure=f"the worker process died {ATTEMPTS} times in this episode ({reason})",
    )


def _check_seeds(seeds: Sequence[int]) -> None:
    if len(seeds) == 0:
        raise ConfigError("no seeds to evaluate on: got 0 episodes, expected at least 1; set episodes")
    if len(set(seeds)) != len(seeds):
        twice = sorted(seed for seed in set(seeds) if list(seeds).count(seed) > 1)
        raise ConfigError(f"seeds must differ, but {twice[0]} is given twice; every episode needs its own")
    if min(seeds) < 0:
        raise ConfigError(f"seeds must be >= 0, got {min(seeds)}")


@contextmanager
def _open_pool(plan: RolloutPlan, *, workers: int, timeout_s: float) -> Iterator[EnvironmentPool]:
    pool: EnvironmentPool = (
        LocalPool(plan) if workers == 0 else ProcessPool(plan, workers=workers, timeout_s=timeout_s)
    )
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def _evaluating(policy: Policy, device: str | torch.device) -> Iterator[None]:
    """Put the policy into evaluation mode on a device; training mode comes back afterwards."""
    was_training = policy.training
    policy.to(device).eval()
    try:
        yield
    finally:
        policy.train(was_training)
