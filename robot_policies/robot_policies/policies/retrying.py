"""Try again when a policy is unsure: another draw for the rows whose chunk has a high energy.

For policies that return an energy with every chunk (EBT-Policy, implicit BC). A row whose energy is above a
threshold is predicted again with fresh noise, up to so many times, and the chunk of the lowest energy is kept.
What energy is high is a matter of the task: evaluations record that of every chunk (``energies`` in
``trajectories/<seed>.npz``), of which a high quantile makes a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy, RunningPlan


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """When and how often to try again.

    Attributes:
        energy_above: Threshold.
        attempts: Largest number of further draws.
    """

    energy_above: float
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"retry.attempts must be >= 1, got {self.attempts}")


class RetryingPolicy(Policy):
    """Another policy, asked again where its energy is high; see the module docstring."""

    def __init__(self, policy: Policy, config: RetryConfig) -> None:
        super().__init__(policy.spec)
        self.policy, self.config = policy, config

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        """The policy's own."""
        return self.policy.compute_loss(batch)

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict, and again where the energy is high; `n_network_calls` counts all of it."""

        def draw(rows: Tensor | None) -> ActionChunk:
            return self.policy.predict_chunk(
                _rows(observation, rows) or {},
                goal=_rows(goal, rows),
                generator=_generators(generator, rows),
                sampler=sampler,
            )

        return self._best(draw)

    @torch.no_grad()
    def continue_chunk(
        self,
        observation: Mapping[str, Tensor],
        plan: RunningPlan,
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """The same for a chunk that continues a plan."""

        def draw(rows: Tensor | None) -> ActionChunk:
            same = plan
            if rows is not None:
                same = replace(plan, actions=plan.actions[rows], weights=plan.weights[rows])
            return self.policy.continue_chunk(
                _rows(observation, rows) or {},
                same,
                goal=_rows(goal, rows),
                generator=_generators(generator, rows),
                sampler=sampler,
            )

        return self._best(draw)

    def _best(self, draw: Callable[[Tensor | None], ActionChunk]) -> ActionChunk:
        chunk = draw(None)
        if chunk.energy is None:
            raise ConfigError(
                f"{type(self.policy).__name__} returns no energy, so there is nothing to retry on; leave retry out"
            )
        actions, energy, calls = chunk.actions.clone(), chunk.energy.clone(), chunk.n_network_calls
        for _ in range(self.config.attempts):
            rows = torch.nonzero(energy > self.config.energy_above).flatten()
            if len(rows) == 0:
                break
            again = draw(rows)
            assert again.energy is not None
            calls += again.n_network_calls
            lower = again.energy < energy[rows]
            actions[rows[lower]], energy[rows[lower]] = again.actions[lower], again.energy[lower]
        return replace(chunk, actions=actions, energy=energy, n_network_calls=calls)


def _rows(values: Mapping[str, Any] | None, rows: Tensor | None) -> dict[str, Any] | None:
    """Some rows of tensors (B, ...) and of lists of B."""
    if values is None or rows is None:
        return None if values is None else dict(values)
    return {
        name: value[rows] if isinstance(value, Tensor) else [value[i] for i in rows.tolist()]
        for name, value in values.items()
    }


def _generators(generator: Generators, rows: Tensor | None) -> Generators:
    if rows is None or not isinstance(generator, Sequence):
        return generator
    return [generator[i] for i in rows.tolist()]
