r"""Draw several chunks and carry out the one that continues the running plan best.

The backward coherence of Bidirectional Decoding (Liu et al., "Bidirectional Decoding: Improving Action Chunking via
Guided Test-Time Sampling", ICLR 2025, arXiv 2408.17355): a policy that knows two ways of doing a task and draws a new
one with every chunk may never finish either. Of S candidate chunks A_s the one is kept that agrees best with what was
planned, in normalised actions, with the weights w_i that the executor gives the overlapping steps:

    s* = argmin_s  sum_i w_i | A_s,i - plan_i |^2

An executor that offers its running plan (``real_time``) is needed; the first chunk of an episode is free. The paper's
second criterion, forward contrast with a weaker policy, is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError
from robot_policies.policies.base import NetworkPolicy
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy, RunningPlan


@dataclass(frozen=True, kw_only=True)
class ResampleConfig:
    """How many chunks are drawn.

    Attributes:
        candidates: Number of chunks S drawn for each one that is carried out.
    """

    candidates: int = 16

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ConfigError(f"resample.candidates must be >= 2, got {self.candidates}")


class ResamplingPolicy(Policy):
    """Another policy, of whose chunks the most coherent one is kept; see the module docstring."""

    def __init__(self, policy: Policy, config: ResampleConfig) -> None:
        super().__init__(policy.spec)
        if not isinstance(policy, NetworkPolicy):
            raise ConfigError(
                f"{type(policy).__name__} has no normalised actions to compare chunks in; leave resample out"
            )
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
        """The policy's own: without a plan, all candidates are equal."""
        return self.policy.predict_chunk(observation, goal=goal, generator=generator, sampler=sampler)

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
        """Draw S chunks for each row and keep the closest to its plan; `samples` holds all of them."""
        n, rows = self.config.candidates, len(plan.actions)
        drawn = self.policy.predict_chunk(
            _repeated(observation, n),
            goal=None if goal is None else _repeated(goal, n),
            generator=[g for g in generator for _ in range(n)]
            if isinstance(generator, Sequence)
            else generator,
            sampler=sampler,
        )
        samples = drawn.actions.unflatten(0, (rows, n))
        normalise = self.policy.normalizer[ACTION].normalize
        apart = (normalise(samples) - normalise(plan.actions)[:, None]).square().sum(dim=-1)
        best = (apart * plan.weights[:, None]).sum(dim=-1).argmin(dim=1)
        each = torch.arange(rows, device=best.device)
        energy = None if drawn.energy is None else drawn.energy.unflatten(0, (rows, n))[each, best]
        return replace(
            drawn,
            actions=samples[each, best],
            energy=energy,
            samples=samples,
            n_network_calls=n * drawn.n_network_calls,
            predicted_frames=None,
        )


def _repeated(values: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Each row of tensors (B, ...) and of lists of B, n times in a row."""
    return {
        name: value.repeat_interleave(n, dim=0)
        if isinstance(value, Tensor)
        else [v for v in value for _ in range(n)]
        for name, value in values.items()
    }
