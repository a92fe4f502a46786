"""A task that takes microseconds, for tests of what surrounds tasks."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest

from robot_datasets.features import STATE, Feature
from robot_sim import registry
from robot_sim.registry import TaskEntry, register_task
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

CAMERA = "observation.images.top"


class Walk(TaskEnv):
    """Walk to 1; every fourth seed is glued to its place."""

    def __init__(self, images: bool) -> None:
        features = {STATE: Feature(dtype="float32", shape=(1,), names=("x",), units=("m",))}
        if images:
            features[CAMERA] = Feature(dtype="uint8", shape=(4, 4, 3))
        self.task_spec = TaskSpec(
            name="walk",
            observation=features,
            action=Feature(
                dtype="float32", shape=(1,), names=("dx",), units=("m",), meaning="delta position"
            ),
            fps=5.0,
            max_steps=20,
            score="success",
            seed_start=1000,
            embodiment="point",
            instruction="walk to one",
        )
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._glued = seed is not None and seed % 4 == 3
        self._x, self._steps = float(self.np_random.uniform(-0.5, 0.0)), 0
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._x += 0.0 if self._glued else float(action[0])
        success = self._x >= 1.0
        info = {"is_success": success, "reward_terms": {"near": self._x}}
        return self._observe(), self._x, success, self._steps >= self.task_spec.max_steps, info

    def _observe(self) -> Observation:
        observation: Observation = {STATE: np.array([self._x], dtype=np.float32)}
        if CAMERA in self.task_spec.observation:
            observation[CAMERA] = np.full((4, 4, 3), int(100 * self._x) % 256, dtype=np.uint8)
        return observation


class Walker:
    """Walks with seeded strides; executes them doubled."""

    def reset(self, env: TaskEnv, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def act(self, observation: Observation) -> np.ndarray:
        return self._random.uniform(0.05, 0.1, 1).astype(np.float32)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        return 2 * action


@pytest.fixture
def walk_task(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the task `walk`, with an expert that fails on every fourth seed, and return its name."""

    def make_env(*, images: bool = False) -> Walk:
        return Walk(images)

    module: Any = ModuleType("walk_task_module")
    module.make_env, module.make_expert = make_env, Walker
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    register_task("walk", TaskEntry(module=module.__name__, packages=("numpy",), has_expert=True))
    return "walk"
