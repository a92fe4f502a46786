r"""Energy networks: one scalar per action chunk and observation, for EBT-Policy and implicit BC.

Every energy network has two parts, so that many chunks can be scored for one observation at the cost of
one encoding::

    memory = network.encode(observation)      (B, T_o, D)                  -> (B, T_o, W)
    energy = network(actions, memory)         (B, T_p, A), (B, T_o, W)     -> (B,)

`EnergyTransformer` is that of EBT-Policy (Davies et al., 2025): a causal encoder over the observations and
a decoder whose action token t cross-attends to observations up to t, as both count from the first step of
the window; the energy is the mean of the outputs over time and channels. It has no noise-level embedding.
`EnergyMlp` is implicit BC's: a residual MLP over everything, flattened (Florence et al., 2021).

Training and inference differentiate the energy with respect to the actions, and training differentiates
that once more. Attention is therefore written out (fused kernels have no second derivative) and both
networks compute in float32 even under autocast: the slope of a bf16 energy is mostly rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_policies.configuration import ConfigError, Registry
from robot_policies.networks.base import NetworkContext
from robot_policies.networks.embeddings import SinusoidalEmbedding


class EnergyNetwork(nn.Module, ABC):
    """E(actions, observation); see the module docstring."""

    def encode(self, observation: Tensor) -> Tensor:
        """Observations (B, T_o, D) to a memory (B, T_o, W), in float32."""
        with torch.autocast(observation.device.type, enabled=False):
            return self._encode(observation.float())

    def forward(self, actions: Tensor, memory: Tensor) -> Tensor:
        """Energy (B,) of actions (B, T_p, A), in float32."""
        with torch.autocast(actions.device.type, enabled=False):
            return self._energy(actions.float(), memory)

    @abstractmethod
    def _encode(self, observation: Tensor) -> Tensor: ...

    @abstractmethod
    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class EnergyTransformerConfig:
    """Sizes of an `EnergyTransformer`; defaults are EBT-Policy's.

    Attributes:
        width: Width of tokens, and of the hidden layers of feed-forward parts (ratio 1).
        n_encoder_layers: Blocks over the observation steps.
        n_layers: Blocks over the action steps.
        n_heads: Attention heads.
        attention_dropout: Dropout of attention weights.
    """

    width: int = 256
    n_encoder_layers: int = 8
    n_layers: int = 8
    n_heads: int = 4
    attention_dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ConfigError(f"network.width={self.width} is not divisible by n_heads={self.n_heads}")


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys, differentiable twice."""

    def __init__(self, config: EnergyTransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.query, self.key, self.value, self.out = (nn.Linear(config.width, config.width) for _ in range(4))
        self.query_norm = nn.RMSNorm(config.width // config.n_heads)
        self.key_norm = nn.RMSNorm(config.width // config.n_heads)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
        """(B, T, W), (B, S, W) -> (B, T, W); `hidden` (T, S) is True where attention is not allowed."""
        q, k, v = (
            layer(y).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer, y in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        scores = self.query_norm(q) @ self.key_norm(k).transpose(-1, -2) / q.shape[-1] ** 0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return self.out((self.dropout(scores.softmax(dim=-1)) @ v).transpose(1, 2).flatten(2))


class EnergyBlock(nn.Module):
    """Pre-norm self-attention, cross-attention if there is a memory, and a feed-forward part."""

    def __init__(self, config: EnergyTransformerConfig, *, cross: bool) -> None:
        super().__init__()
        self.self_norm, self.mlp_norm = nn.RMSNorm(config.width), nn.RMSNorm(config.width)
        self.self_attention = Attention(config)
        self.cross_norm = nn.RMSNorm(config.width) if cross else None
        self.cross_attention = Attention(config) if cross else None
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.width)
        )

    def forward(self, x: Tensor, hidden: Tensor | None, memory: Tensor | None, late: Tensor | None) -> Tensor:
        """(B, T, W) -> (B, T, W); `hidden` (T, T) and `late` (T, T_o) mask the two attentions."""
        y = self.self_norm(x)
        x = x + self.self_attention(y, y, hidden)
        if self.cross_norm is not None and self.cross_attention is not None and memory is not None:
            x = x + self.cross_attention(self.cross_norm(x), memory, late)
        return x + self.mlp(self.mlp_norm(x))


class EnergyTransformer(EnergyNetwork):
    """EBT-Policy's encoder and energy decoder; see the module docstring."""

    action_position: Tensor
    causal: Tensor
    late: Tensor

    def __init__(self, config: EnergyTransformerConfig, context: NetworkContext) -> None:
        super().__init__()
        width = config.width
        self.observation_in = nn.Linear(context.obs_dim, width)
        self.observation_position = nn.Parameter(torch.empty(context.n_obs_steps, width))
        nn.init.normal_(self.observation_position, std=0.02)
        self.encoder = nn.ModuleList(EnergyBlock(config, cross=False) for _ in range(config.n_encoder_layers))
        self.memory_norm = nn.RMSNorm(width)
        self.action_in = nn.Sequential(
            nn.Linear(context.action_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.decoder = nn.ModuleList(EnergyBlock(config, cross=True) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(width)
        # No bias at the end: a constant changes neither the slope of the energy nor a softmax over energies.
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, context.action_dim, bias=False)
        )
        steps, seen = torch.arange(context.horizon), torch.arange(context.n_obs_steps)
        position = SinusoidalEmbedding(width)(steps.float())
        self.register_buffer("action_position", position, persistent=False)
        self.register_buffer("causal", seen[:, None] < seen[None, :], persistent=False)
        self.register_buffer("late", steps[:, None] < seen[None, :], persistent=False)

    def _encode(self, observation: Tensor) -> Tensor:
        x = self.observation_in(observation) + self.observation_position
        for block in self.encoder:
            x = block(x, self.causal, None, None)
        return self.memory_norm(x)

    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor:
        x = self.action_in(actions) + self.action_position
        for block in self.decoder:
            x = block(x, None, memory, self.late)
        return self.head(self.norm(x)).mean(dim=(1, 2))


@dataclass(frozen=True, kw_only=True)
class EnergyMlpConfig:
    """Sizes of an `EnergyMlp`.

    Attributes:
        width: Width of all layers.
        n_blocks: Residual blocks of two layers each.
        layer_norm: Normalise the input of each block; implicit BC does not.
        dropout: Dropout between the two layers.
    """

    width: int = 256
    n_blocks: int = 4
    layer_norm: bool = True
    dropout: float = 0.0


class EnergyMlp(EnergyNetwork):
    """Residual MLP over the flattened chunk and observations; its memory is the observation itself.

    GELU, where implicit BC has ReLU, makes the slope of the energy a smooth function.
    """

    def __init__(self, config: EnergyMlpConfig, context: NetworkContext) -> None:
        super().__init__()
        n_in = context.horizon * context.action_dim + context.n_obs_steps * context.obs_dim
        self.first = nn.Linear(n_in, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(config.width) if config.layer_norm else nn.Identity(),
                nn.Linear(config.width, config.width),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.width, config.width),
            )
            for _ in range(config.n_blocks)
        )
        self.head = nn.Linear(config.width, 1, bias=False)

    def _encode(self, observation: Tensor) -> Tensor:
        return observation

    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor:
        x = self.first(torch.cat([actions.flatten(1), memory.flatten(1)], dim=-1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(F.gelu(x)).squeeze(-1)


energy_networks: Registry[EnergyNetwork] = Registry("energy network")


@energy_networks.register("energy_transformer", EnergyTransformerConfig)
def build_energy_transformer(
    config: EnergyTransformerConfig, *, context: NetworkContext
) -> EnergyTransformer:
    """Build an `EnergyTransformer`."""
    return EnergyTransformer(config, context)


@energy_networks.register("energy_mlp", EnergyMlpConfig)
def build_energy_mlp(config: EnergyMlpConfig, *, context: NetworkContext) -> EnergyMlp:
    """Build an `EnergyMlp`."""
    return EnergyMlp(config, context)
