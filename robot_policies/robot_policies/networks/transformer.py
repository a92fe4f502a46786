"""The time-series diffusion transformer of Diffusion Policy (Chi et al., RSS 2023, Fig. 2b; minGPT style).

Action tokens attend causally to each other and cross-attend to memory tokens: the denoising step and one
token per observation step. Action t may see observations up to t, as both count from the first step of
the window::

    memory       k  o_0 o_1                    k: denoising step, always visible
    queries         a_0 a_1 a_2 ... a_{T_p-1}  a_t sees k, o_0..o_min(t, T_o-1), a_0..a_t
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_policies.configuration import ConfigError
from robot_policies.networks.base import NetworkContext, networks
from robot_policies.networks.embeddings import SinusoidalEmbedding


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of a `DiffusionTransformer`; defaults are the paper's low-dimensional preset (9.0 M)."""

    width: int = 256
    n_layers: int = 8
    n_heads: int = 4
    attention_dropout: float = 0.3
    embedding_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ConfigError(f"network.width={self.width} is not divisible by n_heads={self.n_heads}")


class DiffusionTransformer(nn.Module):
    """Denoise (B, T_p, A) given a step (B,) and observations (B, T_o, D); returns (B, T_p, A)."""

    self_mask: Tensor
    memory_mask: Tensor

    def __init__(self, config: TransformerConfig, context: NetworkContext) -> None:
        super().__init__()
        width, n_memory = config.width, 1 + context.n_obs_steps
        self.action_in = nn.Linear(context.action_dim, width)
        self.action_position = nn.Parameter(torch.zeros(1, context.horizon, width))
        self.step_embedding = SinusoidalEmbedding(width)
        self.observation_in = nn.Linear(context.obs_dim, width)
        self.memory_position = nn.Parameter(torch.zeros(1, n_memory, width))
        self.memory_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.embedding_dropout)
        layer = nn.TransformerDecoderLayer(
            width,
            config.n_heads,
            4 * width,
            config.attention_dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerDecoder(layer, config.n_layers)
        self.norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, context.action_dim)

        steps = torch.arange(context.horizon)
        self.register_buffer("self_mask", steps[:, None] < steps[None, :], persistent=False)
        memory_time = torch.arange(n_memory) - 1
        self.register_buffer("memory_mask", steps[:, None] < memory_time[None, :], persistent=False)
        self.apply(_init_weights)
        for position in (self.action_position, self.memory_position):
            nn.init.normal_(position, std=0.02)

    def forward(self, noisy: Tensor, step: Tensor, observation: Tensor) -> Tensor:
        """Run the network; see the class for shapes."""
        step_token = self.step_embedding(step)[:, None].to(noisy.dtype)
        memory = torch.cat([step_token, self.observation_in(observation)], dim=1) + self.memory_position
        memory = self.memory_mlp(self.dropout(memory))
        x = self.dropout(self.action_in(noisy) + self.action_position)
        x = self.decoder(  # told, or it would compare the mask's values, which an exported graph cannot
            x, memory, tgt_mask=self.self_mask, memory_mask=self.memory_mask, tgt_is_causal=False
        )
        return self.action_out(self.norm(x))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)


@networks.register("transformer", TransformerConfig)
def build_transformer(config: TransformerConfig, *, context: NetworkContext) -> DiffusionTransformer:
    """Build a `DiffusionTransformer`."""
    return DiffusionTransformer(config, context)
