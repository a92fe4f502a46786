"""One episode in one environment: observe, ask for a chunk, carry it out, until the episode ends.

The runner never calls the policy. It runs until its executor wants a chunk and hands back a `ChunkRequest`,
so that the caller can answer many environments with one batch.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_policies.evaluation.observation_history import ObservationHistory, goal_of
from robot_policies.execution.executor import ChunkExecutor, Continuation

if TYPE_CHECKING:
    from robot_policies.spec import PolicySpec
    from robot_sim.task import TaskEnv


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """An episode waits for a chunk.

    Attributes:
        step: Control step that the chunk is for.
        observation: The last T_o observations, per feature (T_o, ...).
        continuation: What the chunk has to agree with; None if it is free.
        goal: What the policy is to reach: features (G, ...), and the instruction under ``"task"``.
    """

    step: int
    observation: dict[str, np.ndarray]
    continuation: Continuation | None = None
    goal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpisodeOutcome:
    """What happened in one episode.

    Attributes:
        actions: (T, A) actions carried out, physical units.
        rewards: (T,) rewards.
        success_step: First step (counted from 1) after which the task reported success; None if never.
        wall_time_s: Time spent in the environment and the executor, without waiting for the policy [s].
        failure: Empty, or why the episode could not be finished, in one line.
        failure_details: Traceback of `failure`, if there is one.
    """

    actions: np.ndarray
    rewards: np.ndarray
    success_step: int | None = None
    wall_time_s: float = 0.0
    failure: str = ""
    failure_details: str = ""


def describe_error(error: BaseException) -> str:
    """One line: the exception's type, first line of text, and where it was raised."""
    text = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text[0] if text else 'no message'}{where}"


@dataclass
class _Progress:
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    success_step: int | None = None
    wall_time_s: float = 0.0


class EpisodeRunner:
    """Runs episodes in one environment, one after the other.

    With an inference delay of d steps, the environment goes on for d steps between the observation that a chunk
    is computed from and the step at which the executor is given it, as on a robot that cannot wait::

        step         0    1    2    3    4    5    6        d = 2
        asked        0                   4                  needs_chunk(): the request holds the observation of now
        given        0                             6        only the first chunk is waited for
    """

    def __init__(
        self, env: TaskEnv, spec: PolicySpec, executor: ChunkExecutor, *, inference_delay: int = 0
    ) -> None:
        self._env = env
        self._executor = executor
        self._spec = spec
        self._history = ObservationHistory(spec)
        self._goal: dict[str, Any] = {}
        self._max_steps = env.task_spec.max_steps
        self._ends_with_success = env.task_spec.score == "success"
        self._inference_delay = inference_delay
        self._pending: tuple[int, np.ndarray] | None = None
        self._progress = _Progress()
        self._running_since = 0.0

    def start(self, seed: int) -> ChunkRequest | EpisodeOutcome:
        """Reset to the episode that `seed` names and run until it wants a chunk or ends."""
        self._progress = _Progress()
        self._running_since = time.perf_counter()
        observation, _ = self._env.reset(seed=seed)
        self._history.reset(observation)
        self._goal = goal_of(self._spec, self._env.goal(), self._env.instruction)
        self._executor.reset()
        self._pending = None
        return self._run_to_request()

    def advance(self, chunk: np.ndarray) -> ChunkRequest | EpisodeOutcome:
        """Take the chunk (T_p, A) that was asked for and run until the next request or the end."""
        self._running_since = time.perf_counter()
        self._pending = (self._executor.step, chunk)
        return self._run_to_request()

    def outcome(self, *, failure: str = "", failure_details: str = "") -> EpisodeOutcome:
        """What has happened in the episode so far."""
        progress = self._progress
        return EpisodeOutcome(
            actions=np.array(progress.actions, dtype=np.float32).reshape(-1, self._spec.action_dim),
            rewards=np.array(progress.rewards, dtype=np.float64),
            success_step=progress.success_step,
            wall_time_s=progress.wall_time_s + time.perf_counter() - self._running_since,
            failure=failure,
            failure_details=failure_details,
        )

    def _run_to_request(self) -> ChunkRequest | EpisodeOutcome:
        self._push_if_due()
        while self._pending is not None or not self._executor.needs_chunk():
            action = self._executor.next_action()
            observation, reward, terminated, truncated, info = self._env.step(action)
            ended = self._note(action, float(reward), info)
            if terminated or truncated or ended:
                return self.outcome()
            self._history.append(observation)
            self._push_if_due()
        self._progress.wall_time_s += time.perf_counter() - self._running_since
        return ChunkRequest(
            step=self._executor.step,
            observation=self._history.window(),
            continuation=self._executor.continuation(),
            goal=self._goal,
        )

    def _push_if_due(self) -> None:
        """Hand the chunk that is under way to the executor once its delay is over."""
        if self._pending is None:
            return
        asked, chunk = self._pending
        if asked == 0 or self._executor.step - asked >= self._inference_delay:
            self._pending = None
            self._executor.push(chunk, computed_for_step=asked)

    def _note(self, action: np.ndarray, reward: float, info: Mapping[str, Any]) -> bool:
        """Record one step; return whether the episode is over by its own rules."""
        progress = self._progress
        progress.actions.append(action)
        progress.rewards.append(reward)
        if not np.isfinite(reward):
            raise ValueError(f"the task returned the reward {reward} at step {len(progress.rewards)}")
        if info["is_success"] and progress.success_step is None:
            progress.success_step = len(progress.rewards)
        # Under the score "success" nothing after the first success can change the result.
        decided = self._ends_with_success and progress.success_step is not None
        return decided or len(progress.rewards) >= self._max_steps
