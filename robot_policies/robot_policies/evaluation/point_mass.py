"""A point mass in the plane: the smallest task, to test evaluation and plug-ins without a simulator."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Literal, cast

import gymnasium
import numpy as np

from robot_datasets.features import STATE, Feature
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

POSITION = Feature(dtype="float32", shape=(2,), names=("x", "y"), units=("m",), frame="world")
VELOCITY = Feature(
    dtype="float32", shape=(2,), names=("x", "y"), units=("m/s",), frame="world", meaning="velocity"
)
GOAL_RADIUS = 0.05
FPS = 10.0


class PointMass(TaskEnv):
    """Bring a point to the origin; reward ``exp(-distance)``, success within 5 cm.

    Options make chosen seeds misbehave, which is how the tests of evaluation provoke every kind of failure.
    """

    def __init__(
        self,
        *,
        max_steps: int = 20,
        score: Literal["success", "max_reward"] = "success",
        image_size: int = 64,
        raises: tuple[int, ...] = (),
        dies: tuple[int, ...] = (),
        hangs: tuple[int, ...] = (),
    ) -> None:
        """Configure the task.

        Args:
            max_steps: Steps after which an episode is truncated.
            score: How an episode is scored, see `TaskSpec`.
            image_size: Height and width of rendered frames [px].
            raises: Seeds whose third step raises an exception.
            dies: Seeds whose third step kills the process.
            hangs: Seeds whose third step never returns.
        """
        self.task_spec = TaskSpec(
            name="point_mass",
            observation={STATE: POSITION},
            action=VELOCITY,
            fps=FPS,
            max_steps=max_steps,
            score=score,
            seed_start=1000,
            embodiment="point",
            instruction="bring the point to the origin",
            goal=(STATE,),
        )
        space = observation_space(self.task_spec.observation)
        self.observation_space = cast("gymnasium.Space[Observation]", space)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
        self._size = image_size
        self._trouble = {"raises": raises, "dies": dies, "hangs": hangs}
        self._seed = -1
        self._position = np.zeros(2)
        self._rng = np.random.default_rng(0)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Put the point somewhere on the unit circle."""
        self._seed = -1 if seed is None else seed
        self._rng = np.random.default_rng(seed)
        angle = self._rng.uniform(0, 2 * np.pi)
        self._position = np.array([np.cos(angle), np.sin(angle)])
        self._steps = 0
        return self._observe(), {}

    def goal(self) -> Observation:
        """The origin."""
        return {STATE: np.zeros(2, dtype=np.float32)}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move by action / fps metres, with a little noise that the seed fixes."""
        self._steps += 1
        if self._steps == 3:
            self._make_trouble()
        self._position = self._position + np.asarray(action, dtype=np.float64) / FPS
        self._position += self._rng.normal(scale=1e-3, size=2)
        distance = float(np.linalg.norm(self._position))
        success = distance < GOAL_RADIUS
        truncated = self._steps >= self.task_spec.max_steps
        reward = float(np.exp(-distance))
        info = {"is_success": success, "reward_terms": {"closeness": reward}}
        return self._observe(), reward, False, truncated, info

    def render(self) -> np.ndarray:
        """Draw the goal and the point, (H, W, 3) uint8."""
        axis = np.linspace(-1.3, 1.3, self._size)
        x, y = np.meshgrid(axis, -axis)
        frame = np.full((self._size, self._size, 3), 245, dtype=np.uint8)
        frame[np.hypot(x, y) < 0.12] = (200, 230, 200)
        frame[np.hypot(x - self._position[0], y - self._position[1]) < 0.09] = (40, 90, 200)
        return frame

    def _observe(self) -> Observation:
        return {STATE: self._position.astype(np.float32)}

    def _make_trouble(self) -> None:
        if self._seed in self._trouble["raises"]:
            raise ValueError(f"the point fell off the plane (seed {self._seed})")
        if self._seed in self._trouble["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._seed in self._trouble["hangs"]:
            time.sleep(3600)


# What `robot_sim.registry.register_task` looks for in a task's module.
make_env = PointMass
