"""Policies that can continue a running plan, for real-time chunking."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.denoising.guidance import Guidance
from robot_policies.policies.base import NetworkPolicy
from robot_policies.policy import ActionChunk, Generators, RunningPlan


class GuidedPolicy(NetworkPolicy):
    """A policy whose sampler can be guided towards given actions; see `robot_policies.denoising.guidance`."""

    @abstractmethod
    def predict_encoded(
        self,
        encoded: Tensor,
        *,
        generator: Generators,
        sampler: Mapping[str, Any] | None,
        guidance: Guidance | None = None,
    ) -> ActionChunk:
        """Predict a chunk that agrees with `guidance` (B, T_p, A), if there is any."""

    def continue_chunk(
        self,
        observation: Mapping[str, Tensor],
        plan: RunningPlan,
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict a chunk that agrees with a plan; see `Policy.continue_chunk`."""
        # Guidance differentiates, which tensors of inference mode do not allow.
        with torch.inference_mode(False), torch.no_grad():
            guidance = Guidance(
                target=self.normalizer[ACTION].normalize(plan.actions.clone()),
                weights=plan.weights.clone()[..., None],
                limit=plan.limit,
            )
            encoded = self.encode_checked(_cloned(observation), None if goal is None else _cloned(goal))
            return self.predict_encoded(encoded, generator=generator, sampler=sampler, guidance=guidance)


def _cloned(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v.clone() if isinstance(v, Tensor) else v for name, v in values.items()}
