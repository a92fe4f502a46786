r"""Temporal ensembling: a chunk at every step, and the mean of what all chunks say about the present one.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT), RSS 2023
(arXiv 2304.13705). With T_o = 1 and T_p = 4::

    step         0    1    2    3    4
    chunk for 0  a0   a1   a2   a3
    chunk for 1       b0   b1   b2   b3
    chunk for 2            c0   c1   c2  ...
    chunk for 3                 d0   d1  ...
    executed     a0   a,b  a,b,c  a,b,c,d         weights exp(-decay i), i = 0 for the oldest, made to sum to 1

A positive `decay` therefore trusts old predictions more and reacts more slowly, 0 is the plain mean, and a
negative one prefers the newest. The mean is taken component by component, in the action's own coordinates: it
is meant for positions, velocities and rot6d. Angles that wrap and quaternions that change sign between two
chunks do not average to anything; gripper commands between two states average to a half-closed gripper.

The original code marks a prediction as absent where all its components are 0, which a real action can be; here
presence is a matter of steps. It also asks for a chunk at every step and waits for it; here chunks may be late
or missing, and the mean is over those that are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_policies.configuration import ConfigError
from robot_policies.execution.executor import NoActionError, check_chunk, executors
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class TemporalEnsembleConfig:
    """Options of a `TemporalEnsemble`; `decay` is ACT's m [1/step]."""

    decay: float = 0.01


class TemporalEnsemble:
    """Executes the weighted mean of all chunks that cover the current step."""

    def __init__(self, config: TemporalEnsembleConfig, spec: PolicySpec) -> None:
        self._decay = config.decay
        self._now, self._horizon, self._action_dim = spec.n_obs_steps - 1, spec.horizon, spec.action_dim
        self._room = spec.horizon - self._now
        self.reset()

    @property
    def step(self) -> int:
        """Index of the control step that the next `next_action` decides."""
        return self._step

    def reset(self) -> None:
        """Forget all chunks and start at step 0."""
        self._step = 0
        self._chunks: dict[int, np.ndarray] = {}  # by the step it was computed for, oldest first

    def needs_chunk(self) -> bool:
        """Whether there is no chunk for the current step yet."""
        return self._step not in self._chunks

    def planned(self) -> np.ndarray:
        """The mean for the current step and for those after it that any chunk reaches, (N, A)."""
        last = max((start + self._room for start in self._chunks), default=self._step)
        means = [self._mean(step) for step in range(self._step, last)]
        return np.array([mean for mean in means if mean is not None]).reshape(-1, self._action_dim)

    def continuation(self) -> None:
        """Nothing: chunks agree by being averaged."""

    def check_delay(self, delay: int) -> None:
        """Raise `ConfigError` if chunks end before the next but one is there."""
        if delay + max(delay, 1) > self._room:
            raise ConfigError(
                f"executor: with a delay of {delay} steps a chunk has to last {2 * delay} steps, but chunks have "
                f"{self._room} from now on; raise the policy's horizon"
            )

    def push(self, chunk: np.ndarray, *, computed_for_step: int) -> None:
        """Take a chunk (T_p, A); see `robot_policies.execution.executor.ChunkExecutor.push`."""
        chunk = check_chunk(chunk, horizon=self._horizon, action_dim=self._action_dim)
        if not 0 <= self._step - computed_for_step < self._room:
            raise ValueError(
                f"a chunk computed for step {computed_for_step} covers steps {computed_for_step} to "
                f"{computed_for_step + self._room - 1}, but the current step is {self._step}"
            )
        self._chunks[computed_for_step] = chunk[self._now :].copy()
        self._chunks = dict(sorted(self._chunks.items()))

    def next_action(self) -> np.ndarray:
        """Return the mean action (A,) of the current step and advance."""
        mean = self._mean(self._step)
        if mean is None:
            raise NoActionError(f"no chunk covers step {self._step}; push one first")
        self._step += 1
        self._chunks = {start: c for start, c in self._chunks.items() if start + self._room > self._step}
        return mean

    def _mean(self, step: int) -> np.ndarray | None:
        starts = np.array([start for start in self._chunks if start <= step < start + self._room])
        if len(starts) == 0:
            return None
        votes = np.stack([self._chunks[start][step - start] for start in starts])
        # The exponent is shifted so that the largest weight is 1, whatever the sign of the decay.
        exponent = -self._decay * (starts - starts[0])
        weights = np.exp(exponent - exponent.max())
        return ((weights / weights.sum())[:, None] * votes).sum(axis=0).astype(votes.dtype)


@executors.register("temporal_ensemble", TemporalEnsembleConfig)
def build_temporal_ensemble(config: TemporalEnsembleConfig, *, spec: PolicySpec) -> TemporalEnsemble:
    """Build a `TemporalEnsemble` with the policy's horizons."""
    return TemporalEnsemble(config, spec)
