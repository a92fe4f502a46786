"""ConditionalUnet1D, the convolutional denoiser of Diffusion Policy (Chi et al., RSS 2023, Fig. 2c).

Convolves over the time axis of an action chunk; the denoising step and the observations modulate every
residual block through FiLM (per-channel scale and bias; Perez et al., 2018). Shapes: B batch,
T_p horizon, A action dim, T_o observation steps, D observation embedding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_policies.configuration import ConfigError
from robot_policies.networks.base import NetworkContext, networks
from robot_policies.networks.embeddings import SinusoidalEmbedding


@dataclass(frozen=True, kw_only=True)
class Unet1dConfig:
    """Sizes of a `ConditionalUnet1D`.

    Attributes:
        down_dims: Channels per level; each level but the last halves the time axis.
        kernel_size: Temporal convolution kernel [steps], odd.
        n_groups: Groups of GroupNorm; must divide every level's channels.
        step_embed_dim: Width of the denoising-step embedding.
    """

    down_dims: tuple[int, ...] = (256, 512, 1024)
    kernel_size: int = 5
    n_groups: int = 8
    step_embed_dim: int = 256

    def __post_init__(self) -> None:
        for dim in self.down_dims:
            if dim % self.n_groups:
                raise ConfigError(f"network.down_dims: {dim} is not divisible by n_groups={self.n_groups}")
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"network.kernel_size must be odd, got {self.kernel_size}")


class ConvBlock(nn.Sequential):
    """Conv1d -> GroupNorm -> Mish, length preserved."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, n_groups: int) -> None:
        super().__init__(
            nn.Conv1d(c_in, c_out, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, c_out),
            nn.Mish(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two convolution blocks with FiLM between them and a skip connection."""

    def __init__(self, c_in: int, c_out: int, cond_dim: int, config: Unet1dConfig) -> None:
        super().__init__()
        self.first = ConvBlock(c_in, c_out, config.kernel_size, config.n_groups)
        self.second = ConvBlock(c_out, c_out, config.kernel_size, config.n_groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, 2 * c_out))
        self.skip = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(B, C_in, T), (B, cond_dim) -> (B, C_out, T)."""
        scale, bias = self.film(cond)[:, :, None].chunk(2, dim=1)
        return self.second(self.first(x) * scale + bias) + self.skip(x)


class ConditionalUnet1D(nn.Module):
    """Denoise (B, T_p, A) given a step (B,) and observations (B, T_o, D); returns (B, T_p, A)."""

    def __init__(self, config: Unet1dConfig, context: NetworkContext) -> None:
        super().__init__()
        factor = 2 ** (len(config.down_dims) - 1)
        if context.horizon % factor:
            raise ConfigError(
                f"window.horizon={context.horizon} must be divisible by {factor} for a UNet with "
                f"{len(config.down_dims)} levels"
            )
        embed = config.step_embed_dim
        self.step_encoder = nn.Sequential(
            SinusoidalEmbedding(embed), nn.Linear(embed, 4 * embed), nn.Mish(), nn.Linear(4 * embed, embed)
        )
        cond_dim = embed + context.n_obs_steps * context.obs_dim
        dims = (context.action_dim, *config.down_dims)

        def pair(c_in: int, c_out: int) -> nn.ModuleList:
            return nn.ModuleList(
                [ResidualBlock(c_in, c_out, cond_dim, config), ResidualBlock(c_out, c_out, cond_dim, config)]
            )

        levels = list(itertools.pairwise(dims))
        self.down = nn.ModuleList(pair(a, b) for a, b in levels)
        self.downsample = nn.ModuleList(nn.Conv1d(b, b, 3, stride=2, padding=1) for _, b in levels[:-1])
        self.mid = pair(dims[-1], dims[-1])
        self.up = nn.ModuleList(pair(2 * b, a) for a, b in reversed(levels[1:]))
        self.upsample = nn.ModuleList(
            nn.ConvTranspose1d(a, a, 4, stride=2, padding=1) for a, _ in reversed(levels[1:])
        )
        base = config.down_dims[0]
        self.head = nn.Sequential(
            ConvBlock(base, base, config.kernel_size, config.n_groups), nn.Conv1d(base, context.action_dim, 1)
        )

    def forward(self, noisy: Tensor, step: Tensor, observation: Tensor) -> Tensor:
        """Run the network; see the class for shapes."""
        cond = torch.cat([self.step_encoder(step), observation.flatten(1)], dim=-1)
        x = noisy.transpose(1, 2)
        skips = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, cond)
            skips.append(x)
            if level < len(self.downsample):
                x = self.downsample[level](x)
        for block in self.mid:
            x = block(x, cond)
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            x = torch.cat([x, skips.pop()], dim=1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, cond)
            x = upsample(x)
        return self.head(x).transpose(1, 2)


@networks.register("unet1d", Unet1dConfig)
def build_unet1d(config: Unet1dConfig, *, context: NetworkContext) -> ConditionalUnet1D:
    """Build a `ConditionalUnet1D`."""
    return ConditionalUnet1D(config, context)
