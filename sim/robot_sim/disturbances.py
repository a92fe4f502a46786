"""Disturbances of any task, to see what a policy can take: shoves, hidden views, late observations, other light.

A disturbance wraps a task and leaves its physics, success and reward alone. What it does in an episode depends on the
episode's seed only, so that two policies meet the same disturbance.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, is_image
from robot_sim.registry import TaskError
from robot_sim.task import Observation, TaskEnv

_GREY = 128


@dataclass(frozen=True, kw_only=True)
class Push:
    """The robot is shoved: actions are carried out with something added, now and then.

    Attributes:
        every: Mean number of steps between two shoves.
        steps: Length of a shove.
        strength: Of what is added, as a share of half the action's range.
    """

    every: int = 40
    steps: int = 4
    strength: float = 0.6

    def __post_init__(self) -> None:
        _require(self.every >= 1 and self.steps >= 1, "push: every and steps are at least 1")
        _require(
            0 < self.strength <= 2, f"push: strength is {self.strength}, expected more than 0, at most 2"
        )


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Something is in the way, now and then: a grey rectangle on every image; objects are last seen before it.

    Attributes:
        every: Mean number of steps between two occlusions.
        steps: Length of one.
        share: Share of the image's height and width that is covered.
    """

    every: int = 30
    steps: int = 10
    share: float = 0.5

    def __post_init__(self) -> None:
        _require(self.every >= 1 and self.steps >= 1, "occlusion: every and steps are at least 1")
        _require(0 < self.share <= 1, f"occlusion: share is {self.share}, expected more than 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Observations arrive late.

    Attributes:
        steps: By how many control steps.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"latency: steps is {self.steps}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """Another light in every episode: images are brighter or darker, and tinted.

    Attributes:
        brightness: Largest change of brightness, as a factor either way.
        tint: Largest change of one colour against the others.
    """

    brightness: float = 0.5
    tint: float = 0.15

    def __post_init__(self) -> None:
        _require(
            0 <= self.brightness < 1 and 0 <= self.tint < 1, "lighting: brightness and tint are in [0, 1)"
        )


Disturbance = Push | Occlusion | Latency | Lighting
KINDS: dict[str, type[Any]] = {"push": Push, "occlusion": Occlusion, "latency": Latency, "lighting": Lighting}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise TaskError(message)


class DisturbedTask(TaskEnv):
    """A task under a disturbance.

    Args:
        env: The task.
        disturbance: What happens.

    Raises:
        TaskError: The task has nothing that this disturbs.
    """

    def __init__(self, env: TaskEnv, disturbance: Disturbance) -> None:
        self._env, self._disturbance = env, disturbance
        self.task_spec = env.task_spec
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.metadata, self.render_mode = env.metadata, env.render_mode
        images = [name for name in self.task_spec.observation if is_image(name)]
        if isinstance(disturbance, Lighting) and not images:
            raise TaskError(
                f"task '{self.task_spec.name}' observes no images, so light changes nothing; add task.images=true"
            )
        if (
            isinstance(disturbance, Occlusion)
            and not images
            and ENVIRONMENT_STATE not in self.task_spec.observation
        ):
            raise TaskError(
                f"task '{self.task_spec.name}' observes neither images nor objects; nothing can be hidden"
            )
        self._random = np.random.default_rng(0)
        self._late: deque[Observation] = deque()
        self._left = 0
        self._shove = np.zeros(self.task_spec.action.shape)
        self._box = (0.0, 0.0)
        self._gain = np.ones(3)
        self._seen: Observation = {}

    @property
    def instruction(self) -> str:
        """The current episode's task in words."""
        return self._env.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode of the task; `seed` fixes the disturbance, too."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        observation, info = self._env.reset(seed=episode, options=options)
        self._random = np.random.default_rng([episode, 3])
        self._left, self._seen = 0, {}
        if isinstance(self._disturbance, Lighting):
            change, tint = self._disturbance.brightness, self._disturbance.tint
            self._gain = self._random.uniform(1 - change, 1 + change) * self._random.uniform(
                1 - tint, 1 + tint, 3
            )
        if isinstance(self._disturbance, Latency):
            self._late = deque([observation] * self._disturbance.steps)
        return self._disturbed(observation), info

    def goal(self) -> Observation:
        """What the episode is to reach."""
        return self._env.goal()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action, or an action and a shove."""
        if isinstance(self._disturbance, Push):
            action = self._pushed(np.asarray(action, dtype=np.float64), self._disturbance)
        observation, reward, terminated, truncated, info = self._env.step(action)
        return self._disturbed(observation), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """Return the task's picture, undisturbed."""
        return np.asarray(self._env.render())

    def close(self) -> None:
        """Close the task."""
        self._env.close()

    def _begins(self, every: int, steps: int) -> bool:
        """Count down what is under way; return whether something begins now."""
        if self._left > 0:
            self._left -= 1
            return False
        if self._random.random() < 1.0 / every:
            self._left = steps
            return True
        return False

    def _pushed(self, action: np.ndarray, push: Push) -> np.ndarray:
        low, high = np.asarray(self.action_space.low), np.asarray(self.action_space.high)  # type: ignore[attr-defined]
        if self._begins(push.every, push.steps):
            way = self._random.normal(size=action.shape)
            self._shove = push.strength * (high - low) / 2 * way / max(float(np.linalg.norm(way)), 1e-9)
        return np.clip(action + self._shove, low, high) if self._left > 0 else action

    def _disturbed(self, observation: Observation) -> Observation:
        kind = self._disturbance
        if isinstance(kind, Latency):
            self._late.append(observation)
            return self._late.popleft()
        if isinstance(kind, Lighting):
            return {n: self._lit(v) if is_image(n) else v for n, v in observation.items()}
        if isinstance(kind, Occlusion):
            return self._occluded(observation, kind)
        return observation

    def _lit(self, image: np.ndarray) -> np.ndarray:
        gain = self._gain if image.shape[-1] == 3 else self._gain[:1]
        return np.clip(image * gain, 0, 255).astype(np.uint8)

    def _occluded(self, observation: Observation, occlusion: Occlusion) -> Observation:
        if self._begins(occlusion.every, occlusion.steps):
            self._box = tuple(self._random.uniform(0, 1 - occlusion.share, 2))
        if self._left == 0:
            self._seen = observation
            return observation
        result = dict(observation)
        for name, value in observation.items():
            if is_image(name):
                size = np.array(value.shape[:2])
                top, left = (np.array(self._box) * size).astype(int)
                height, width = np.ceil(occlusion.share * size).astype(int)
                result[name] = value.copy()
                result[name][top : top + height, left : left + width] = _GREY
            elif name == ENVIRONMENT_STATE and name in self._seen:
                result[name] = self._seen[name]
        return result
