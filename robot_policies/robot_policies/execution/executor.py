"""Executors turn action chunks into one action per control step.

A policy predicts a chunk of T_p actions for the step it observed; an executor decides which of them are
carried out, and when the next chunk is wanted. NumPy only: the robot runs the same code as the evaluation.

With T_o = 2, T_p = 8 and T_a = 4, `RecedingHorizon` executes four steps of every chunk::

    step        -1   0    1    2    3    4    5    6    7   ...
    chunk for 0  a0  a1   a2   a3   a4   a5   a6   a7         index T_o - 1 is the action for now
    executed         a1   a2   a3   a4
    chunk for 4                     b0   b1   b2   b3   b4  ...
    executed                             b1   b2   b3   b4

A chunk names the step it was computed for, so a chunk that arrives `d` steps late (asynchronous inference)
is not a special case: its first `d` actions belong to the past. An executor that blends overlapping chunks
(`robot_policies.execution.ensemble`) wants a chunk at every step; one that continues a running plan
(`robot_policies.execution.real_time`) wants the next chunk early and offers a `Continuation` to the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robot_policies.configuration import ConfigError, Registry
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What the next chunk should agree with: the running plan, aligned with the chunk's own steps.

    Attributes:
        actions: (T_p, A) in physical units; index T_o - 1 is the action for now, as in a chunk.
        weights: (T_p,) in [0, 1]: 1 where the action has been or will be carried out whatever the new chunk
            says, 0 where the new chunk is free.
        limit: Largest gain of the guidance towards the plan.
    """

    actions: np.ndarray
    weights: np.ndarray
    limit: float


class NoActionError(RuntimeError):
    """No chunk covers the current step."""


@runtime_checkable
class ChunkExecutor(Protocol):
    """Turns chunks (T_p, A) into actions (A,), one per control step.

    The caller asks for one chunk at a time and passes every executed step through `next_action`::

        if executor.needs_chunk():
            executor.push(predict(observation), computed_for_step=executor.step)
        action = executor.next_action()

    An asynchronous caller keeps the step at which it observed, goes on calling `next_action` while the
    policy computes, and pushes with that step. Methods never block; a caller with two threads holds one lock.
    """

    @property
    def step(self) -> int:
        """Index of the control step that the next `next_action` decides; 0 after `reset`."""
        ...

    def reset(self) -> None:
        """Forget all chunks and start at step 0."""
        ...

    def needs_chunk(self) -> bool:
        """Whether a chunk computed from the observation of the current step is wanted."""
        ...

    def planned(self) -> np.ndarray:
        """What the chunks so far predict from the current step on, (N, A); empty if nothing."""
        ...

    def continuation(self) -> Continuation | None:
        """What a chunk for the current step should agree with; None leaves the policy free."""
        ...

    def check_delay(self, delay: int) -> None:
        """Raise `ConfigError` unless there is always an action if every chunk arrives `delay` steps late.

        The first chunk of an episode is waited for; it does not count.
        """
        ...

    def push(self, chunk: np.ndarray, *, computed_for_step: int) -> None:
        """Take a chunk (T_p, A) whose index T_o - 1 is the action for step `computed_for_step`.

        Raises:
            ValueError: The chunk has another shape, is not finite, is for a future step, or is too old to
                hold an action for the current step.
        """
        ...

    def next_action(self) -> np.ndarray:
        """Return the action (A,) of the current step and advance by one step.

        Raises:
            NoActionError: No chunk covers the current step.
        """
        ...


executors: Registry[ChunkExecutor] = Registry("executor")


def build_executor(config: Mapping[str, Any] | None, spec: PolicySpec) -> ChunkExecutor:
    """Build the executor that ``{"type": ..., ...}`` names for a policy; None means receding horizon.

    Raises:
        ConfigError: Unknown type or field, or a horizon that does not fit the policy's.
    """
    return executors.build(config or {"type": "receding_horizon"}, where="executor", spec=spec)


def check_chunk(chunk: np.ndarray, *, horizon: int, action_dim: int) -> np.ndarray:
    """Return `chunk` as an array; ValueError unless it is (horizon, action_dim) and finite."""
    chunk = np.asarray(chunk)
    if chunk.shape != (horizon, action_dim):
        raise ValueError(f"action chunk has shape {chunk.shape}, expected {(horizon, action_dim)}")
    if not np.isfinite(chunk).all():
        first = int(np.flatnonzero(~np.isfinite(chunk).all(axis=1))[0])
        raise ValueError(f"action chunk holds NaN or infinity, first at index {first} of {horizon}")
    return chunk


@dataclass(frozen=True, kw_only=True)
class RecedingHorizonConfig:
    """Execute `n_action_steps` of every chunk; None takes the policy's own T_a."""

    n_action_steps: int | None = None


class RecedingHorizon:
    """Executes A[T_o - 1 : T_o - 1 + T_a] of each chunk, then wants the next one."""

    def __init__(self, *, n_obs_steps: int, horizon: int, n_action_steps: int, action_dim: int) -> None:
        """Set the horizons.

        Args:
            n_obs_steps: Observation horizon T_o [steps].
            horizon: Prediction horizon T_p [steps].
            n_action_steps: Execution horizon T_a [steps], at most T_p - T_o + 1.
            action_dim: Number of action components A.

        Raises:
            ConfigError: The execution horizon does not fit into the chunk.
        """
        room = horizon - n_obs_steps + 1
        if not 1 <= n_action_steps <= room:
            raise ConfigError(
                f"executor.n_action_steps: got {n_action_steps}, expected 1 to {room} "
                f"(horizon {horizon} - n_obs_steps {n_obs_steps} + 1)"
            )
        self._now = n_obs_steps - 1
        self._horizon = horizon
        self._n_action_steps = n_action_steps
        self._action_dim = action_dim
        self.reset()

    @property
    def step(self) -> int:
        """Index of the control step that the next `next_action` decides."""
        return self._step

    def reset(self) -> None:
        """Forget the chunk and start at step 0."""
        self._step = 0
        self._chunk_step = 0
        self._chunk = np.empty((0, self._action_dim), dtype=np.float32)

    def needs_chunk(self) -> bool:
        """Whether all T_a actions of the last chunk have been executed."""
        return len(self._chunk) == 0 or self._step - self._chunk_step >= self._n_action_steps

    def planned(self) -> np.ndarray:
        """The last chunk from the current step to its end, (N, A)."""
        return self._chunk[self._now + self._step - self._chunk_step :].copy()

    def continuation(self) -> None:
        """Nothing: every chunk starts afresh."""

    def check_delay(self, delay: int) -> None:
        """Refuse any delay: there is nothing to do while the next chunk is computed."""
        if delay > 0:
            raise ConfigError(
                f"executor: receding_horizon has no action while a chunk is computed, got a delay of {delay} "
                f"steps; use executor=real_time or executor=temporal_ensemble"
            )

    def push(self, chunk: np.ndarray, *, computed_for_step: int) -> None:
        """Replace the running chunk; the part that lies before the current step is skipped."""
        chunk = check_chunk(chunk, horizon=self._horizon, action_dim=self._action_dim)
        delay = self._step - computed_for_step
        if not 0 <= delay < self._n_action_steps:
            raise ValueError(
                f"a chunk computed for step {computed_for_step} covers steps {computed_for_step} to "
                f"{computed_for_step + self._n_action_steps - 1}, but the current step is {self._step}"
            )
        self._chunk = chunk.copy()
        self._chunk_step = computed_for_step

    def next_action(self) -> np.ndarray:
        """Return the action (A,) of the current step and advance."""
        if self.needs_chunk():
            raise NoActionError(f"no chunk covers step {self._step}; push one first")
        action = self._chunk[self._now + self._step - self._chunk_step].copy()
        self._step += 1
        return action


@executors.register("receding_horizon", RecedingHorizonConfig)
def build_receding_horizon(config: RecedingHorizonConfig, *, spec: PolicySpec) -> RecedingHorizon:
    """Build a `RecedingHorizon` with the policy's horizons."""
    return RecedingHorizon(
        n_obs_steps=spec.n_obs_steps,
        horizon=spec.horizon,
        n_action_steps=spec.n_action_steps if config.n_action_steps is None else config.n_action_steps,
        action_dim=spec.action_dim,
    )
