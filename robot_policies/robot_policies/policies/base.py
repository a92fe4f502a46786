"""What chunk policies share: normaliser, observation encoder and one network over the chunk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robot_datasets.features import ACTION, is_image
from robot_datasets.goals import GOAL_PREFIX, TASK
from robot_datasets.segments import ACTION_COUNTS
from robot_datasets.shared_view import ACTION_IS_VALID
from robot_policies.configuration import Registry
from robot_policies.networks import NetworkContext, networks
from robot_policies.networks.goal_encoder import GoalContext, GoalEncoder, goal_encoders
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer, Stats
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class NetworkPolicyConfig:
    """Parts of a `NetworkPolicy`, each chosen by ``type``.

    Attributes:
        network: Network over the chunk: ``unet1d``, ``transformer`` or ``mlp``;
            ``energy_transformer`` or ``energy_mlp`` for energy policies.
        image_encoder: Encoder of each camera; needed if the policy sees images.
        goal_encoder: Encoder of the goal, if the spec has one: ``tokens`` or ``aligned``.
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
    goal_encoder: Mapping[str, Any] = field(default_factory=lambda: {"type": "tokens"})
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

    A policy with a goal is given its tokens at every observation step, beside the observation.

    Attributes:
        registry: Where `config.network` is looked up; energy policies have a registry of their own.
        needs_goal: Whether a policy whose spec has a goal can do nothing without one.
    """

    registry: ClassVar[Registry[Any]] = networks
    needs_goal = True

    def __init__(self, config: NetworkPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(spec)
        features = {**spec.goal, **spec.observation}
        dims = {name: f.shape[0] for name, f in features.items() if not is_image(name)}
        self.normalizer = Normalizer({**dims, ACTION: spec.action_dim}, config.normalization, stats)
        self.encoder = self.build_encoder(config)
        self.goal_encoder: GoalEncoder | None = None
        if spec.has_goal:
            context = GoalContext(spec=spec, obs_dim=self.encoder.out_dim, image_encoder=config.image_encoder)
            self.goal_encoder = goal_encoders.build(
                config.goal_encoder, where="policy.goal_encoder", context=context
            )
            self.spec = replace(spec, either_goal=self.goal_encoder.either)
        self.network = self.registry.build(
            config.network, where="policy.network", context=self.network_context()
        )
        self._mask_padding = config.mask_padding
        self._absent_weight = config.absent_weight

    def build_encoder(self, config: NetworkPolicyConfig) -> ObservationEncoder:
        """The encoder of observations; built before the network."""
        return ObservationEncoder(self.spec, config.image_encoder, noise=config.observation_noise)

    def network_context(self) -> NetworkContext:
        """Sizes that the spec and the encoders dictate to the network."""
        goal = self.goal_encoder
        return NetworkContext(
            action_dim=self.spec.action_dim,
            horizon=self.spec.horizon,
            obs_dim=self.encoder.out_dim + (0 if goal is None else goal.n_tokens * goal.width),
            n_obs_steps=self.spec.n_obs_steps,
        )

    def encode(self, batch: Mapping[str, Any]) -> Tensor:
        """What the network is given: (B, T_o, D), or whatever `combine` makes of observation and goal.

        Args:
            batch: Observations (B, T_o, ...) in physical units, and what there is of the goal, under the names of a
                training batch.
        """
        return self._encode(batch)[0]

    def _encode(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The same, and the goal encoder's own loss if it has one."""
        observation = self.encoder(batch, self.normalizer)
        if self.goal_encoder is None:
            return observation, None
        goal = self.goal_encoder(batch, observation, self.normalizer)
        return self.combine(observation, goal.tokens), goal.loss

    def combine(self, observation: Tensor, tokens: Tensor) -> Tensor:
        """Put goal tokens (B, N, W) beside each step of the encoded observation (B, T_o, D)."""
        goal = tokens.flatten(1)[:, None].expand(-1, observation.shape[1], -1)
        return torch.cat([observation, goal], dim=-1)

    def without_goal(self, encoded: Tensor) -> Tensor:
        """What `encode` would make of the same observations if nothing were said of the goal."""
        seen = self.encoder.out_dim
        return torch.cat([encoded[..., :seen], torch.zeros_like(encoded[..., seen:])], dim=-1)

    def compute_loss(self, batch: Mapping[str, Any]) -> LossOutput:
        """Return the policy's loss on the encoded batch, plus the goal encoder's own."""
        encoded, alignment = self._encode(batch)
        output = self.loss_encoded(encoded, batch)
        if alignment is None:
            return output
        terms = {"policy": output.loss.detach(), **output.terms, "alignment": alignment.detach()}
        return LossOutput(loss=output.loss + alignment, terms=terms)

    @abstractmethod
    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Any]) -> LossOutput:
        """Return the training loss, given what `encode` made of the batch."""

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Check and encode the observation and let `predict_encoded` answer; see `Policy.predict_chunk`."""
        encoded = self.encode_checked(observation, goal)
        return self.predict_encoded(encoded, generator=generator, sampler=sampler)

    def encode_checked(self, observation: Mapping[str, Tensor], goal: Mapping[str, Any] | None) -> Tensor:
        """Check and encode observation and goal; what every prediction begins with."""
        batch_size = self.check_observation(observation)
        if goal is not None or self.needs_goal:
            self.check_goal(goal or {}, batch_size)
        named = {name if name == TASK else GOAL_PREFIX + name: value for name, value in (goal or {}).items()}
        return self.encode({**observation, **named})

    @abstractmethod
    def predict_encoded(
        self, encoded: Tensor, *, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        """Predict a chunk, given what `encode` made of observation and goal; gradients are off."""

    def chunk_shape(self, encoded: Tensor) -> tuple[int, int, int]:
        """(B, T_p, A) for encoded observations (B, T_o, D)."""
        return len(encoded), self.spec.horizon, self.spec.action_dim

    def normalized_actions(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The batch's chunk (B, T_p, A) in normalised units."""
        return self.normalizer[ACTION].normalize(batch[ACTION].float())

    def mean_over_chunk(self, squared_error: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Average (B, T_p, A) to a scalar; over steps that are not padding if so configured.

        With ``batch["action_is_valid"]`` (B, A), components that a robot lacks count as `absent_weight` says; a
        row without any is video without actions and does not count. With ``batch["action_counts"]`` (B, T_p), only
        those steps do.
        """
        counted = torch.ones_like(squared_error[..., 0])
        if ACTION_IS_VALID in batch:
            there = batch[ACTION_IS_VALID]
            weight = there.to(squared_error).clamp(min=self._absent_weight)[:, None]
            per_step = (squared_error * weight).sum(dim=-1) / weight.sum(dim=-1)
            counted = counted * there.any(dim=-1, keepdim=True)
        else:
            per_step = squared_error.mean(dim=-1)
        if ACTION_COUNTS in batch:
            counted = counted * batch[ACTION_COUNTS]
        if self._mask_padding:
            counted = counted * ~batch["action_is_pad"]
        return (per_step * counted).sum() / counted.sum().clamp(min=1)

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
