"""Results of an evaluation: one record per episode, kept in a file that only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_policies.evaluation.episode import EpisodeOutcome

if TYPE_CHECKING:
    from robot_sim.task import TaskSpec


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode, judged.

    Attributes:
        task: Task name.
        seed: Seed of the initial state and of the policy's noise.
        score: The task's score of this episode, in [0, 1]; 0 if it failed to finish.
        max_reward: Largest reward of the episode.
        sum_reward: Sum of rewards.
        success: Whether the task reported success at any step.
        success_step: First step with success, counted from 1; None if never.
        steps: Control steps carried out.
        wall_time_s: Time spent in the environment, without the policy [s].
        n_chunks: Chunks that the policy predicted.
        n_network_calls: Network forward passes of this episode, over all its chunks.
        policy_latency_ms: Mean wall time of the policy calls this episode took part in; a call serves a
            whole batch of environments [ms].
        failure: Empty, or why the episode did not finish, in one line.
        failure_details: Traceback of the failure.
        actions: (T, A) actions carried out; not part of the record.
        rewards: (T,) rewards; not part of the record.
    """

    task: str
    seed: int
    score: float
    max_reward: float
    sum_reward: float
    success: bool
    success_step: int | None
    steps: int
    wall_time_s: float
    n_chunks: int
    n_network_calls: int
    policy_latency_ms: float | None
    failure: str = ""
    failure_details: str = ""
    actions: np.ndarray = field(
        default_factory=lambda: np.empty((0, 0), np.float32), repr=False, compare=False
    )
    rewards: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    @classmethod
    def from_outcome(
        cls,
        outcome: EpisodeOutcome,
        *,
        seed: int,
        task: TaskSpec,
        latencies_s: Sequence[float],
        n_network_calls: int,
    ) -> EpisodeResult:
        """Judge an outcome by the task's score. An episode that failed to finish scores 0."""
        finished = not outcome.failure
        success = finished and outcome.success_step is not None
        max_reward = float(outcome.rewards.max()) if len(outcome.rewards) else 0.0
        score = max_reward if task.score == "max_reward" else float(success)
        return cls(
            task=task.name,
            seed=seed,
            score=score if finished else 0.0,
            max_reward=max_reward,
            sum_reward=float(outcome.rewards.sum()),
            success=success,
            success_step=outcome.success_step,
            steps=len(outcome.rewards),
            wall_time_s=round(outcome.wall_time_s, 4),
            n_chunks=len(latencies_s),
            n_network_calls=n_network_calls,
            policy_latency_ms=round(1e3 * float(np.mean(latencies_s)), 3) if len(latencies_s) else None,
            failure=outcome.failure,
            failure_details=outcome.failure_details,
            actions=outcome.actions,
            rewards=outcome.rewards,
        )

    def record(self) -> dict[str, Any]:
        """The JSON-ready record: every attribute but the arrays."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("actions", "rewards")}
