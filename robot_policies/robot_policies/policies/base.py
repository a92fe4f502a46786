"""What chunk policies share: normaliser, observation encoder and one network over the chunk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robot_datasets.features import ACTION, is_image
from robot_datasets.shared_view import ACTION_IS_VALID
from robot_policies.configuration import Registry
from robot_policies.networks import NetworkContext, networks
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer, Stats
from robot_policies.policy import ActionChunk, Generators, Policy
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class NetworkPolicyConfig:
    """Parts of a `NetworkPolicy`, each chosen by ``type``.

    Attributes:
        network: Network over the chunk: ``unet1d``, ``transformer`` or ``mlp``;
            ``energy_transformer`` or ``energy_mlp`` for energy policies.
        image_encoder: Encoder of each camera; needed if the policy sees images.
        normalization: ``min_max``, ``z_score`` or ``identity`` by feature name, ``default`` for the rest.
        mask_padding: Leave steps that only repeat an episode's edge out of the loss.
        absent_weight: Weight in the loss of action components that a robot of a mixture lacks (they are 0), where
            its own weigh 1. Above 0, so that a sampler, which starts from noise everywhere, brings them to 0 and
            the network meets them at inference as it did in training.
        observation_noise: Standard deviation of the noise on low-dimensional observations in training, in
            normalised units (min-max: the range is 2 wide).
    """

    network: Mapping[str, Any]
    image_encoder: Mapping[str, Any] | None = None
    normalization: Mapping[str, Any] = field(default_factory=lambda: {"default": "min_max"})
    mask_padding: bool = False
    absent_weight: float = 0.1
    observation_noise: float = 0.0

    @property
    def bounded_actions(self) -> bool:
        """Whether normalised training actions lie in [-1, 1] by construction."""
        return self.normalization.get(ACTION, self.normalization.get("default", "min_max")) == "min_max"


class NetworkPolicy(Policy):
    """Base of policies that run one network over a normalised chunk, given encoded observations.

    Attributes:
        registry: Where `config.network` is looked up; energy policies have a registry of their own.
    """

    registry: ClassVar[Registry[Any]] = networks

    def __init__(self, config: NetworkPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(spec)
        dims = {name: f.shape[0] for name, f in spec.observation.items() if not is_image(name)}
        self.normalizer = Normalizer({**dims, ACTION: spec.action_dim}, config.normalization, stats)
        self.encoder = ObservationEncoder(spec, config.image_encoder, noise=config.observation_noise)
        context = NetworkContext(
            action_dim=spec.action_dim,
            horizon=spec.horizon,
            obs_dim=self.encoder.out_dim,
            n_obs_steps=spec.n_obs_steps,
        )
        self.network = self.registry.build(config.network, where="policy.network", context=context)
        self._mask_padding = config.mask_padding
        self._absent_weight = config.absent_weight

    def encode(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Observations (B, T_o, ...) in physical units to (B, T_o, D)."""
        return self.encoder(observation, self.normalizer)

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Tensor] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Check and encode the observation and let `predict_encoded` answer; see `Policy.predict_chunk`."""
        encoded = self.encode_checked(observation, goal)
        return self.predict_encoded(encoded, generator=generator, sampler=sampler)

    def encode_checked(self, observation: Mapping[str, Tensor], goal: Mapping[str, Tensor] | None) -> Tensor:
        """Check and encode the observation: (B, T_o, D); what every prediction begins with."""
        if goal is not None:
            raise ValueError(f"{type(self).__name__} is not goal-conditioned; pass goal=None")
        self.check_observation(observation)
        return self.encode(observation)

    @abstractmethod
    def predict_encoded(
        self, encoded: Tensor, *, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        """Predict a chunk from encoded observations (B, T_o, D); gradients are off."""

    def chunk_shape(self, encoded: Tensor) -> tuple[int, int, int]:
        """(B, T_p, A) for encoded observations (B, T_o, D)."""
        return len(encoded), self.spec.horizon, self.spec.action_dim

    def normalized_actions(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The batch's chunk (B, T_p, A) in normalised units."""
        return self.normalizer[ACTION].normalize(batch[ACTION].float())

    def mean_over_chunk(self, squared_error: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Average (B, T_p, A) to a scalar; over steps that are not padding if so configured.

        With ``batch["action_is_valid"]`` (B, A), components that a robot lacks count as `absent_weight` says.
        """
        if ACTION_IS_VALID in batch:
            weight = batch[ACTION_IS_VALID].to(squared_error).clamp(min=self._absent_weight)[:, None]
            per_step = (squared_error * weight).sum(dim=-1) / weight.sum(dim=-1)
        else:
            per_step = squared_error.mean(dim=-1)
        if not self._mask_padding:
            return per_step.mean()
        valid = (~batch["action_is_pad"]).to(per_step)
        return (per_step * valid).sum() / valid.sum().clamp(min=1)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Decay weights of linear, convolution and attention layers; not biases, norms and embeddings."""
        decayed = {
            id(p)
            for module in self.modules()
            if isinstance(
                module, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.MultiheadAttention)
            )
            for name, p in module.named_parameters(recurse=False)
            if name.endswith("weight")
        }
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
            {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
        ]
