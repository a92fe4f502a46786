"""One environment of an own MuJoCo task, behind the project's `TaskEnv`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from robot_datasets.features import IMAGE_PREFIX
from robot_sim.actions import checked_action
from robot_sim.mujoco_tasks.randomization import Randomization
from robot_sim.mujoco_tasks.simulation import SimulationError, SimulationSnapshot, TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv
from robot_sim.vector.cameras import Painter


class MujocoTaskEnv(TaskEnv):
    """A `MujocoTask` with N = 1.

    Args:
        task: The task.
        randomization: What varies between episodes besides their initial states.
        render_size: Side of the frames that `render` returns [px].

    Attributes:
        simulation: What runs; scripted experts and tests read it.
    """

    def __init__(
        self, task: MujocoTask, *, randomization: Randomization | None = None, render_size: int = 256
    ) -> None:
        self.task_spec = task.full_spec
        self.simulation = TaskSimulation(task, 1, threads=0, randomization=randomization)
        controller = self.simulation.controller
        self.observation_space = observation_space(self.task_spec.observation)
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (controller.low, controller.high))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(task.spec.fps)}
        self.render_mode = "rgb_array"
        self._task, self._render_size = task, render_size
        self._painter = Painter(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode that `seed` names; None draws one.

        Args:
            seed: In [0, 2**32).
            options: Unused.
        """
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        self.simulation.reset([0], [episode])
        return self._observe(), self._evaluate()[1]

    def goal(self) -> Observation:
        """What the current episode is to reach."""
        return {name: value[0] for name, value in self._task.goal(self.simulation).items()}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action (A,) for 1/fps seconds; components beyond the action space are clipped.

        Raises:
            ActionError: Wrong shape or not finite.
            SimulationError: The physics became unstable.
        """
        checked = checked_action(action, self.task_spec.action, task=self.task_spec.name)
        self.simulation.step(checked[None])
        reward, info = self._evaluate()
        truncated = bool(self.simulation.n_steps[0] >= self.task_spec.max_steps)
        return self._observe(), reward, info["is_success"], truncated, info

    def render(self) -> np.ndarray:
        """Return the scene from the task's `view`, (render_size, render_size, 3) uint8."""
        return self._draw(self._task.view, self._render_size)

    def save_state(self) -> SimulationSnapshot:
        """Return all that the rest of the episode depends on."""
        return self.simulation.save()

    def restore_state(self, state: SimulationSnapshot) -> Observation:
        """Go back to a saved state and return its observation."""
        self.simulation.restore(state)
        return self._observe()

    def close(self) -> None:
        """Free the renderer."""
        self._painter.close()

    def _observe(self) -> Observation:
        observation = {name: value[0] for name, value in self.simulation.observe().items()}
        for camera in self._task.cameras:
            observation[IMAGE_PREFIX + camera] = self._draw(camera, self._task.image_size)
        return observation

    def _evaluate(self) -> tuple[float, dict[str, Any]]:
        outcome = self.simulation.outcome()
        if outcome.diverged[0]:
            raise SimulationError(
                f"task '{self.task_spec.name}': the physics became unstable after "
                f"{self.simulation.physics.time[0]:.3f} s; smaller actions or a smaller time-step help"
            )
        terms = {name: float(value[0]) for name, value in outcome.terms.items()}
        info = {"is_success": bool(outcome.success[0]), "reward_terms": terms}
        return float(outcome.reward[0]), info

    def _draw(self, camera: str, size: int) -> np.ndarray:
        self.simulation.dress(self._painter.model, self._painter.data, 0)
        return self._painter.paint(camera, size, "rgb")
