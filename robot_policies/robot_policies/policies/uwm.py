r"""Unified World Models: actions and frames with noise levels of their own, so that one model answers four questions.

Zhu et al., "Unified World Models: Coupling Video and Action Diffusion for Pretraining on Large Robotic Datasets",
RSS 2025 (arXiv 2504.02792). With A a normalised chunk, Z the latents of future frames, O the encoded observation,

    training    x_a = alpha_s A + sigma_s n,  x_z = alpha_t Z + sigma_t n,  levels s and t drawn independently
                loss = |net_a(x_a, x_z, s, t, O) - target_a|^2 + w |net_z(x_a, x_z, s, t, O) - target_z|^2

    policy      p(A | O)      denoise A, frames absent             video     p(Z | O)      denoise Z, actions absent
    inverse     p(A | O, Z)   denoise A, frames clean              forward   p(Z | O, A)   denoise Z, actions clean
    joint       p(A, Z | O)   denoise both at one level

Time diagram: `robot_policies.policies.frames`. Tokens: one per action, one per patch of all K future frames, and
registers; all attend to all. The observation is a condition (adaLN), together with both levels.

*Absent* is the noisiest level (``absent: noise``, the paper's), or, with ``absent: hidden``, tokens that nobody attends
to, for which a share `drop` of the training rows is given up; inference then leaves them out, which is exact (the
chunk cannot depend on frames that are not there) and cheaper. A row without actions (``action_is_valid`` all False)
has absent actions and no action loss. *Clean* is the least noisy level, with the noise it has in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from robot_datasets.features import ACTION
from robot_datasets.shared_view import ACTION_IS_VALID
from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising import NoiseSource
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.processes import Levels, Process
from robot_policies.networks.dit import Dit, DitConfig, DitHead, TimeEmbedding, init_dit, patchify, unpatchify
from robot_policies.normalizer import Stats
from robot_policies.policies.frames import (
    FrameContext,
    FramePolicy,
    FramePolicyConfig,
    flatten,
    part,
    unflatten,
)
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput, PredictedFrames, draw_normal
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class UwmConfig(FramePolicyConfig):
    """Options of a `UwmPolicy`.

    Attributes:
        mode: What a chunk is predicted from: ``policy``, or ``joint``, which also predicts frames.
        absent: See the module docstring.
        drop: With ``absent: hidden``, share of training rows that hide the frames, and as many the actions.
    """

    mode: Literal["policy", "joint"] = "policy"
    absent: Literal["noise", "hidden"] = "hidden"
    drop: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.drop < 0.5:
            raise ConfigError(f"policy.drop must be in (0, 0.5), got {self.drop}")
        if self.mode == "joint" and self.target == "change":
            raise ConfigError("policy.mode=joint needs policy.target=frame; use policy.mode=policy")


@dataclass(frozen=True, kw_only=True)
class UwmNetworkConfig(DitConfig):
    """Sizes of a `UwmNetwork`; defaults are the paper's.

    Attributes:
        patch: Side of a patch of latents; it spans all K frames.
        registers: Tokens that carry nothing of their own.
        time_width: Width of the embedding of both levels.
    """

    patch: int = 4
    registers: int = 8
    time_width: int = 512


class Noisy(NamedTuple):
    """A modality as the network is given it: actions (B, T_p, A) or latents (B, 1, N), and time (B,)."""

    x: Tensor
    time: Tensor


class UwmNetwork(nn.Module):
    """Denoise actions and latents, given a level of each and encoded observations (B, T_o, D)."""

    def __init__(self, config: UwmNetworkConfig, context: FrameContext) -> None:
        super().__init__()
        self.config, self.context = config, context
        width, hidden = config.width, round(config.mlp_ratio * config.width)
        condition = context.n_obs_steps * context.obs_dim + config.time_width
        self.times = nn.ModuleList(TimeEmbedding(config.time_width // 2) for _ in range(2))
        self.register = nn.Parameter(torch.randn(config.registers, width) * 0.02)
        self.action_in = nn.Sequential(
            nn.Linear(context.action_dim, hidden), nn.SiLU(), nn.Linear(hidden, width)
        )
        self.action_position = nn.Parameter(torch.randn(context.horizon, width) * 0.02)
        self.action_out = DitHead(width, condition, context.action_dim)
        self.patch_in, self.patch_out = nn.ModuleList(), nn.ModuleList()
        self.patch_position = nn.ParameterList()
        for name, (c, h, w) in context.latents.items():
            if h % config.patch or w % config.patch:
                raise ConfigError(
                    f"policy.network.patch={config.patch} does not divide latents of {h} x {w} ({name})"
                )
            size = context.n_future[name] * c * config.patch**2
            self.patch_in.append(nn.Linear(size, width))
            self.patch_out.append(DitHead(width, condition, size))
            self.patch_position.append(nn.Parameter(torch.randn(h * w // config.patch**2, width) * 0.02))
        self.dit = Dit(config, condition)
        init_dit(self)

    def forward(
        self, actions: Noisy | None, frames: Noisy | None, encoded: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs for actions (B, T_p, A) and latents (B, 1, N); empty for what is None.

        Args:
            actions: None leaves their tokens out.
            frames: Likewise.
            encoded: Observations (B, T_o, D).
            hidden: (B, 2) bool: rows in which nobody attends to the actions, or to the frames. It is the same as
                leaving them out, by row.
        """
        tokens = [self.register.expand(len(encoded), -1, -1)]
        if actions is not None:
            tokens.append(self.action_in(actions.x) + self.action_position)
        if frames is not None:
            images = zip(self.patch_in, self.patch_position, unflatten(frames.x, self.context), strict=True)
            tokens += [embed(patchify(image, self.config.patch)) + where for embed, where, image in images]
        condition = torch.cat([encoded.flatten(1), *self._levels((actions, frames), encoded, hidden)], dim=1)
        sizes = [t.shape[1] for t in tokens]
        allowed = None if hidden is None else _allowed(hidden, sizes)
        outputs = list(self.dit(torch.cat(tokens, dim=1), condition, allowed).split(sizes, dim=1))[1:]
        none = encoded.new_empty(len(encoded), 0, 0)
        out_a = none if actions is None else self.action_out(outputs.pop(0), condition)
        return out_a, none if frames is None else self._latents(outputs, condition)

    def _levels(self, given: Sequence[Noisy | None], encoded: Tensor, hidden: Tensor | None) -> list[Tensor]:
        """Embedded levels (B, time_width / 2) of both; 0 for what is absent."""
        zeros = encoded.new_zeros(len(encoded), self.config.time_width // 2)
        pairs = zip(self.times, given, strict=True)
        levels = [zeros if noisy is None else embed(noisy.time) for embed, noisy in pairs]
        return levels if hidden is None else [level * ~hidden[:, k, None] for k, level in enumerate(levels)]

    def _latents(self, tokens: Sequence[Tensor], condition: Tensor) -> Tensor:
        images = []
        cameras = zip(self.context.latents.items(), self.patch_out, tokens, strict=True)
        for (name, (c, h, w)), head, patches in cameras:
            shape = (self.context.n_future[name] * c, h, w)
            images.append(unpatchify(head(patches, condition), shape, self.config.patch))
        return flatten(images)


def _allowed(hidden: Tensor, sizes: Sequence[int]) -> Tensor:
    """(B, 1, N, N): everybody attends to what is not hidden, and each token to itself."""
    registers, actions, *images = sizes
    seen = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1).logical_not()
    columns = seen.repeat_interleave(
        torch.tensor([registers, actions, sum(images)], device=seen.device), dim=1
    )
    itself = torch.eye(columns.shape[1], dtype=torch.bool, device=seen.device)
    return (columns[:, None, :] | itself)[:, None]


class UwmPolicy(FramePolicy):
    """Actions and frames, each with a noise level of its own."""

    registry: ClassVar[Registry[Any]] = Registry("UWM network")
    network: UwmNetwork

    def __init__(self, config: UwmConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the loss at independent levels; see the module docstring."""
        noisy_a = self.process.training_batch(self.normalized_actions(batch))
        noisy_z = self.process.training_batch(flatten(self.future_latents(batch)))
        actions, frames = (Noisy(noisy.network_input, noisy.time) for noisy in (noisy_a, noisy_z))
        there = encoded.new_ones(len(encoded), dtype=torch.bool)
        if ACTION_IS_VALID in batch:
            there = batch[ACTION_IS_VALID].any(dim=1)
        hidden = None
        if self.config.absent == "hidden":
            lot = torch.rand(len(encoded), device=encoded.device)
            no_actions = (lot > 1 - self.config.drop) | ~there
            hidden = torch.stack([no_actions, (lot < self.config.drop) & ~no_actions], dim=1)
        else:
            actions = self._only(actions, there)
        out_a, out_z = self.network(actions, frames, encoded, hidden)
        error_a, error_z = (
            (out_a.float() - noisy_a.target).square(),
            (out_z.float() - noisy_z.target).square(),
        )
        rows_a, rows_z = (there, torch.ones_like(there)) if hidden is None else (~hidden).unbind(1)
        loss_a = (
            self.mean_over_chunk(error_a[rows_a], _rows(batch, rows_a)) if rows_a.any() else 0 * out_a.sum()
        )
        errors = unflatten(error_z[rows_z], self.network.context)
        loss_z = self.frame_loss(errors, _rows(batch, rows_z)) if rows_z.any() else 0 * out_z.sum()
        return self.total(loss_a, loss_z, batch)

    def _only(self, actions: Noisy, there: Tensor) -> Noisy:
        """Noise of the noisiest level for rows without actions."""
        level = noisiest(self.process, actions.x)
        noise = self.process.network_input(torch.randn_like(actions.x) * self.process.initial_scale, level)
        x = torch.where(there[:, None, None], actions.x, noise)
        return Noisy(x, torch.where(there, actions.time, level.time))

    def _absent(self, shape: tuple[int, ...], like: Tensor, generator: Generators) -> Noisy | None:
        """A modality of which nothing is known."""
        if self.config.absent == "hidden":
            return None
        level = noisiest(self.process, like)
        noise = draw_normal((len(like), *shape), generator=generator, like=like) * self.process.initial_scale
        return Noisy(self.process.network_input(noise, level), level.time.expand(len(like)))

    def _clean(self, data: Tensor, generator: Generators) -> Noisy:
        """A modality that is known, with the noise of the least noisy level."""
        level = cleanest(self.process, data)
        x = level.alpha * data + level.sigma * draw_normal(data.shape, generator=generator, like=data)
        return Noisy(self.process.network_input(x, level), level.time.expand(len(data)))

    def predict_encoded(
        self,
        encoded: Tensor,
        *,
        generator: Generators,
        sampler: Mapping[str, Any] | None,
        guidance: Guidance | None = None,
    ) -> ActionChunk:
        """Denoise a chunk in the configured mode."""
        if self.config.mode == "joint":
            if guidance is not None:
                raise ConfigError("UWM continues a running plan with policy.mode=policy only, not joint")
            return self._predict_joint(encoded, generator, sampler)
        frames = self._absent((1, self.network.context.frame_size), encoded, generator)
        return self._denoise_actions(frames, encoded, generator, sampler, guidance)

    @torch.no_grad()
    def infer_actions(
        self,
        observation: Mapping[str, Tensor],
        future: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Inverse dynamics: the actions that lead to ``future["future.<camera>"]`` (B, K, C, H, W) uint8."""
        encoded = self.encode_checked(observation, goal)
        frames = self._clean(flatten(self.future_latents({**observation, **future})), generator)
        return self._denoise_actions(frames, encoded, generator, sampler)

    @torch.no_grad()
    def predict_frames(
        self,
        observation: Mapping[str, Tensor],
        *,
        actions: Tensor | None = None,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> PredictedFrames:
        """Forward dynamics: what `actions` (B, T_p, A) in physical units lead to; None: video prediction."""
        encoded = self.encode_checked(observation, goal)
        if actions is None:
            given = self._absent(self.chunk_shape(encoded)[1:], encoded, generator)
        else:
            given = self._clean(self.normalizer[ACTION].normalize(actions.float()), generator)
        shape = (len(encoded), 1, self.network.context.frame_size)
        sample = self.sampler if sampler is None else self.build_sampler(sampler)
        x, _ = sample(
            lambda x, time: self.network(given, Noisy(x, time), encoded)[1],
            self.process,
            NoiseSource(shape, generator, encoded),
        )
        last = [self.last_latent(name, observation) for name in self.spec.future]
        return self.decode(unflatten(x, self.network.context), last)

    def _denoise_actions(
        self,
        frames: Noisy | None,
        encoded: Tensor,
        generator: Generators,
        sampler: Mapping[str, Any] | None,
        guidance: Guidance | None = None,
    ) -> ActionChunk:
        sample = self.sampler if sampler is None else self.build_sampler(sampler)
        chunk, calls = sample(
            lambda x, time: self.network(Noisy(x, time), frames, encoded)[0],
            self.process,
            NoiseSource(self.chunk_shape(encoded), generator, encoded),
            guidance,
        )
        return ActionChunk(actions=self.normalizer[ACTION].unnormalize(chunk), n_network_calls=calls)

    def _predict_joint(
        self, encoded: Tensor, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        n, horizon, dim = self.chunk_shape(encoded)

        def network(x: Tensor, time: Tensor) -> Tensor:
            actions = Noisy(x[:, 0, : horizon * dim].unflatten(1, (horizon, dim)), time)
            out_a, out_z = self.network(actions, Noisy(x[..., horizon * dim :], time), encoded)
            return torch.cat([out_a.flatten(1)[:, None], out_z], dim=-1)

        sample = self.sampler if sampler is None else self.build_sampler(sampler)
        size = (n, 1, horizon * dim + self.network.context.frame_size)
        x, calls = sample(network, self.process, NoiseSource(size, generator, encoded))
        actions, latents = part(x, self.network.context)
        return ActionChunk(
            actions=self.normalizer[ACTION].unnormalize(actions),
            n_network_calls=calls,
            predicted_frames=self.decode(latents),
        )


def noisiest(process: Process, like: Tensor) -> Levels:
    """The level at which sampling starts."""
    return Levels(*(level[0].to(like) for level in process.finest_grid()))


def cleanest(process: Process, like: Tensor) -> Levels:
    """The last level that has noise."""
    return Levels(*(level[-2].to(like) for level in process.finest_grid()))


def _rows(batch: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The masks of some rows of a batch."""
    return {name: batch[name][rows] for name in batch if name.endswith("_is_pad") or name == ACTION_IS_VALID}


@UwmPolicy.registry.register("dit", UwmNetworkConfig)
def _build_network(config: UwmNetworkConfig, *, context: FrameContext) -> UwmNetwork:
    return UwmNetwork(config, context)


@policies.register("uwm", UwmConfig)
def build_uwm(config: UwmConfig, *, spec: PolicySpec, stats: Stats | None) -> UwmPolicy:
    """Build a `UwmPolicy`."""
    return UwmPolicy(config, spec, stats)
