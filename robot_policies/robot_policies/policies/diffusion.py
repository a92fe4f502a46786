r"""Diffusion Policy: denoise an action chunk, conditioned on the last observations.

Chi et al., "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", RSS 2023 (arXiv 2303.04137).

With A a normalised chunk, O the encoded observations, n standard normal noise, and a process that sets
alpha, sigma and the network's target (`robot_policies.denoising.processes`):

    training    x = alpha A + sigma n        loss = mean (network(x, time, O) - target)^2
    inference   start from noise, let a sampler walk the process' levels down to A

The time window (T_o = 2, T_p = 16, T_a = 8) is drawn in `robot_policies.spec.PolicySpec`: the chunk
starts with the first observation, so index T_o - 1 is the action for now.

The paper's choice is ``{"type": "diffusion", "prediction": "epsilon"}``, K = 100, squared-cosine
schedule, with a UNet or a transformer. Predicting the chunk itself, plainly (``sample``) or with EDM's
preconditioning (``edm``), learns faster on a small budget; ``flow`` is rectified flow. Steps that only
repeat an episode's edge count in the loss, as in the original; `mask_padding` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError
from robot_policies.denoising import NoiseSource, Sampler, processes, samplers
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.samplers import Network
from robot_policies.normalizer import Stats
from robot_policies.policies.base import NetworkPolicyConfig
from robot_policies.policies.guided import GuidedPolicy
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig(NetworkPolicyConfig):
    """Options of a `DiffusionPolicy`, each part chosen by ``type``.

    Attributes:
        process: Noise process: ``diffusion``, ``edm`` or ``flow``.
        sampler: Default sampler; a checkpoint accepts another one at inference.
        drop_goal: Share of the training rows whose whole goal is hidden, so that the policy can also act without
            one, and `sampler.goal_scale` can weigh it.
    """

    process: Mapping[str, Any]
    sampler: Mapping[str, Any]
    drop_goal: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop_goal < 1:
            raise ConfigError(f"policy.drop_goal must be in [0, 1), got {self.drop_goal}")


class DiffusionPolicy(GuidedPolicy):
    """A denoising network, its noise process and its sampler."""

    def __init__(self, config: DiffusionPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config
        self.needs_goal = config.drop_goal == 0
        self.process = processes.build(config.process, where="policy.process")
        self.sampler = self._build_sampler(config.sampler)

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the denoising loss; see the module docstring."""
        if self.training and self.goal_encoder is not None and self.config.drop_goal > 0:
            hidden = torch.rand(len(encoded), 1, 1, device=encoded.device) < self.config.drop_goal
            encoded = torch.where(hidden, self.without_goal(encoded), encoded)
        noisy = self.process.training_batch(self.normalized_actions(batch))
        output = self.network(noisy.network_input, noisy.time, encoded)
        return LossOutput(loss=self.mean_over_chunk((output.float() - noisy.target).square(), batch))

    def predict_encoded(
        self,
        encoded: Tensor,
        *,
        generator: Generators,
        sampler: Mapping[str, Any] | None,
        guidance: Guidance | None = None,
    ) -> ActionChunk:
        """Denoise a chunk; see `NetworkPolicy.predict_encoded`."""
        sample = self.sampler if sampler is None else self._build_sampler(sampler)
        noise = NoiseSource(self.chunk_shape(encoded), generator, encoded)
        network, cost = self.conditioned(encoded, sample.config.goal_scale)
        chunk, calls = sample(network, self.process, noise, guidance)
        actions = self.normalizer[ACTION].unnormalize(chunk)
        return ActionChunk(actions=actions, n_network_calls=cost * calls)

    def conditioned(self, encoded: Tensor, goal_scale: float) -> tuple[Network, int]:
        """The network given what was observed, and its forward passes per call.

        Data estimates are affine in the network's output at any level, so guiding outputs guides estimates.
        """
        if goal_scale in (0, 1) or self.goal_encoder is None:
            given = self.without_goal(encoded) if goal_scale == 0 else encoded
            return lambda x, time: self.network(x, time, given), 1
        both = torch.cat([self.without_goal(encoded), encoded])

        def network(x: Tensor, time: Tensor) -> Tensor:
            free, bound = self.network(torch.cat([x, x]), torch.cat([time, time]), both).chunk(2)
            return free + goal_scale * (bound - free)

        return network, 2

    def _build_sampler(self, values: Mapping[str, Any]) -> Sampler:
        sampler = samplers.build(values, where="sampler")
        if sampler.config.clip is not None and not self.config.bounded_actions:
            raise ConfigError(
                f"sampler.clip={sampler.config.clip} would cut actions that are not min-max normalised; "
                "set sampler.clip=null, or policy.normalization.action to min_max"
            )
        if sampler.config.goal_scale != 1 and (self.goal_encoder is None or self.config.drop_goal == 0):
            raise ConfigError(
                f"sampler.goal_scale={sampler.config.goal_scale} weighs the goal against none, but this policy was "
                "never trained without a goal; use goal_scale=1, or train with dataset.goal and policy.drop_goal=0.1"
            )
        return sampler


@policies.register("diffusion", DiffusionPolicyConfig)
def build_diffusion_policy(
    config: DiffusionPolicyConfig, *, spec: PolicySpec, stats: Stats | None
) -> DiffusionPolicy:
    """Build a `DiffusionPolicy`."""
    return DiffusionPolicy(config, spec, stats)
