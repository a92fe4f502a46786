"""What policies that predict frames share: codecs, latents of what is to come, losses that mask what is absent.

Besides what every policy is given, a batch holds, for each camera of ``spec.future`` with K offsets (steps after now)::

    step              -1   0=now  1  2  3  4  5  6  7  8          T_o = 2, T_p = 9, K = 2, offsets 4 and 8
    observation        o   o
    action             a   a      a  a  a  a  a  a  a
    future frames                          f           f

    batch["future.<camera>"]          (B, K, C, H, W) uint8
    batch["future.<camera>_is_pad"]   (B, K) bool, True beyond the episode's end, where its last frame stands in
    batch["action_is_valid"]          (B, A) bool, optional; a row of False is video without actions

A camera's K latents of shape (C, h, w) are kept together on channels, (B, K C, h, w). With ``target: change`` a latent
is half of what it differs from the last observed one's, so a network that has learned nothing repeats that frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robot_datasets.features import DEPTH_PREFIX
from robot_datasets.windows import FUTURE_PREFIX
from robot_policies.configuration import ConfigError
from robot_policies.denoising import Sampler, processes, samplers
from robot_policies.networks import NetworkContext
from robot_policies.networks.codecs import Codec, codecs
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Stats
from robot_policies.policies.base import NetworkPolicyConfig
from robot_policies.policies.guided import GuidedPolicy
from robot_policies.policy import LossOutput, PredictedFrames
from robot_policies.spec import PolicySpec

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class FramePolicyConfig(NetworkPolicyConfig):
    """Options of a policy that predicts frames, each part chosen by ``type``.

    Attributes:
        process: Noise process, of actions and latents alike.
        sampler: Default sampler; a checkpoint accepts another one at inference.
        codec: From frames to latents: ``pixels``, ``conv`` or ``autoencoder_kl``.
        depth_codec: The same for depth cameras.
        frames_weight: Weight of the frames' loss; that of the actions is 1.
        target: What is denoised: the latents of future ``frame``s, as in the papers, or their ``change`` since the
            last observed one. Changes are small, so they need a larger `frames_weight`.
    """

    process: Mapping[str, Any]
    sampler: Mapping[str, Any]
    codec: Mapping[str, Any]
    depth_codec: Mapping[str, Any] = field(default_factory=lambda: {"type": "pixels", "max_value": 2000.0})
    frames_weight: float = 1.0
    target: Literal["frame", "change"] = "frame"


@dataclass(frozen=True, kw_only=True)
class FrameContext(NetworkContext):
    """Sizes for a network over actions and frames.

    Attributes:
        latents: (C, h, w) of one frame, by camera.
        n_future: K, by camera.
        low_dim: Width of the low-dimensional part of an encoded observation, which comes first in it.
    """

    latents: Mapping[str, Shape]
    n_future: Mapping[str, int]
    low_dim: int

    @property
    def frame_size(self) -> int:
        """N, numbers in the latents of one row."""
        return sum(self.n_future[name] * c * h * w for name, (c, h, w) in self.latents.items())


class FramePolicy(GuidedPolicy):
    """Base of policies that predict actions and frames.

    Attributes:
        codecs: By camera, with ``.`` in names replaced by ``/``.
        process: Noise process.
    """

    def __init__(self, config: FramePolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self._bounded_actions = config.bounded_actions
        self._frames_weight = config.frames_weight
        self._change = config.target == "change"
        self.process = processes.build(config.process, where="policy.process")
        self.sampler = self.build_sampler(config.sampler)

    def build_encoder(self, config: NetworkPolicyConfig) -> ObservationEncoder:
        """Build the codecs, then what the base builds."""
        self.build_codecs(config)
        return super().build_encoder(config)

    def build_codecs(self, config: NetworkPolicyConfig) -> None:
        """Build one codec per camera that is predicted."""
        assert isinstance(config, FramePolicyConfig)
        if not self.spec.future:
            raise ConfigError(
                "this policy predicts frames, but the data holds none from ahead; set dataset.future, e.g. "
                "dataset=video, or 'dataset.future={observation.images.top: [8]}'"
            )
        self.codecs = nn.ModuleDict()
        for name in self.spec.future:
            if name not in self.spec.observation:
                raise ConfigError(
                    f"dataset.future: '{name}' is not observed; add it to dataset.observation, or leave it out"
                )
            height, width, channels = self.spec.observation[name].shape
            options = config.depth_codec if name.startswith(DEPTH_PREFIX) else config.codec
            codec = codecs.build(options, where="policy.codec", image_shape=(channels, height, width))
            self.codecs[name.replace(".", "/")] = codec

    def network_context(self) -> FrameContext:
        """Sizes of actions, frames and conditions."""
        context = super().network_context()
        features = self.spec.observation
        return FrameContext(
            **vars(context),
            latents={name: self.codec(name).latent_shape for name in self.spec.future},
            n_future={name: len(offsets) for name, offsets in self.spec.future.items()},
            low_dim=sum(features[name].shape[0] for name in self.encoder.low_dim),
        )

    def codec(self, camera: str) -> Codec:
        """The codec of a camera."""
        codec = self.codecs[camera.replace(".", "/")]
        assert isinstance(codec, Codec)
        return codec

    def future_latents(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Latents (B, K C, h, w) by camera of ``future.<camera>`` frames (B, K, channels, H, W).

        With ``target: change`` the batch also holds the observed frames (B, T_o, channels, H, W).
        """
        latents = []
        for name, offsets in self.spec.future.items():
            frames = batch[FUTURE_PREFIX + name]
            latent = self.codec(name).encode(frames.flatten(0, 1)).unflatten(0, (-1, len(offsets)))
            if self._change:
                latent = (latent - self.last_latent(name, batch)[:, None]) / 2
            latents.append(latent.flatten(1, 2))
        return latents

    def last_latent(self, camera: str, observation: Mapping[str, Tensor]) -> Tensor:
        """Latent (B, C, h, w) of a camera's last observed frame."""
        return self.codec(camera).encode(observation[camera][:, -1])

    def decode(self, latents: Sequence[Tensor], last: Sequence[Tensor] = ()) -> PredictedFrames:
        """Frames of latents (B, K C, h, w) by camera.

        Args:
            latents: What was denoised.
            last: With ``target: change`` the latents (B, C, h, w) of the last observed frames.
        """
        frames = {}
        for k, (name, offsets) in enumerate(self.spec.future.items()):
            split = latents[k].unflatten(1, (len(offsets), -1))
            if self._change:
                split = last[k][:, None] + 2 * split
            frames[name] = self.codec(name).decode(split.flatten(0, 1)).unflatten(0, split.shape[:2])
        return PredictedFrames(frames=frames, offsets=dict(self.spec.future))

    def total(self, action: Tensor, frames: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """The weighted sum of both losses and of what the codecs learn."""
        loss, terms = action + self._frames_weight * frames, {"action": action, "frames": frames}
        codec = self._codec_loss(batch)
        if codec is not None:
            loss, terms["codec"] = loss + codec, codec
        return LossOutput(loss=loss, terms={name: term.detach() for name, term in terms.items()})

    def _codec_loss(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """What codecs that learn make of the batch's frames; None if none learns."""
        losses = []
        for name in self.spec.future:
            frames = torch.cat([batch[name], batch[FUTURE_PREFIX + name]], dim=1).flatten(0, 1)
            loss = self.codec(name).loss(frames)
            if loss is not None:
                losses.append(loss)
        return torch.stack(losses).mean() if losses else None

    def frame_loss(self, squared_errors: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Mean over cameras of squared errors (B, K C, h, w); without padded frames if so configured."""
        losses = []
        for (name, offsets), error in zip(self.spec.future.items(), squared_errors, strict=True):
            per_frame = error.unflatten(1, (len(offsets), -1)).mean(dim=(2, 3, 4))
            if self._mask_padding:
                valid = (~batch[f"{FUTURE_PREFIX}{name}_is_pad"]).to(per_frame)
                losses.append((per_frame * valid).sum() / valid.sum().clamp(min=1))
            else:
                losses.append(per_frame.mean())
        return torch.stack(losses).mean()

    def build_sampler(self, values: Mapping[str, Any]) -> Sampler:
        """Build a sampler; refuse one that would cut actions which are not bounded."""
        sampler = samplers.build(values, where="sampler")
        if sampler.config.clip is not None and not self._bounded_actions:
            raise ConfigError(
                f"sampler.clip={sampler.config.clip} would cut actions that are not min-max normalised; "
                "set sampler.clip=null, or policy.normalization.action to min_max"
            )
        return sampler


def flatten(latents: Sequence[Tensor]) -> Tensor:
    """Latents (B, K C, h, w) by camera as one vector (B, 1, N), which processes and samplers take."""
    return torch.cat([latent.flatten(1) for latent in latents], dim=1)[:, None]


def unflatten(x: Tensor, context: FrameContext) -> list[Tensor]:
    """The inverse of `flatten`."""
    shapes = [
        (n * context.latents[name][0], *context.latents[name][1:]) for name, n in context.n_future.items()
    ]
    parts = x[:, 0].split([c * h * w for c, h, w in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def join(actions: Tensor, latents: Sequence[Tensor]) -> Tensor:
    """Actions (B, T_p, A) and latents as one vector (B, 1, T_p A + N)."""
    return torch.cat([actions.flatten(1)[:, None], flatten(latents)], dim=-1)


def part(x: Tensor, context: FrameContext) -> tuple[Tensor, list[Tensor]]:
    """The inverse of `join`."""
    n_actions = context.horizon * context.action_dim
    actions = x[:, 0, :n_actions].unflatten(1, (context.horizon, context.action_dim))
    return actions, unflatten(x[..., n_actions:], context)
