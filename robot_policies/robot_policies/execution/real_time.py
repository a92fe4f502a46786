r"""Real-time chunking: compute the next chunk while the current one is executed, and join the two smoothly.

Black, Galliker and Levine, "Real-Time Execution of Action Chunking Flow Policies", NeurIPS 2025
(arXiv 2506.07339). With T_o = 1, T_p = 10, a request every s = `n_action_steps` = 4 steps, and an inference that
takes d = 2 of them::

    step          0    1    2    3    4    5    6    7    8    9    10 ...
    chunk for 0   a0   a1   a2   a3   a4   a5   a6   a7   a8   a9
    chunk for 4                       b0   b1   b2   b3   b4   b5   b6 ...
    executed      a0   a1   a2   a3   a4   a5   b2   b3   b4   b5      b is asked for at 4, and there at 6
    weights of b                      1    1    .57  .29  .11  .03  0  agreement of b with a, exponential mask

While b is computed, a4 and a5 are carried out in any case: b has to agree with them (weight 1, "frozen"). After
them it should, less and less, so that it does not jump to another way of doing the task; beyond a's end it is
free. With N planned steps left, the weight of step i is 1 for i < d and c (e^c - 1) / (e - 1) with
c = (N - i) / (N - d + 1) after it. How a policy is made to agree: `robot_policies.denoising.guidance`.

The delay is not configured but measured: a chunk says for which step it was computed, and `push` sees at which
step it arrives. As in the paper, d is the largest of the last few delays. Actions before now, which a policy
with T_o > 1 predicts too, have weight 1: they have happened.

``continuation: none`` is naive asynchronous execution: the same bookkeeping, but chunks know nothing of each
other.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_policies.configuration import ConfigError
from robot_policies.execution.executor import Continuation, NoActionError, check_chunk, executors
from robot_policies.spec import PolicySpec

Mask = Literal["exponential", "linear", "hard"]


@dataclass(frozen=True, kw_only=True)
class RealTimeConfig:
    """Options of a `RealTime`.

    Attributes:
        n_action_steps: s, steps from one request to the next; None takes the policy's T_a.
        continuation: ``guided``: new chunks have to agree with the running one; ``none``: they are free.
        mask: Weights after the frozen steps: ``exponential`` (the paper's), ``linear``, or ``hard`` for 0.
        limit: Largest gain of the guidance, the paper's beta.
        expected_delay: Delay assumed before the first one is measured [steps].
        delay_window: The largest of so many measured delays is expected next.
    """

    n_action_steps: int | None = None
    continuation: Literal["guided", "none"] = "guided"
    mask: Mask = "exponential"
    limit: float = 5.0
    expected_delay: int = 0
    delay_window: int = 10

    def __post_init__(self) -> None:
        if self.limit <= 0 or self.expected_delay < 0 or self.delay_window < 1:
            raise ConfigError(
                "executor needs limit > 0, expected_delay >= 0 and delay_window >= 1, got "
                f"{self.limit}, {self.expected_delay} and {self.delay_window}"
            )


def agreement(n_planned: int, n_frozen: int, mask: Mask) -> np.ndarray:
    """Weights (n_planned,) of a running plan's steps from now on; see the module docstring."""
    i = np.arange(n_planned)
    if mask == "hard":
        return (i < n_frozen).astype(np.float64)
    c = np.minimum((n_planned - i) / max(n_planned - n_frozen + 1, 1), 1.0)
    fading = c if mask == "linear" else c * np.expm1(c) / math.expm1(1.0)
    return np.where(i < n_frozen, 1.0, fading)


class RealTime:
    """Asks for the next chunk every s steps and goes on with the current one until it is there."""

    def __init__(self, config: RealTimeConfig, spec: PolicySpec) -> None:
        self._config = config
        self._now, self._horizon, self._action_dim = spec.n_obs_steps - 1, spec.horizon, spec.action_dim
        self._room = spec.horizon - self._now
        self._every = spec.n_action_steps if config.n_action_steps is None else config.n_action_steps
        if not 1 <= self._every <= self._room:
            raise ConfigError(
                f"executor.n_action_steps: got {self._every}, expected 1 to {self._room} "
                f"(horizon {spec.horizon} - n_obs_steps {spec.n_obs_steps} + 1)"
            )
        self.reset()

    @property
    def step(self) -> int:
        """Index of the control step that the next `next_action` decides."""
        return self._step

    @property
    def expected_delay(self) -> int:
        """How late the next chunk is expected to be [steps]."""
        return max(self._delays)

    def reset(self) -> None:
        """Forget the chunk and the measured delays, and start at step 0."""
        self._delays = deque([self._config.expected_delay], maxlen=self._config.delay_window)
        self._step = 0
        self._chunk_step = 0
        self._chunk = np.empty((0, self._action_dim), dtype=np.float32)
        self._done: deque[np.ndarray] = deque(maxlen=self._now)

    def needs_chunk(self) -> bool:
        """Whether s steps have passed since the running chunk's observation, or nothing is planned."""
        return len(self.planned()) == 0 or self._step - self._chunk_step >= self._every

    def planned(self) -> np.ndarray:
        """The running chunk from the current step to its end, (N, A)."""
        return self._chunk[self._now + self._step - self._chunk_step :].copy()

    def continuation(self) -> Continuation | None:
        """The running plan with its weights; None if nothing is planned, or if chunks are to be free."""
        plan = self.planned()
        if self._config.continuation == "none" or len(plan) == 0:
            return None
        actions = np.zeros((self._horizon, self._action_dim), dtype=np.float32)
        weights = np.zeros(self._horizon, dtype=np.float32)
        past = np.array(self._done).reshape(-1, self._action_dim)
        actions[self._now - len(past) : self._now], weights[self._now - len(past) : self._now] = past, 1.0
        end = self._now + len(plan)
        actions[self._now : end] = plan
        weights[self._now : end] = agreement(len(plan), self.expected_delay, self._config.mask)
        return Continuation(actions=actions, weights=weights, limit=self._config.limit)

    def check_delay(self, delay: int) -> None:
        """Raise `ConfigError` if a chunk ends before the next one is there."""
        needed = max(self._every, delay) + delay
        if needed > self._room:
            raise ConfigError(
                f"executor: a chunk every {self._every} steps that is {delay} steps late has to last {needed} "
                f"steps, but chunks have {self._room} from now on; lower executor.n_action_steps, or raise the "
                f"policy's horizon"
            )

    def push(self, chunk: np.ndarray, *, computed_for_step: int) -> None:
        """Replace the running chunk, from the current step on."""
        chunk = check_chunk(chunk, horizon=self._horizon, action_dim=self._action_dim)
        delay = self._step - computed_for_step
        if not 0 <= delay < self._room:
            raise ValueError(
                f"a chunk computed for step {computed_for_step} covers steps {computed_for_step} to "
                f"{computed_for_step + self._room - 1}, but the current step is {self._step}"
            )
        if len(self._chunk):  # the first chunk is waited for, which says nothing about the next
            self._delays.append(delay)
        self._chunk = chunk.copy()
        self._chunk_step = computed_for_step

    def next_action(self) -> np.ndarray:
        """Return the action (A,) of the current step and advance."""
        index = self._now + self._step - self._chunk_step
        if index >= len(self._chunk):
            raise NoActionError(f"no chunk covers step {self._step}; push one first")
        action = self._chunk[index].copy()
        self._done.append(action.copy())
        self._step += 1
        return action


@executors.register("real_time", RealTimeConfig)
def build_real_time(config: RealTimeConfig, *, spec: PolicySpec) -> RealTime:
    """Build a `RealTime` with the policy's horizons."""
    return RealTime(config, spec)
