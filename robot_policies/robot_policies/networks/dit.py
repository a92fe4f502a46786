r"""The diffusion transformer that PAD and UWM are made of: plain blocks whose norms are steered by a condition.

Peebles and Xie, "Scalable Diffusion Models with Transformers" (DiT), ICCV 2023 (arXiv 2212.09748), with adaLN-zero: a
condition c (noise levels, and what else a policy knows) gives every block shifts, scales and gates,

    x <- x + gate_1 attention(norm(x) (1 + scale_1) + shift_1)
    x <- x + gate_2 mlp(norm(x) (1 + scale_2) + shift_2)

and starts at gate 0, where every block is the identity. Tokens of several kinds (patches of future frames, actions,
registers) share the blocks; a mask says who may attend to whom.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_policies.configuration import ConfigError
from robot_policies.networks.embeddings import SinusoidalEmbedding

TIME_FREQUENCIES = 256


@dataclass(frozen=True, kw_only=True)
class DitConfig:
    """Sizes of a `Dit`.

    Attributes:
        width: Width of tokens.
        n_layers: Blocks.
        n_heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward parts, relative to `width`.
        dropout: Dropout after attention and feed-forward parts; 0 in the papers.
    """

    width: int = 768
    n_layers: int = 12
    n_heads: int = 12
    mlp_ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.n_heads):
            raise ConfigError(
                f"policy.dit: width={self.width} is not divisible by twice n_heads={self.n_heads}"
            )


class TimeEmbedding(nn.Module):
    """A noise level's `time` (B,) to (B, width): sinusoids and two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            SinusoidalEmbedding(TIME_FREQUENCIES), nn.Linear(TIME_FREQUENCIES, width), nn.SiLU(),
            nn.Linear(width, width),
        )  # fmt: skip

    def forward(self, time: Tensor) -> Tensor:
        """Embed."""
        return self.mlp(time)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift tokens (B, N, W) by (B, W) each."""
    return x * (1 + scale[:, None]) + shift[:, None]


class DitBlock(nn.Module):
    """Self-attention and a feed-forward part, steered by a condition (B, C); see the module docstring."""

    def __init__(self, config: DitConfig, condition_dim: int) -> None:
        super().__init__()
        width, hidden = config.width, round(config.mlp_ratio * config.width)
        self.n_heads = config.n_heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, allowed: Tensor | None) -> Tensor:
        """(B, N, W) -> (B, N, W); `allowed` (N, N) or (B, 1, N, N) is True where row may attend to column."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        y = modulate(self.norm1(x), shift1, scale1)
        q, k, v = (
            part.transpose(1, 2) for part in self.qkv(y).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2).flatten(2)
        x = x + gate1[:, None] * self.dropout(self.out(y))
        return x + gate2[:, None] * self.dropout(self.mlp(modulate(self.norm2(x), shift2, scale2)))


class DitHead(nn.Module):
    """From tokens to their outputs, steered once more; starts at 0."""

    def __init__(self, width: int, condition_dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition_dim, 2 * width))
        self.out = nn.Linear(width, out_dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, out_dim)."""
        return self.out(modulate(self.norm(x), *self.modulation(condition).chunk(2, dim=-1)))


class Dit(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: DitConfig, condition_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DitBlock(config, condition_dim) for _ in range(config.n_layers))

    def forward(self, x: Tensor, condition: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W); see `DitBlock`."""
        for block in self.blocks:
            x = block(x, condition, allowed)
        return x


def init_dit(module: nn.Module) -> None:
    """DiT's initial weights for a whole network: Xavier for linear layers, 0 for gates, shifts and heads."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, (DitBlock, DitHead)):
            steering = part.modulation[-1]
            for layer in (steering, part.out) if isinstance(part, DitHead) else (steering,):
                assert isinstance(layer, nn.Linear)
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        elif isinstance(part, TimeEmbedding):
            for layer in (part.mlp[1], part.mlp[3]):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=0.02)


class ConvStem(nn.Module):
    """Images (B, C, H, W) to patches (B, H W / patch^2, width) through strided convolutions instead of one matrix.

    Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021 (arXiv 2106.14881): what a transformer
    of few layers cannot learn from few images, where an edge lies within a patch, convolutions know from the start.
    """

    def __init__(self, channels: int, stem: int, width: int, patch: int) -> None:
        super().__init__()
        stages = patch.bit_length() - 1
        if stem < 1:
            raise ConfigError(f"policy.network.stem: expected at least 1 channel or null, got {stem}")
        if 2**stages != patch:
            raise ConfigError(f"policy.network.stem: patch={patch} is not a power of two")
        layers: list[nn.Module] = []
        widths = [channels, *(stem * 2**k for k in range(stages))]
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.GroupNorm(1, n_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H W / patch^2, width), row by row as `patchify`."""
        return self.layers(x).flatten(2).transpose(1, 2)


def patchify(x: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) to patches (B, H W / patch^2, C patch^2), row by row."""
    b, c, h, w = x.shape
    x = x.view(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def unpatchify(tokens: Tensor, shape: tuple[int, int, int], patch: int) -> Tensor:
    """The inverse of `patchify`; `shape` is (C, H, W)."""
    c, h, w = shape
    x = tokens.view(len(tokens), h // patch, w // patch, c, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), c, h, w)


def grid_positions(height: int, width: int, dim: int) -> Tensor:
    """Sines and cosines of row and column of each patch, (height width, dim); DiT's positions."""
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(dim // 4) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (rows, columns)]
    positions = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(positions, (0, dim - positions.shape[1]))
