"""A demonstrator that carries out skills, one arm or two, and shows on purpose how to come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import Segment
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.registry import TaskError
from robot_sim.skills.follower import Follower, Waypoint
from robot_sim.skills.skill import Context
from robot_sim.skills.view import SceneView
from robot_sim.task import Observation, TaskEnv

DEFAULT_NOISE = 0.1
RECOVERY = "recovery"
_SHOVE_STEPS = 5  # length of a shove
_SHOVE = 0.9  # strength of a shove, in action units
_RECOVERY_STEPS = 12  # steps after a shove's end that are labelled as recovery
_LATEST_SHOVE = 60  # the shove begins within so many steps

Plan = Callable[[SceneView], Sequence[Iterator[Waypoint]]]


@dataclass(frozen=True)
class _Shove:
    start: int
    direction: np.ndarray


class SkillExpert:
    """Follows the waypoints of skills.

    Args:
        plan: Returns one stream of waypoints per arm for the episode that has just begun.
        noise: Standard deviation of the disturbance of the translation, in action units: executed, not recorded.
        recovery: Probability that the hand is shoved aside once in an episode. The shove is executed but not
            recorded: recorded is what leads back, labelled ``"recovery"``.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        noise: float = DEFAULT_NOISE,
        recovery: float = 0.0,
    ) -> None:
        if not 0 <= recovery <= 1:
            raise TaskError(f"recovery: {recovery}, expected a probability from 0 to 1")
        if noise < 0:
            raise TaskError(f"noise: {noise}, expected 0 or more")
        self._plan, self._noise, self._recovery = plan, noise, recovery
        self._random = np.random.default_rng(0)
        self._followers: list[Follower] = []
        self._shove: _Shove | None = None
        self._step = 0
        self._labels: list[str] = []

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Plan the episode `env` was just reset to; `seed` fixes the expert's own randomness.

        Raises:
            UnreachableError: The first pose is out of reach; later ones are found out on the way.
        """
        if not isinstance(env, MujocoTaskEnv):
            raise TaskError(f"task '{env.task_spec.name}' has no skills: it is not one of our MuJoCo tasks")
        if env.task_spec.action.meaning != "delta pose":
            raise TaskError("skills command poses; choose task.control=osc_delta to record them")
        task: Any = env.simulation.task
        arms = list(getattr(task, "arms", None) or [task.arm])
        self._random = np.random.default_rng([seed, 1])
        view = SceneView(env.simulation, arms)
        self._followers = [
            Follower(arm, waypoints) for arm, waypoints in zip(view.arms, self._plan(view), strict=True)
        ]
        shoved = self._random.random() < self._recovery
        start, way = int(self._random.integers(5, _LATEST_SHOVE)), self._random.normal(size=3)
        way[2] = abs(way[2])  # not into the table
        self._shove = _Shove(start, _SHOVE * way / np.linalg.norm(way)) if shoved else None
        self._step, self._labels = 0, []

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action of all arms (A,)."""
        del observation  # skills see the simulation
        parts = [follower.act() for follower in self._followers]
        recovering = (
            self._shove is not None and 0 <= self._step - self._shove.start < _SHOVE_STEPS + _RECOVERY_STEPS
        )
        self._labels.append(RECOVERY if recovering else "+".join(f.skill for f in self._followers))
        self._step += 1
        return np.clip(np.concatenate(parts), -1.0, 1.0).astype(np.float32)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        disturbed = action.astype(np.float64)
        since = self._step - 1 - (self._shove.start if self._shove is not None else self._step)
        for first in range(0, len(action), 7):
            disturbed[first : first + 3] += self._random.normal(0.0, self._noise, 3)
            if self._shove is not None and 0 <= since < _SHOVE_STEPS:
                disturbed[first : first + 3] = self._shove.direction
        return disturbed.clip(-1.0, 1.0).astype(np.float32)

    def segments(self) -> list[Segment | dict[str, Any]]:
        """Return which skill was under way when, so far."""
        found: list[Segment] = []
        for step, label in enumerate(self._labels):
            if found and found[-1].tag == label:
                found[-1] = Segment(found[-1].start, step + 1, label)
            else:
                found.append(Segment(step, step + 1, label))
        return list(found)


def one_arm(skills: Callable[[Context], Iterator[Waypoint]]) -> Plan:
    """Return the plan of a task with one arm."""
    return lambda scene: [skills(Context(scene, scene.arms[0]))]
