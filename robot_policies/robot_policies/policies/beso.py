r"""BESO: score-based diffusion of actions, conditioned on goals, in three steps.

Reuss et al., "Goal-Conditioned Imitation Learning using Score-based Diffusion Policies", RSS 2023
(arXiv 2304.02532).

With A normalised actions, O the encoded observations, g the goal, n standard normal noise, and EDM's scalings
c_skip, c_in, c_out (`robot_policies.denoising.processes.EdmProcess`):

    training    x = A + sigma n;  ln(sigma) logistic around ln(sigma_data), cut to [sigma_min, sigma_max]
                D(x, O, g, sigma) = c_skip x + c_out F(c_in x, O, g, ln(sigma) / 4)
                loss = mean ((A - c_skip x) / c_out - F)^2;  g is hidden in a share `drop_goal` of the rows
    inference   sigma from 1 to 0.005 in three exponential steps, by DDIM, Euler's ancestral rule, ...
                D = D(g hidden) + goal_scale (D(g) - D(g hidden)): 0 forgets the goal, 1 follows it

F is one causal transformer over noise level, goal frames, and observations with their actions. The window decides
what it is. Per step, as published: T_o = T_p = 4, T_a = 1. Every action of the history is noised and supervised,
and the last one, index T_o - 1, is carried out::

    window               -3   -2   -1   now
    observation           s    s    s    s
    prediction            a    a    a    a
    execution                            x

Chunked: T_o = 2, T_p = 16, T_a = 8. The actions after now have no observation of their own::

    window               -1   now   1    2   ...   8   ...  14
    observation           s    s
    prediction            a    a    a    a         a         a
    execution                  x    x    x  (T_a)

    tokens                sigma  g_1 .. g_G  s_-1 a_-1  s_0 a_0  a_1  a_2 ...      each attends to those before it

F may also be the residual MLP of the smallest Diffusion Policy (``mlp``), which learns in minutes on a CPU.

Sampling starts from noise alone, while a noisy chunk of sigma 1 still says where the actions are if they are positions:
averaged over a chunk, noise is small. The network then trusts what sampling does not have, and answers near the
middle of the actions' range. Use a sigma_max well above 1 for such actions, as the small presets do.

Where this differs from the authors' code: a goal is hidden as a whole and per row, which their code does number by
number; their past actions are clean at inference but noisy in training, here the whole window is denoised in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_policies.configuration import ConfigError, Registry
from robot_policies.networks.base import NetworkContext
from robot_policies.networks.mlp import MlpConfig, ResidualMlp
from robot_policies.normalizer import Stats
from robot_policies.policies.diffusion import DiffusionPolicy, DiffusionPolicyConfig
from robot_policies.policies.registry import policies
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class ScoreTransformerConfig:
    """Sizes of a `ScoreTransformer`; defaults are those published for Franka Kitchen (9.4 M parameters)."""

    width: int = 360
    n_layers: int = 6
    n_heads: int = 6
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.3
    residual_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ConfigError(f"network.width={self.width} is not divisible by n_heads={self.n_heads}")


@dataclass(frozen=True, kw_only=True)
class ScoreContext(NetworkContext):
    """Sizes that a spec dictates, and the number of goal tokens, which are as wide as the network."""

    n_goal_tokens: int


class CausalBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward part."""

    def __init__(self, config: ScoreTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.n_heads, self.attention_dropout = config.n_heads, config.attention_dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(config.residual_dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        heads = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ScoreTransformer(nn.Module):
    """F of the module docstring: (B, T_p, A), time (B,), goal and observation tokens -> (B, T_p, A)."""

    def __init__(self, config: ScoreTransformerConfig, context: ScoreContext) -> None:
        super().__init__()
        width = config.width
        self.context = context
        self.noise_in = nn.Linear(1, width)
        self.observation_in = nn.Linear(context.obs_dim, width)
        self.action_in = nn.Linear(context.action_dim, width)
        # An action shares the position of its observation; the noise level has none.
        self.position = nn.Parameter(torch.empty(context.n_goal_tokens + context.horizon, width))
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.Sequential(*(CausalBlock(config) for _ in range(config.n_layers)))
        self.norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, context.action_dim)
        self.apply(_init_weights)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, noisy: Tensor, time: Tensor, given: Tensor) -> Tensor:
        """Run the network; `given` is what `BesoPolicy.combine` makes of goal and observation."""
        context, width = self.context, self.position.shape[1]
        n_goal, n_obs = context.n_goal_tokens, context.n_obs_steps
        level = self.noise_in((time / 40)[:, None].to(noisy.dtype))[:, None]  # time is 10 ln(sigma)
        steps = self.position[n_goal:]
        seen = self.observation_in(given[:, n_goal:, : context.obs_dim]) + steps[:n_obs]
        actions = self.action_in(noisy) + steps
        tokens = [torch.stack([seen, actions[:, :n_obs]], dim=2).flatten(1, 2), actions[:, n_obs:]]
        if n_goal:
            tokens.insert(0, given[:, :n_goal, :width] + self.position[:n_goal])
        x = torch.cat([level, self.dropout(torch.cat(tokens, dim=1))], dim=1)
        x = self.blocks(x)[:, 1 + n_goal :]
        x = torch.cat([x[:, 1 : 2 * n_obs : 2], x[:, 2 * n_obs :]], dim=1)
        return self.action_out(self.norm(x))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class ScoreMlp(ResidualMlp):
    """F as the residual MLP of the smallest Diffusion Policy: goal and observation tokens, flattened."""

    def __init__(self, config: MlpConfig, context: ScoreContext) -> None:
        self.goal_size = context.n_goal_tokens * config.width
        given = self.goal_size + context.n_obs_steps * context.obs_dim
        super().__init__(config, replace(context, obs_dim=given, n_obs_steps=1))
        self.context = context

    def forward(self, noisy: Tensor, step: Tensor, observation: Tensor) -> Tensor:
        """Run the network; `observation` is what `BesoPolicy.combine` makes of goal and observation."""
        n, context = self.context.n_goal_tokens, self.context
        goal = observation[:, :n, : self.goal_size // max(n, 1)]
        seen = observation[:, n:, : context.obs_dim]
        return super().forward(noisy, step, torch.cat([goal.flatten(1), seen.flatten(1)], dim=-1)[:, None])


score_networks: Registry[ScoreTransformer | ScoreMlp] = Registry("score network")


@score_networks.register("score_transformer", ScoreTransformerConfig)
def build_score_transformer(config: ScoreTransformerConfig, *, context: ScoreContext) -> ScoreTransformer:
    """Build a `ScoreTransformer`."""
    return ScoreTransformer(config, context)


@score_networks.register("mlp", MlpConfig)
def build_score_mlp(config: MlpConfig, *, context: ScoreContext) -> ScoreMlp:
    """Build a `ScoreMlp`."""
    return ScoreMlp(config, context)


@dataclass(frozen=True, kw_only=True)
class BesoPolicyConfig(DiffusionPolicyConfig):
    """Options of a `BesoPolicy`: those of a diffusion policy, with BESO's defaults.

    Attributes:
        network: ``score_transformer``, or ``mlp``, which learns in minutes on a CPU.
        process: EDM, with BESO's noise levels.
        sampler: Three DDIM steps.
        drop_goal: Share of the training rows without goal.
    """

    network: Mapping[str, Any] = field(default_factory=lambda: {"type": "score_transformer"})
    process: Mapping[str, Any] = field(
        default_factory=lambda: {
            "type": "edm",
            "sigma_min": 0.005,
            "sigma_max": 1.0,
            "spacing": "exponential",
            "training_levels": "log_logistic",
        }
    )
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"type": "ddim", "steps": 3})
    drop_goal: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.process.get("type") != "edm":
            raise ConfigError(
                f"policy.process.type is {self.process.get('type')!r}; BESO's network is told ln(sigma) and "
                "needs 'edm'; use policy.type=diffusion for other processes"
            )


class BesoPolicy(DiffusionPolicy):
    """A `DiffusionPolicy` whose network takes goals and observations as tokens of one sequence."""

    registry = score_networks
    network: ScoreTransformer | ScoreMlp

    def __init__(self, config: BesoPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        network = score_networks.config(config.network, where="policy.network")
        # Goal frames and words enter the sequence through one affine map, as observations do.
        super().__init__(
            replace(config, goal_encoder={**config.goal_encoder, "width": network.width}), spec, stats
        )

    def network_context(self) -> ScoreContext:
        """Sizes for the network; goals are tokens of their own."""
        return ScoreContext(
            action_dim=self.spec.action_dim,
            horizon=self.spec.horizon,
            obs_dim=self.encoder.out_dim,
            n_obs_steps=self.spec.n_obs_steps,
            n_goal_tokens=0 if self.goal_encoder is None else self.goal_encoder.n_tokens,
        )

    def combine(self, observation: Tensor, tokens: Tensor) -> Tensor:
        """Goal tokens (B, N, W), then observations (B, T_o, D), padded with zeros to one width."""
        width = max(observation.shape[-1], tokens.shape[-1])
        return torch.cat([F.pad(x, (0, width - x.shape[-1])) for x in (tokens, observation)], dim=1)

    def without_goal(self, encoded: Tensor) -> Tensor:
        """The same with goal tokens of zeros."""
        n = self.network.context.n_goal_tokens
        return torch.cat([torch.zeros_like(encoded[:, :n]), encoded[:, n:]], dim=1)


@policies.register("beso", BesoPolicyConfig)
def build_beso_policy(config: BesoPolicyConfig, *, spec: PolicySpec, stats: Stats | None) -> BesoPolicy:
    """Build a `BesoPolicy`."""
    return BesoPolicy(config, spec, stats)
