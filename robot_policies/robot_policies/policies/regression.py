r"""Regression controls: behavior cloning of a chunk, and the minimal iterative policy (MIP).

No claim about a generative policy means much without these beside it. With A a normalised chunk, O the
encoded observations, n standard normal noise and f a denoising network:

    behavior cloning   loss = |f(O, 0, 0) - A|^2                       act: f(O, 0, 0)
    MIP                + |f(O, t A + (1 - t) n, t) - A|^2,  t = 0.9    act: A0 = f(O, 0, 0), then f(O, t A0, t)

MIP is from Pan et al., "Much Ado About Noising", ICLR 2026 (arXiv 2512.01809); its released code divides the
two terms by t and 1 - t, which only weights them and is left out here. Both are deterministic. The time
window is drawn in `robot_policies.spec.PolicySpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError
from robot_policies.normalizer import Stats
from robot_policies.policies.base import NetworkPolicy, NetworkPolicyConfig
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class RegressionPolicyConfig(NetworkPolicyConfig):
    """Options of a `RegressionPolicy`.

    Attributes:
        refine_at: t of MIP's second step, in (0, 1); null is plain behavior cloning.
        sampler: Not used; accepted because every training configuration has one.
    """

    refine_at: float | None = None
    sampler: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.refine_at is not None and not 0 < self.refine_at < 1:
            raise ConfigError(f"policy.refine_at must be in (0, 1) or null, got {self.refine_at}")


class RegressionPolicy(NetworkPolicy):
    """A network that regresses the chunk in one step, or in two (MIP)."""

    def __init__(self, config: RegressionPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config

    def _predict(self, x: Tensor, t: float, encoded: Tensor) -> Tensor:
        time = torch.full((len(x),), 100.0 * t, device=x.device)  # embeddings expect tens of units
        return self.network(x, time, encoded)

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the regression loss; see the module docstring."""
        actions = self.normalized_actions(batch)

        def error(output: Tensor) -> Tensor:
            return self.mean_over_chunk((output.float() - actions).square(), batch)

        first = error(self._predict(torch.zeros_like(actions), 0.0, encoded))
        t = self.config.refine_at
        if t is None:
            return LossOutput(loss=first)
        noisy = t * actions + (1 - t) * torch.randn_like(actions)
        second = error(self._predict(noisy, t, encoded))
        return LossOutput(loss=first + second, terms={"first": first.detach(), "second": second.detach()})

    def predict_encoded(
        self, encoded: Tensor, *, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        """Regress a chunk; deterministic, so `generator` is not used. See `NetworkPolicy.predict_encoded`."""
        if sampler is not None:
            raise ConfigError("a regression policy has no sampler to replace; leave `sampler` out")
        zeros = encoded.new_zeros(self.chunk_shape(encoded))
        chunk, calls, t = self._predict(zeros, 0.0, encoded), 1, self.config.refine_at
        if t is not None:
            chunk, calls = self._predict(t * chunk, t, encoded), 2
        if self.config.bounded_actions:
            chunk = chunk.clamp(-1, 1)
        return ActionChunk(actions=self.normalizer[ACTION].unnormalize(chunk), n_network_calls=calls)


@policies.register("regression", RegressionPolicyConfig)
def build_regression_policy(
    config: RegressionPolicyConfig, *, spec: PolicySpec, stats: Stats | None
) -> RegressionPolicy:
    """Build a `RegressionPolicy`."""
    return RegressionPolicy(config, spec, stats)
