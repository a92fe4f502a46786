r"""PAD: denoise the next actions and the next frames together, with one transformer.

Guo et al., "Prediction with Action: Visual Policy Learning via Joint Denoising Process", NeurIPS 2024
(arXiv 2411.18179).

With A a normalised chunk, Z the latents of future frames, O the observation and n standard normal noise,

    training    (x_a, x_z) = alpha (A, Z) + sigma n, one level for both
                loss = |net_a - target_a|^2 + w |net_z - target_z|^2 (+ what the codec learns)
    inference   denoise both from noise; A is executed, the decoded Z come with it as `predicted_frames`

Time diagram: `robot_policies.policies.frames`. The tokens of one row, and what they are made of::

    patches of camera 1   [x_z ; latents of the T_o observed frames], on channels     + position + camera
    patches of depth      the same with the depth codec
    actions               [x_a at one step ; low-dimensional observations]            + position
    condition (adaLN)     noise level, goal tokens (among them the embedded instruction)

Frames may not attend to actions, so what the video branch learns from a demonstration it learns from a video as
well, and a row without actions (``action_is_valid`` all False) trains the frames alone. Actions attend to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robot_datasets.features import ACTION, DEPTH_PREFIX, is_image
from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising import NoiseSource
from robot_policies.denoising.guidance import Guidance
from robot_policies.networks.dit import (
    ConvStem,
    Dit,
    DitConfig,
    DitHead,
    TimeEmbedding,
    grid_positions,
    init_dit,
    patchify,
    unpatchify,
)
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer, Stats
from robot_policies.policies.base import NetworkPolicyConfig
from robot_policies.policies.frames import FrameContext, FramePolicy, FramePolicyConfig, join, part
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class PadConfig(FramePolicyConfig):
    """Options of a `PadPolicy`; `image_encoder` is not used: cameras are seen through their latents."""


@dataclass(frozen=True, kw_only=True)
class PadNetworkConfig(DitConfig):
    """Sizes of a `PadNetwork`; defaults are PAD's XL/2.

    Attributes:
        patch: Side of a patch of latents.
        action_tokens: ``step``: one token per action; ``chunk``: one for the whole chunk, as in the original.
        stem: Channels of strided convolutions through which observed frames reach their patches' tokens besides;
            null: the latents alone, as in the original, whose autoencoder has seen them through convolutions.
    """

    width: int = 1152
    n_layers: int = 28
    n_heads: int = 16
    patch: int = 2
    action_tokens: Literal["step", "chunk"] = "step"
    stem: int | None = None


class LatentObservations(ObservationEncoder):
    """Encodes an observation step as its low-dimensional part and its frames' latents, flattened."""

    def __init__(self, spec: PolicySpec, codecs: nn.ModuleDict, *, noise: float) -> None:
        low_dim = {name: f for name, f in spec.observation.items() if not is_image(name)}
        super().__init__(replace(spec, observation=low_dim), None, noise=noise)
        # In a list, because the codecs are the policy's: they would be saved twice.
        self._codecs = [codecs]
        self._seen = tuple(spec.future)
        for name in self._seen:
            c, h, w = _codec(codecs, name).latent_shape
            self.out_dim += c * h * w

    def forward(self, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """(B, T_o, ...) to (B, T_o, D)."""
        parts = [super().forward(observation, normalizer)] if self.low_dim else []
        for name in self._seen:
            frames = observation[name]
            latents = _codec(self._codecs[0], name).encode(frames.flatten(0, 1))
            parts.append(latents.flatten(1).unflatten(0, frames.shape[:2]))
        return torch.cat(parts, dim=-1)


class PadNetwork(nn.Module):
    """Denoise `join`-ed actions and latents (B, 1, N), given time (B,) and encoded observations (B, T_o, D)."""

    allowed: Tensor

    def __init__(self, config: PadNetworkConfig, context: FrameContext) -> None:
        super().__init__()
        self.config, self.context = config, context
        width, seen = config.width, context.n_obs_steps
        self.patch_in, self.patch_out = nn.ModuleDict(), nn.ModuleDict()
        self.patch_position, self.stem = nn.ParameterDict(), nn.ModuleDict()
        levels = []
        for name, (c, h, w) in context.latents.items():
            if h % config.patch or w % config.patch:
                raise ConfigError(
                    f"policy.network.patch={config.patch} does not divide latents of {h} x {w} ({name})"
                )
            key, area, n = name.replace(".", "/"), config.patch**2, context.n_future[name]
            self.patch_in[key] = nn.Linear((n + seen) * c * area, width)
            self.patch_out[key] = DitHead(width, width, n * c * area)
            if config.stem is not None:
                self.stem[key] = ConvStem(seen * c, config.stem, width, config.patch)
            positions = grid_positions(h // config.patch, w // config.patch, width)
            self.patch_position[key] = nn.Parameter(positions)
            levels += [1 if name.startswith(DEPTH_PREFIX) else 0] * len(positions)
        self.camera = nn.Parameter(torch.randn(len(context.latents), width) * 0.02)
        # One token holds one action, or all of them.
        n_tokens = context.horizon if config.action_tokens == "step" else 1
        per_token = context.horizon * context.action_dim // n_tokens
        self.action_in = nn.Linear(per_token + seen * context.low_dim, width)
        self.action_position = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        self.action_out = DitHead(width, width, per_token)
        self.time = TimeEmbedding(width)
        self.goal_dim = context.obs_dim - _observed_dim(context)
        self.goal_in = nn.Linear(self.goal_dim, width) if self.goal_dim else None
        self.dit = Dit(config, width)
        level = torch.tensor([*levels, *[2] * n_tokens])
        # A token attends to its own kind and to what comes before it: colour, depth, actions.
        self.register_buffer("allowed", level[:, None] >= level[None, :], persistent=False)
        init_dit(self)

    def forward(self, x: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        """(B, 1, N) -> (B, 1, N); see the class."""
        context = self.context
        actions, frames = part(x, context)
        low_dim, observed, goal = self._split(encoded)
        tokens = [
            self._patches(name, noisy, seen) + self.camera[k]
            for k, (name, noisy, seen) in enumerate(zip(context.latents, frames, observed, strict=True))
        ]
        state = low_dim.flatten(1)[:, None].expand(-1, len(self.action_position), -1)
        per_token = actions.reshape(len(actions), len(self.action_position), -1)
        tokens.append(self.action_in(torch.cat([per_token, state], dim=-1)) + self.action_position)
        condition = self.time(time)
        if self.goal_in is not None:
            condition = condition + self.goal_in(goal)
        y = self.dit(torch.cat(tokens, dim=1), condition, self.allowed)
        *images, chunk = y.split([t.shape[1] for t in tokens], dim=1)
        out = [
            self._image(name, image, condition) for name, image in zip(context.latents, images, strict=True)
        ]
        return join(self.action_out(chunk, condition).reshape(actions.shape), out)

    def _patches(self, name: str, noisy: Tensor, seen: Tensor) -> Tensor:
        """Tokens (B, patches, width) of one camera's noisy and observed latents."""
        key = name.replace(".", "/")
        tokens = self.patch_in[key](patchify(torch.cat([noisy, seen], dim=1), self.config.patch))
        if key in self.stem:
            tokens = tokens + self.stem[key](seen)
        return tokens + self.patch_position[key]

    def _image(self, name: str, tokens: Tensor, condition: Tensor) -> Tensor:
        """Output (B, K C, h, w) of one camera's tokens."""
        c, h, w = self.context.latents[name]
        patches = self.patch_out[name.replace(".", "/")](tokens, condition)
        return unpatchify(patches, (self.context.n_future[name] * c, h, w), self.config.patch)

    def last_frames(self, encoded: Tensor) -> list[Tensor]:
        """Latents (B, C, h, w) by camera of the last observed frames."""
        _, observed, _ = self._split(encoded)
        shapes = self.context.latents.values()
        return [latents[:, -c:] for latents, (c, _, _) in zip(observed, shapes, strict=True)]

    def _split(self, encoded: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Low-dimensional part (B, T_o, L), latents (B, T_o C, h, w) by camera, and goal (B, G)."""
        shapes = list(self.context.latents.values())
        sizes = [self.context.low_dim, *(c * h * w for c, h, w in shapes), self.goal_dim]
        low_dim, *latents, goal = encoded.split(sizes, dim=-1)
        observed = [x.unflatten(-1, shape).flatten(1, 2) for x, shape in zip(latents, shapes, strict=True)]
        return low_dim, observed, goal[:, -1]


class PadPolicy(FramePolicy):
    """Actions and frames from one denoising process."""

    registry: ClassVar[Registry[Any]] = Registry("PAD network")
    network: PadNetwork

    def __init__(self, config: PadConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config

    def build_encoder(self, config: NetworkPolicyConfig) -> ObservationEncoder:
        """Cameras are seen through the codecs that also make the targets."""
        self.build_codecs(config)
        cameras = [name for name in (*self.spec.observation, *self.spec.goal) if is_image(name)]
        unused = [name for name in cameras if name not in self.spec.future]
        if unused or any(is_image(name) for name in self.spec.goal):
            raise ConfigError(
                f"PAD sees a camera only through the frames it predicts; add '{(unused or cameras)[0]}' to "
                f"dataset.future, or leave it out of observation and goal"
            )
        return LatentObservations(self.spec, self.codecs, noise=config.observation_noise)

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the joint denoising loss; see the module docstring."""
        data = join(self.normalized_actions(batch), self.future_latents(batch))
        noisy = self.process.training_batch(data)
        output = self.network(noisy.network_input, noisy.time, encoded)
        error_a, error_z = part((output.float() - noisy.target).square(), self.network.context)
        return self.total(self.mean_over_chunk(error_a, batch), self.frame_loss(error_z, batch), batch)

    def predict_encoded(
        self,
        encoded: Tensor,
        *,
        generator: Generators,
        sampler: Mapping[str, Any] | None,
        guidance: Guidance | None = None,
    ) -> ActionChunk:
        """Denoise actions and frames; guidance holds for the actions."""
        sample = self.sampler if sampler is None else self.build_sampler(sampler)
        context = self.network.context
        free = [
            encoded.new_zeros(len(encoded), n * context.latents[name][0], *context.latents[name][1:])
            for name, n in context.n_future.items()
        ]
        size = join(encoded.new_zeros(self.chunk_shape(encoded)), free).shape
        if guidance is not None:
            weights = guidance.weights.expand_as(guidance.target)
            guidance = Guidance(
                target=join(guidance.target, free), weights=join(weights, free), limit=guidance.limit
            )

        def network(x: Tensor, time: Tensor) -> Tensor:
            return self.network(x, time, encoded)

        x, calls = sample(network, self.process, NoiseSource(size, generator, encoded), guidance)
        actions, latents = part(x, context)
        return ActionChunk(
            actions=self.normalizer[ACTION].unnormalize(actions),
            n_network_calls=calls,
            predicted_frames=self.decode(latents, self.network.last_frames(encoded)),
        )


def _observed_dim(context: FrameContext) -> int:
    """Width of an encoded observation without goal tokens."""
    return context.low_dim + sum(c * h * w for c, h, w in context.latents.values())


def _codec(codecs: nn.ModuleDict, name: str) -> Any:
    return codecs[name.replace(".", "/")]


@PadPolicy.registry.register("dit", PadNetworkConfig)
def _build_network(config: PadNetworkConfig, *, context: FrameContext) -> PadNetwork:
    return PadNetwork(config, context)


@policies.register("pad", PadConfig)
def build_pad(config: PadConfig, *, spec: PolicySpec, stats: Stats | None) -> PadPolicy:
    """Build a `PadPolicy`."""
    return PadPolicy(config, spec, stats)
