"""The policy contract: a loss for the trainer, an action chunk for everyone else.

A batch (see `robot_policies.spec.PolicySpec` for the time window; B is the batch size)::

    batch["observation.state"]          (B, T_o, D)         float32, physical units
    batch["observation.images.<cam>"]   (B, T_o, C, H, W)   uint8
    batch["action"]                     (B, T_p, A)         float32, physical units
    batch["action_is_pad"]              (B, T_p)            bool, True where the episode's edge was repeated
    batch["goal.<feature>"]             (B, G, ...)         what is to be reached, if the spec has goals
    batch["task"]                       B strings           the instruction, if the spec says so

Normalisation lives inside the policy and travels with its weights: callers see physical units only.
A policy owns no optimiser, device, EMA or logger; those belong to the trainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robot_datasets.features import Feature, is_image
from robot_datasets.goals import GOAL_PREFIX, TASK
from robot_policies.configuration import ConfigError
from robot_policies.spec import PolicySpec, SpecError

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """A scalar to minimise and its named terms (detached), every one of which is logged."""

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PredictedFrames:
    """What a policy expects to see.

    Attributes:
        frames: (B, K, C, H, W) uint8 by camera; their size is the codec's.
        offsets: Steps after now, K of them, by camera.
    """

    frames: Mapping[str, Tensor]
    offsets: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """A predicted window of actions.

    Attributes:
        actions: (B, T_p, A) in physical units. Index T_o - 1 is the action for now.
        n_network_calls: Forward passes of the denoising network that this chunk cost.
        energy: (B,) uncertainty score, for policies that have one.
        samples: (B, S, T_p, A) candidate chunks, for policies that draw several.
        predicted_frames: For policies that predict video.
    """

    actions: Tensor
    n_network_calls: int
    energy: Tensor | None = None
    samples: Tensor | None = None
    predicted_frames: PredictedFrames | None = None


@dataclass(frozen=True, kw_only=True)
class RunningPlan:
    """What a new chunk has to agree with; see `robot_policies.execution.executor.Continuation`.

    Attributes:
        actions: (B, T_p, A) in physical units, aligned with the chunk: index T_o - 1 is the action for now.
        weights: (B, T_p) in [0, 1]; a row of zeros is free.
        limit: Largest gain of the guidance.
    """

    actions: Tensor
    weights: Tensor
    limit: float


class Policy(nn.Module, ABC):
    """A model that maps the last T_o observations to the next T_p actions."""

    spec: PolicySpec

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the training loss of a batch; draws noise from torch's global generator."""

    @abstractmethod
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict an action chunk, without gradients.

        Args:
            observation: The spec's observation features, (B, T_o, ...), physical units.
            goal: For policies whose spec has a goal: its features, (B, G, ...), physical units, and the
                instructions under ``"task"``, B strings.
            generator: Source of noise. One generator per row makes each row's noise independent of what
                else is in the batch, which evaluation uses so that results do not depend on batch size.
            sampler: Replaces the policy's default sampler, e.g. ``{"type": "ddim", "steps": 8}``.

        Raises:
            SpecError: An observation or goal feature is missing or has another shape.
        """

    def continue_chunk(
        self,
        observation: Mapping[str, Tensor],
        plan: RunningPlan,
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict a chunk that continues a plan, for real-time chunking; otherwise as `predict_chunk`.

        Raises:
            ConfigError: This policy cannot.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot continue a running plan; use executor.continuation=none"
        )

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups; biases, norms and embeddings are not decayed in transformers."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "weight_decay": weight_decay}]

    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def check_observation(self, observation: Mapping[str, Tensor]) -> int:
        """Return the batch size; raise `SpecError` unless every feature has the spec's shape."""
        sizes = {
            _check_feature("observation", name, observation, feature, self.spec.n_obs_steps)
            for name, feature in self.spec.observation.items()
        }
        if len(sizes) != 1:
            raise SpecError(f"observation features have different batch sizes: {sorted(sizes)}")
        return sizes.pop()

    def check_goal(self, goal: Mapping[str, Any], batch_size: int) -> None:
        """Raise `SpecError` unless `goal` is what the spec says, for `batch_size` rows.

        Where goal features and words are alternatives, all of the former or the latter are enough.
        """
        spec = self.spec
        for name in goal:
            if name not in spec.goal and not (name == TASK and spec.instructed):
                wanted = [*spec.goal, *([TASK] if spec.instructed else [])]
                raise SpecError(
                    f"goal '{name}' is not what this policy was trained with; it takes "
                    f"{', '.join(wanted) or 'no goal: leave it out'}"
                )
        sizes: set[int] = set()
        told = TASK in goal
        if not (spec.either_goal and told and len(goal) == 1):
            for name, feature in spec.goal.items():
                sizes.add(_check_feature("goal", name, goal, feature, spec.n_goal_steps))
        if spec.instructed and (told or not spec.either_goal):
            if isinstance(goal.get(TASK), str) or not goal.get(TASK):
                raise SpecError(f"goal '{TASK}' is {goal.get(TASK)!r}; expected one instruction per row")
            sizes.add(len(goal[TASK]))
        if sizes - {batch_size}:
            raise SpecError(f"the goal is for {sorted(sizes)} rows, the observation for {batch_size}")


def _check_feature(kind: str, name: str, values: Mapping[str, Tensor], feature: Feature, n_steps: int) -> int:
    """Return the batch size of one feature (B, n_steps, ...)."""
    value = values.get(name)
    if value is None:
        raise SpecError(f"{kind} '{name}' is missing; got {', '.join(sorted(values)) or 'nothing'}")
    shape = feature.shape
    if is_image(name):
        shape = (shape[2], shape[0], shape[1])
    expected = (n_steps, *shape)
    if tuple(value.shape[1:]) != expected:
        want = ", ".join(map(str, expected))
        raise SpecError(f"{kind} '{name}' has shape {tuple(value.shape)}, expected (B, {want})")
    return value.shape[0]


def draw_normal(shape: Sequence[int], *, generator: Generators, like: Tensor) -> Tensor:
    """Standard normal noise of `shape` on the device and dtype of `like`; one generator per row if given.

    Noise is drawn on the generator's own device (CPU by default) so that a seed means the same
    everywhere.
    """
    if generator is None:
        return torch.randn(tuple(shape), device=like.device, dtype=like.dtype)
    if isinstance(generator, torch.Generator):
        noise = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)
    else:
        if len(generator) != shape[0]:
            raise ValueError(f"got {len(generator)} generators for a batch of {shape[0]}")
        noise = torch.stack([torch.randn(tuple(shape[1:]), generator=g, device=g.device) for g in generator])
    return noise.to(device=like.device, dtype=like.dtype)


def goal_of_batch(batch: Mapping[str, Any], spec: PolicySpec) -> dict[str, Any] | None:
    """The goal in a training batch, as `Policy.predict_chunk` takes it; None if the spec has none."""
    if not spec.has_goal:
        return None
    goal = {name: batch[GOAL_PREFIX + name] for name in spec.goal}
    return {**goal, TASK: batch[TASK]} if spec.instructed else goal
