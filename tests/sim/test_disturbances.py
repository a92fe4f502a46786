"""Disturbances wrap any task, follow the seed, and leave what they do not disturb alone."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.disturbances import DisturbedTask, Latency, Lighting, Occlusion, Push
from robot_sim.registry import TaskError
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

IMAGE = "observation.images.top"


class Drift(TaskEnv):
    """A point that goes where it is told, seen as a state, an object and a picture."""

    def __init__(self, images: bool = True) -> None:
        features = {
            STATE: Feature(dtype="float32", shape=(1,), names=("x",), units=("m",)),
            ENVIRONMENT_STATE: Feature(dtype="float32", shape=(1,), names=("y",), units=("m",)),
        }
        if images:
            features[IMAGE] = Feature(dtype="uint8", shape=(8, 8, 3))
        self.task_spec = TaskSpec(
            name="drift", observation=features,
            action=Feature(dtype="float32", shape=(1,), names=("dx",), units=("m",), meaning="delta position"),
            fps=10.0, max_steps=100, score="success", seed_start=1000, embodiment="point", instruction="go",
        )  # fmt: skip
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._x, self._t = 0.0, 0
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._x, self._t = self._x + float(action[0]), self._t + 1
        return (
            self._observe(),
            self._x,
            False,
            self._t >= 100,
            {"is_success": False, "reward_terms": {"x": self._x}},
        )

    def _observe(self) -> Observation:
        observation: Observation = {
            STATE: np.array([self._x], dtype=np.float32),
            ENVIRONMENT_STATE: np.array([self._t], dtype=np.float32),
            IMAGE: np.full((8, 8, 3), 100, dtype=np.uint8),
        }
        return {name: observation[name] for name in self.task_spec.observation}


def _play(env: TaskEnv, seed: int, steps: int = 60) -> list[Observation]:
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(np.array([0.1]))[0] for _ in range(steps)]
    return observations


@pytest.mark.parametrize("kind", [Push(), Occlusion(), Latency(), Lighting()])
def test_a_disturbance_follows_the_seed(kind: Any) -> None:
    """The same seed is disturbed the same way in any instance; another one differs, but for latency."""
    env = DisturbedTask(Drift(), kind)
    first, again, other = _play(env, 1), _play(DisturbedTask(Drift(), kind), 1), _play(env, 2)
    for a, b in zip(first, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    differs = any((a[name] != b[name]).any() for a, b in zip(first, other, strict=True) for name in a)
    assert differs != isinstance(kind, Latency)


def test_a_push_moves_the_robot_and_nothing_else() -> None:
    """Positions leave the straight line; images and objects are as they were."""
    plain, pushed = _play(Drift(), 3), _play(DisturbedTask(Drift(), Push(every=10)), 3)
    assert abs(float(pushed[-1][STATE][0] - plain[-1][STATE][0])) > 0.2
    assert all((a[IMAGE] == b[IMAGE]).all() for a, b in zip(plain, pushed, strict=True))


def test_an_occlusion_covers_pictures_and_freezes_objects_for_a_while() -> None:
    """Some frames have a grey rectangle, and then the object stands where it was last seen; the robot is seen."""
    plain, hidden = _play(Drift(), 3), _play(DisturbedTask(Drift(), Occlusion(every=10, steps=5)), 3)
    covered = [(frame[IMAGE] == 128).any() for frame in hidden]
    assert 0 < sum(covered) < len(covered)
    for step, (a, b) in enumerate(zip(plain, hidden, strict=True)):
        np.testing.assert_array_equal(a[STATE], b[STATE])
        assert (a[ENVIRONMENT_STATE] == b[ENVIRONMENT_STATE]).all() != covered[step]


def test_late_observations_are_those_of_before() -> None:
    """Two steps late, from the first one on."""
    plain, late = _play(Drift(), 3), _play(DisturbedTask(Drift(), Latency(steps=2)), 3)
    for step, observation in enumerate(late):
        np.testing.assert_array_equal(observation[STATE], plain[max(0, step - 2)][STATE])


def test_light_changes_pictures_only() -> None:
    """One tint per episode, the same in every frame."""
    plain, lit = _play(Drift(), 3), _play(DisturbedTask(Drift(), Lighting()), 3)
    assert (lit[0][IMAGE] != plain[0][IMAGE]).any()
    np.testing.assert_array_equal(lit[0][IMAGE], lit[-1][IMAGE])
    np.testing.assert_array_equal(lit[-1][STATE], plain[-1][STATE])


def test_what_cannot_be_disturbed_is_said() -> None:
    """Light needs pictures; sizes have limits."""
    with pytest.raises(TaskError, match=r"task\.images=true"):
        DisturbedTask(Drift(images=False), Lighting())
    with pytest.raises(TaskError, match="share is 2"):
        Occlusion(share=2)
    with pytest.raises(TaskError, match="at least 1"):
        Latency(steps=0)
