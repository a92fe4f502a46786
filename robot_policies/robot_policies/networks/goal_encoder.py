r"""From goals to tokens: goal frames and instructions, side by side or aligned in one space.

A policy whose spec has a goal is given N tokens of width W for it, (B, N, W):

`tokens`: one token per goal frame and one for the instruction, each an affine map of what it shows; the policy
is given all of them.

`aligned`: one token z, from goal frames *or* from an instruction (GRIF; Myers et al., "Goal Representations for
Instruction Following", CoRL 2023, arXiv 2307.00117). With o the observation, g the goal, l the instruction and
unit vectors f(o, g), h(l)::

    alignment   InfoNCE, both ways:  f_i should be nearer to h_i than to the h_j of other rows, and vice versa;
                cosine similarities over a learned temperature. f sees start and goal, so h(l) comes to name the
                *change* that an instruction asks for, not the scene in which it was given
    policy      z = f(o, g) for a row without instruction; with one, h(l) for a share of the rows
    inference   z = h(l) if there is an instruction, else f(o, g)

Rows with the same instruction are no negatives of each other, and rows without one (the empty string) take no
part. That is what the alignment is for: few labelled episodes, many that only show what they reached.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_datasets.goals import GOAL_PREFIX, TASK
from robot_policies.configuration import ConfigError, Registry
from robot_policies.language import InstructionEmbedding, text_encoders
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer
from robot_policies.spec import PolicySpec


class EncodedGoal(NamedTuple):
    """Tokens (B, N, W), and a loss of the encoder's own (a scalar) or None."""

    tokens: Tensor
    loss: Tensor | None


@dataclass(frozen=True, kw_only=True)
class GoalContext:
    """What a policy dictates to its goal encoder.

    Attributes:
        spec: Its `goal`, `n_goal_steps` and `instructed` say what is given.
        obs_dim: D, width of one encoded observation.
        image_encoder: Encoder of each camera of the goal.
    """

    spec: PolicySpec
    obs_dim: int
    image_encoder: Mapping[str, Any] | None


class GoalEncoder(nn.Module, ABC):
    """Encodes what a batch says of its goal; what it does not say is a token of zeros.

    Attributes:
        n_tokens: N.
        width: W.
        either: Whether goal features and instruction are alternatives, so that one of them is enough.
    """

    n_tokens: int
    width: int
    either = False

    def __init__(self, context: GoalContext, text: Mapping[str, Any]) -> None:
        super().__init__()
        spec = context.spec
        self.features = tuple(spec.goal)
        self.instructed = spec.instructed
        # The goal's features take the place of the observation's.
        shown = replace(spec, observation=spec.goal)
        self.frames = ObservationEncoder(shown, context.image_encoder) if spec.goal else None
        self.n_frames = spec.n_goal_steps if spec.goal else 0
        self.embed = InstructionEmbedding(text_encoders.build(text, where="policy.goal_encoder.text"))

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], observation: Tensor, normalizer: Normalizer) -> EncodedGoal:
        """Encode ``batch["goal.*"]`` (B, G, ...) and ``batch["task"]``; `observation` is (B, T_o, D), encoded."""

    def encode_frames(self, batch: Mapping[str, Any], normalizer: Normalizer) -> Tensor | None:
        """Goal frames (B, G, D_g); None if the batch has none."""
        if self.frames is None or any(GOAL_PREFIX + name not in batch for name in self.features):
            return None
        return self.frames({name: batch[GOAL_PREFIX + name] for name in self.features}, normalizer)

    def encode_text(self, batch: Mapping[str, Any], like: Tensor) -> Tensor | None:
        """Embedded instructions (B, D_t); None if the batch has none."""
        if not self.instructed or TASK not in batch:
            return None
        return self.embed(batch[TASK], like.device)


@dataclass(frozen=True, kw_only=True)
class GoalTokensConfig:
    """Options of `GoalTokens`.

    Attributes:
        width: W.
        text: Text encoder.
    """

    width: int = 64
    text: Mapping[str, Any] = field(default_factory=lambda: {"type": "hashed_ngrams"})


class GoalTokens(GoalEncoder):
    """One token per goal frame, one for the instruction."""

    def __init__(self, config: GoalTokensConfig, context: GoalContext) -> None:
        super().__init__(context, config.text)
        self.width = config.width
        self.n_tokens = self.n_frames + self.instructed
        self.frame_in = None if self.frames is None else nn.Linear(self.frames.out_dim, config.width)
        self.text_in = nn.Linear(self.embed.width, config.width) if self.instructed else None

    def forward(self, batch: Mapping[str, Any], observation: Tensor, normalizer: Normalizer) -> EncodedGoal:
        """Encode the goal; see the class."""
        tokens = []
        if self.frame_in is not None:
            frames = self.encode_frames(batch, normalizer)
            blank = observation.new_zeros(len(observation), self.n_frames, self.width)
            tokens.append(blank if frames is None else self.frame_in(frames))
        if self.text_in is not None:
            text = self.encode_text(batch, observation)
            blank = observation.new_zeros(len(observation), 1, self.width)
            tokens.append(blank if text is None else self.text_in(text)[:, None])
        return EncodedGoal(torch.cat(tokens, dim=1), None)


@dataclass(frozen=True, kw_only=True)
class AlignedGoalConfig:
    """Options of `AlignedGoal`.

    Attributes:
        width: W, of the common space.
        hidden: Width of the hidden layers of f and h.
        weight: Weight of the alignment in the loss.
        instruction_share: Share of the rows with an instruction that the policy is trained on with h(l).
        temperature: Initial temperature of the similarities; it is learned.
        text: Text encoder.
    """

    width: int = 64
    hidden: int = 256
    weight: float = 0.1
    instruction_share: float = 0.5
    temperature: float = 0.1
    text: Mapping[str, Any] = field(default_factory=lambda: {"type": "hashed_ngrams"})

    def __post_init__(self) -> None:
        if not 0 <= self.instruction_share <= 1 or self.temperature <= 0:
            raise ConfigError(
                "goal_encoder needs instruction_share in [0, 1] and temperature > 0, "
                f"got {self.instruction_share} and {self.temperature}"
            )


class AlignedGoal(GoalEncoder):
    """One token, from start and goal or from the instruction, aligned with each other."""

    either = True
    n_tokens = 1

    def __init__(self, config: AlignedGoalConfig, context: GoalContext) -> None:
        super().__init__(context, config.text)
        if self.frames is None or not self.instructed:
            raise ConfigError(
                "goal_encoder 'aligned' needs goals and instructions; set dataset.goal and dataset.instruction, "
                "or use type: tokens"
            )
        self.config = config
        self.width = config.width
        seen = context.obs_dim + self.n_frames * self.frames.out_dim
        self.change = _mlp(seen, config.hidden, config.width)
        self.words = _mlp(self.embed.width, config.hidden, config.width)
        self.log_scale = nn.Parameter(torch.tensor(1.0 / config.temperature).log())

    def forward(self, batch: Mapping[str, Any], observation: Tensor, normalizer: Normalizer) -> EncodedGoal:
        """Encode the goal; see the module docstring."""
        frames, text = self.encode_frames(batch, normalizer), self.encode_text(batch, observation)
        token = observation.new_zeros(len(observation), self.width)
        shown = spoken = loss = None
        if frames is not None:
            now = observation[:, -1]
            shown = F.normalize(self.change(torch.cat([now, frames.flatten(1)], dim=-1)).float(), dim=-1)
            token = shown
        if text is not None:
            spoken = F.normalize(self.words(text).float(), dim=-1)
            uses_words = text.abs().sum(dim=-1) > 0
            if shown is not None and self.training:
                loss = self.config.weight * alignment_loss(shown, spoken, text, self.log_scale)
                uses_words &= torch.rand(len(text), device=text.device) < self.config.instruction_share
            token = torch.where(uses_words[:, None], spoken, token)
        # Components of about unit size, like the observation's.
        return EncodedGoal((token * self.width**0.5).to(observation.dtype)[:, None], loss)


def alignment_loss(shown: Tensor, spoken: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between unit vectors (B, W); see the module docstring.

    Args:
        shown: f(o, g).
        spoken: h(l).
        text: The embedded instructions (B, D_t), to tell which rows have the same one; zeros for none.
        log_scale: Logarithm of the inverse temperature.
    """
    labelled = text.abs().sum(dim=-1) > 0
    same = (text[:, None] == text[None]).all(dim=-1)
    shut_out = same & ~torch.eye(len(text), dtype=torch.bool, device=text.device)
    shut_out = shut_out | ~labelled[None] | ~labelled[:, None]
    # A limit on the scale keeps a batch of few instructions from pressing it up without end (CLIP's).
    similarity = shown @ spoken.T * log_scale.clamp(max=4.6).exp()
    similarity = similarity.masked_fill(shut_out, -1e4)
    rows = torch.arange(len(text), device=text.device)
    each = F.cross_entropy(similarity, rows, reduction="none") + F.cross_entropy(
        similarity.T, rows, reduction="none"
    )
    return (each * labelled).sum() / (2 * labelled.sum().clamp(min=1))


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, n_out)
    )


goal_encoders: Registry[GoalEncoder] = Registry("goal encoder")


@goal_encoders.register("tokens", GoalTokensConfig)
def build_goal_tokens(config: GoalTokensConfig, *, context: GoalContext) -> GoalTokens:
    """Build a `GoalTokens`."""
    return GoalTokens(config, context)


@goal_encoders.register("aligned", AlignedGoalConfig)
def build_aligned_goal(config: AlignedGoalConfig, *, context: GoalContext) -> AlignedGoal:
    """Build an `AlignedGoal`."""
    return AlignedGoal(config, context)
