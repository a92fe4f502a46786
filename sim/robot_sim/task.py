"""The task contract: a Gymnasium environment that says what its numbers mean.

A task is a scene, a reset distribution that a seed fixes completely, an observation map, named reward
terms, a success predicate and, where one exists, a scripted expert. One task is one file in
`robot_sim.tasks`, registered by name in `robot_sim.registry`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium
import numpy as np

from robot_datasets.episode import Segment
from robot_datasets.errors import UserError
from robot_datasets.features import ACTION, Feature

Observation = dict[str, np.ndarray]


class EpisodeSkippedError(UserError):
    """An expert cannot play this episode, e.g. for a pose out of reach: it is set aside and counted."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What a task offers and how it is scored; recorded with every result.

    Attributes:
        name: Registered name, e.g. ``"lift"``.
        observation: Features in every observation, by name.
        action: The action feature, shape (A,), physical units.
        fps: Control rate [Hz].
        max_steps: Steps after which an episode is truncated.
        score: ``"success"``: 1 if the episode succeeded at any step, else 0.
            ``"max_reward"``: the largest reward of the episode, in [0, 1]. ``"return"``: the sum of its rewards.
        seed_start: First held-out evaluation seed; demonstrations are generated from seeds below it.
        embodiment: Robot name, e.g. ``"panda"``.
        instruction: The task in words.
        goal: Names of the observation features that `TaskEnv.goal` speaks of; empty if of none.
    """

    name: str
    observation: Mapping[str, Feature]
    action: Feature
    fps: float
    max_steps: int
    score: Literal["success", "max_reward", "return"]
    seed_start: int
    embodiment: str
    instruction: str
    goal: tuple[str, ...] = ()

    @property
    def features(self) -> dict[str, Feature]:
        """Observation features and the action, by name."""
        return {**self.observation, ACTION: self.action}


class TaskEnv(gymnasium.Env[Observation, np.ndarray]):
    """A Gymnasium environment with a `TaskSpec`.

    ``reset(seed=s)`` fixes everything that follows: two environments reset with the same seed and given
    the same actions return bit-identical observations, in any process. ``step`` returns
    ``info["is_success"]`` (bool) and ``info["reward_terms"]`` (name -> float). Images are (H, W, C)
    uint8. ``render()`` returns an (H, W, 3) uint8 frame for videos and needs no window.
    """

    task_spec: TaskSpec

    @abstractmethod
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode that `seed` names; a task calls this first, to seed ``self.np_random``."""
        super().reset(seed=seed, options=options)
        return {}, {}

    @property
    def instruction(self) -> str:
        """The current episode's task in words: the spec's, or a paraphrase of it."""
        return self.task_spec.instruction

    def goal(self) -> Observation:
        """What the current episode is to reach, in the features that the spec's `goal` names.

        A feature that the goal leaves open (where the hand is, when the block lies on its target) is left out.
        """
        return {}

    @abstractmethod
    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action (A,) in physical units for 1/fps seconds."""


class Expert(Protocol):
    """A scripted demonstrator of one task."""

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Prepare for the episode `env` was just reset to; `seed` fixes the expert's own randomness."""
        ...

    def act(self, observation: Observation) -> np.ndarray:
        """Return the next action (A,)."""
        ...

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded; `action` itself for none.

        Executing a disturbed action while recording the intended one shows how to come back from beside the
        expert's path, without teaching the disturbance.
        """
        ...


@runtime_checkable
class LabelsSegments(Protocol):
    """An expert that says which part of its episode is what."""

    def segments(self) -> list[Segment | dict[str, Any]]:
        """Return the labelled parts of the episode so far."""
        ...
