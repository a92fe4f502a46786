"""Policies in many parallel futures of a twin: one state, or one start per future, and what becomes of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from robot_policies.evaluation.episode import ChunkRequest
from robot_policies.evaluation.inference import episode_generator, predict
from robot_policies.evaluation.observation_history import ObservationHistory, goal_of
from robot_policies.execution.executor import ChunkExecutor
from robot_policies.policy import Policy
from robot_sim.twin.parallel import ParallelCell

Observations = Mapping[str, np.ndarray]


class BatchPolicy(Protocol):
    """A policy for N futures at once, one step at a time."""

    def reset(self, n: int) -> None:
        """Begin N episodes."""
        ...

    def act(self, observations: Observations) -> np.ndarray:
        """Return actions (N, A) for observations (N, ...) of the task."""
        ...


class EachByItself:
    """N single policies as one, e.g. scripted ones.

    Args:
        make: Builds the policy of future i; it has ``reset()`` and ``act(observation)``.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def reset(self, n: int) -> None:
        """Build N fresh policies."""
        self._policies = [self._make(index) for index in range(n)]

    def act(self, observations: Observations) -> np.ndarray:
        """Ask each."""
        return np.stack(
            [
                policy.act({name: value[row] for name, value in observations.items()})
                for row, policy in enumerate(self._policies)
            ]
        )


class ChunkedPolicy:
    """A trained policy with an executor per future; chunks are predicted in one batch.

    Args:
        policy: The policy.
        executor: A fresh executor, copied for each future.
        goal: What the task says of its goal, one time step.
        instruction: The task in words.
        sampler: Replaces the policy's sampler.
        seed: Of the policy's noise.
    """

    def __init__(
        self,
        policy: Policy,
        executor: ChunkExecutor,
        *,
        goal: Observations | None = None,
        instruction: str = "",
        sampler: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self._policy, self._executor, self._sampler, self._seed = policy, executor, sampler, seed
        self._goal = goal_of(policy.spec, goal or {}, instruction)
        policy.eval()

    def reset(self, n: int) -> None:
        """Begin N episodes."""
        self._histories = [ObservationHistory(self._policy.spec) for _ in range(n)]
        self._executors = [copy.deepcopy(self._executor) for _ in range(n)]
        for executor in self._executors:
            executor.reset()
        self._generators = [episode_generator(index, self._seed) for index in range(n)]
        self._first = True

    def act(self, observations: Observations) -> np.ndarray:
        """Return the next action of each future; predicts where an executor wants a chunk."""
        for row, history in enumerate(self._histories):
            observation = {name: value[row] for name, value in observations.items()}
            (history.reset if self._first else history.append)(observation)
        self._first = False
        wanting = [row for row, executor in enumerate(self._executors) if executor.needs_chunk()]
        if wanting:
            requests = [
                ChunkRequest(
                    step=self._executors[row].step,
                    observation=self._histories[row].window(),
                    continuation=self._executors[row].continuation(),
                    goal=self._goal,
                )
                for row in wanting
            ]
            generators = [self._generators[row] for row in wanting]
            chunks = predict(
                self._policy, requests, generators, sampler=self._sampler, device=torch.device("cpu")
            ).chunks
            for row, chunk in zip(wanting, chunks, strict=True):
                self._executors[row].push(chunk, computed_for_step=self._executors[row].step)
        return np.stack([executor.next_action() for executor in self._executors])


@dataclass(frozen=True, kw_only=True, eq=False)
class Futures:
    """What became of N futures.

    Attributes:
        success: (N,) bool: the goal was reached at some step.
        steps: (N,) policy steps until then, or all of them.
        best_reward: (N,) largest reward of any step.
    """

    success: np.ndarray
    steps: np.ndarray
    best_reward: np.ndarray


def play_futures(cell: ParallelCell, policy: BatchPolicy, *, steps: int) -> Futures:
    """Let a policy act in copies of a twin, from the states they are in, until success or for so many steps.

    A future whose physics becomes unstable counts as a failure.
    """
    n = cell.n_envs
    policy.reset(n)
    success, taken, best = np.zeros(n, dtype=bool), np.full(n, steps), np.full(n, -np.inf)
    for step in range(steps):
        cell.step(policy.act(cell.observe()), active=~success)
        outcome = cell.outcome()
        best = np.where(success, best, np.maximum(best, outcome.reward))
        fresh = outcome.success & ~success & ~outcome.diverged
        taken[fresh] = step + 1
        success |= fresh
        if success.all():
            break
    return Futures(success=success, steps=taken, best_reward=best)


def ranked(results: Mapping[str, Futures]) -> Sequence[tuple[str, Futures]]:
    """Return policies, best first: by success, then by mean best reward."""
    return sorted(results.items(), key=lambda entry: (-entry[1].success.mean(), -entry[1].best_reward.mean()))
