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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import robot_policies.denoising.diffusers_samplers as diffusers_samplers
from robot_datasets.features import ACTION, is_image
from robot_policies.denoising.processes import processes
from robot_policies.denoising.samplers import NoiseSource, samplers
from robot_policies.networks import NetworkContext, networks
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer, Stats
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy
from robot_policies.spec import PolicySpec

__all__ = ["DiffusionPolicy", "DiffusionPolicyConfig", "diffusers_samplers"]


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig:
    """Parts of a `DiffusionPolicy`, each chosen by ``type``.

    Attributes:
        network: Denoising network: ``unet1d``, ``transformer`` or ``mlp``.
        process: Noise process: ``diffusion``, ``edm`` or ``flow``.
        sampler: Default sampler; a checkpoint accepts another one at inference.
        image_encoder: Encoder of each camera; needed if the policy sees images.
        normalization: Mode by feature name, ``default`` for the rest.
        mask_padding: Leave padded steps out of the loss.
    """

    network: Mapping[str, Any]
    process: Mapping[str, Any]
    sampler: Mapping[str, Any]
    image_encoder: Mapping[str, Any] | None = None
    normalization: Mapping[str, Any] = field(default_factory=lambda: {"default": "min_max"})
    mask_padding: bool = False


class DiffusionPolicy(Policy):
    """A denoising network, its noise process and sampler, and the observation encoder."""

    def __init__(self, config: DiffusionPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(spec)
        self.config = config
        dims = {name: f.shape[0] for name, f in spec.observation.items() if not is_image(name)}
        self.normalizer = Normalizer({**dims, ACTION: spec.action_dim}, config.normalization, stats)
        self.encoder = ObservationEncoder(spec, config.image_encoder)
        context = NetworkContext(
            action_dim=spec.action_dim,
            horizon=spec.horizon,
            obs_dim=self.encoder.out_dim,
            n_obs_steps=spec.n_obs_steps,
        )
        self.network = networks.build(config.network, where="policy.network", context=context)
        self.process = processes.build(config.process, where="policy.process")
        self.sampler = samplers.build(config.sampler, where="sampler")

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the denoising loss; see the module docstring."""
        observation = self.encoder(batch, self.normalizer)
        actions = self.normalizer[ACTION].normalize(batch[ACTION].float())
        noisy = self.process.training_batch(actions)
        output = self.network(noisy.network_input, noisy.time, observation)
        error = (output.float() - noisy.target).square().mean(dim=-1)
        if not self.config.mask_padding:
            return LossOutput(loss=error.mean())
        valid = (~batch["action_is_pad"]).to(error)
        return LossOutput(loss=(error * valid).sum() / valid.sum().clamp(min=1))

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Tensor] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Denoise a chunk; see `Policy.predict_chunk`. This policy ignores no goal: it takes none."""
        if goal is not None:
            raise ValueError("DiffusionPolicy is not goal-conditioned; pass goal=None")
        batch_size = self.check_observation(observation)
        encoded = self.encoder(observation, self.normalizer)
        sample = self.sampler if sampler is None else samplers.build(sampler, where="sampler")
        noise = NoiseSource((batch_size, self.spec.horizon, self.spec.action_dim), generator, encoded)

        def network(x: Tensor, time: Tensor) -> Tensor:
            return self.network(x, time, encoded)

        chunk, calls = sample(network, self.process, noise)
        return ActionChunk(actions=self.normalizer[ACTION].unnormalize(chunk), n_network_calls=calls)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Decay the weights of linear and convolution layers only in transformers, everything elsewhere."""
        if self.config.network["type"] != "transformer":
            return super().parameter_groups(weight_decay)
        decayed = {
            id(p)
            for module in self.modules()
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention))
            for name, p in module.named_parameters(recurse=False)
            if name.endswith("weight")
        }
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
            {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
        ]


@policies.register("diffusion", DiffusionPolicyConfig)
def build_diffusion_policy(
    config: DiffusionPolicyConfig, *, spec: PolicySpec, stats: Stats | None
) -> DiffusionPolicy:
    """Build a `DiffusionPolicy`."""
    return DiffusionPolicy(config, spec, stats)
