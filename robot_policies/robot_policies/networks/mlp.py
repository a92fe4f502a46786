"""A residual MLP denoiser over the flattened chunk: the cheapest network per sample on a CPU.

Not from the Diffusion Policy paper. The chunk and the observations are flattened and concatenated; the
denoising step modulates every block through adaptive layer norm initialised at zero (adaLN-zero;
Peebles & Xie, 2023), so that a fresh block is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_policies.networks.base import NetworkContext, networks
from robot_policies.networks.embeddings import SinusoidalEmbedding


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """Sizes of a `ResidualMlp`; the hidden layer of a block is `expansion` times as wide."""

    width: int = 512
    n_blocks: int = 3
    expansion: int = 2
    step_embed_dim: int = 128
    dropout: float = 0.0


class AdaptiveBlock(nn.Module):
    """x + gate * MLP(norm(x) * (1 + scale) + shift), with gate, scale and shift from the condition."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.modulation = nn.Linear(config.width, 3 * config.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        hidden = config.expansion * config.width
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden), nn.GELU(approximate="tanh"), nn.Dropout(config.dropout),
            nn.Linear(hidden, config.width),
        )  # fmt: skip

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(B, W), (B, W) -> (B, W)."""
        shift, scale, gate = self.modulation(cond).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class ResidualMlp(nn.Module):
    """Denoise (B, T_p, A) given a step (B,) and observations (B, T_o, D); returns (B, T_p, A)."""

    def __init__(self, config: MlpConfig, context: NetworkContext) -> None:
        super().__init__()
        chunk = context.horizon * context.action_dim
        self.step_embedding = SinusoidalEmbedding(config.step_embed_dim)
        self.cond = nn.Sequential(
            nn.Linear(config.step_embed_dim + context.n_obs_steps * context.obs_dim, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
        )
        self.chunk_in = nn.Linear(chunk + context.n_obs_steps * context.obs_dim, config.width)
        self.blocks = nn.ModuleList(AdaptiveBlock(config) for _ in range(config.n_blocks))
        self.norm = nn.LayerNorm(config.width)
        self.chunk_out = nn.Linear(config.width, chunk)

    def forward(self, noisy: Tensor, step: Tensor, observation: Tensor) -> Tensor:
        """Run the network; see the class for shapes."""
        obs = observation.flatten(1)
        cond = self.cond(torch.cat([self.step_embedding(step).to(obs.dtype), obs], dim=-1))
        x = self.chunk_in(torch.cat([noisy.flatten(1), obs], dim=-1))
        for block in self.blocks:
            x = block(x, cond)
        return self.chunk_out(self.norm(x)).view_as(noisy)


@networks.register("mlp", MlpConfig)
def build_mlp(config: MlpConfig, *, context: NetworkContext) -> ResidualMlp:
    """Build a `ResidualMlp`."""
    return ResidualMlp(config, context)
