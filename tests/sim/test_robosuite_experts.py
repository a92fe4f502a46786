"""Scripted experts of robosuite's own tasks: they succeed, need no memory, and say what they cannot play."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("robosuite") is None:  # not importorskip: the task has to choose a back end before mujoco loads
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ACTION
from robot_datasets.store import EpisodeStore
from robot_sim.experts.hand import nearest_turn, scene_of, turn_down, yaw_of
from robot_sim.generate import GenerationPlan, generate
from robot_sim.registry import TaskError, expert_defaults, make_expert, make_task
from robot_sim.rotations import rotation_vector_to_matrix
from robot_sim.task import Expert, Observation, TaskEnv

WITH_EXPERT = "Can, robosuite/Lift, robosuite/NutAssemblySquare, robosuite/PickPlaceCan, robosuite/Square"


def _play(env: TaskEnv, expert: Expert, seed: int) -> tuple[list[Observation], list[np.ndarray], bool]:
    """Return what was observed, what was intended, and whether it succeeded."""
    observation, _ = env.reset(seed=seed)
    expert.reset(env, seed)
    observations: list[Observation] = []
    actions: list[np.ndarray] = []
    while True:
        observations.append(observation)
        actions.append(expert.act(observation))
        observation, _, terminated, truncated, _ = env.step(expert.perturb(actions[-1]))
        if terminated or truncated:
            return observations, actions, terminated


@pytest.fixture(scope="module")
def lift() -> Iterator[TaskEnv]:
    """Lift of robosuite, shared: building one takes long."""
    task = make_task("robosuite/Lift")
    yield task
    task.close()


def test_the_expert_of_lift_succeeds(lift: TaskEnv) -> None:
    """A seed is solved."""
    assert _solved("Lift", lift, 0)


# Square 1: as the nut lies, its handle would end beyond the peg. Can 9: with the hand upright, the arm got stuck.
@pytest.mark.parametrize(("task", "seed"), [("Can", 9), ("Square", 1)])
def test_an_expert_succeeds(task: str, seed: int) -> None:
    """A seed that was hard is solved."""
    env = make_task(f"robosuite/{task}")
    assert _solved(task, env, seed)
    env.close()


def _solved(task: str, env: TaskEnv, seed: int) -> bool:
    """Whether the seed is solved; the same observations in another order must lead to the same actions."""
    expert, other = make_expert(f"robosuite/{task}"), make_expert(f"robosuite/{task}")
    observations, actions, success = _play(env, expert, seed)
    other.reset(env, seed + 1)
    for observation, action in zip(reversed(observations), reversed(actions), strict=True):
        np.testing.assert_array_equal(other.act(observation), action)
        assert np.abs(action).max() <= 1.0
    return success


def test_demonstrations_are_generated(tmp_path: Path) -> None:
    """Generating works as for tasks of ours, and records the expert's noise."""
    report = generate(GenerationPlan(task="robosuite/Lift", episodes=1), tmp_path / "lift.zarr", workers=0)
    assert (report.n_episodes, dict(report.failed)) == (1, {})
    store = EpisodeStore.open(tmp_path / "lift.zarr")
    assert store.attributes["conversion"]["options"]["expert_options"] == {"noise": 0.3}
    assert store.features[ACTION].meaning == "delta pose"


@pytest.mark.parametrize("task", ["Door", "PickPlace", "PickPlaceMilk", "NutAssemblyRound", "Transport"])
def test_a_task_without_an_expert_says_where_there_is_one(task: str) -> None:
    """The message names the tasks of robosuite that have one."""
    problem = f"task 'robosuite/{task}' has no scripted expert .*choose one of: robosuite/{WITH_EXPERT}$"
    with pytest.raises(TaskError, match=problem):
        make_expert(f"robosuite/{task}")
    with pytest.raises(TaskError, match=problem):
        expert_defaults(f"robosuite/{task}")


def test_a_family_without_experts_and_a_misspelt_task_keep_their_messages() -> None:
    """The one names our tasks, the other the nearest match."""
    with pytest.raises(TaskError, match=r"task 'gym/CartPole-v1' has no scripted expert.*: lift, lift_joint"):
        make_expert("gym/CartPole-v1")
    with pytest.raises(TaskError, match="did you mean 'robosuite/Lift'"):
        make_expert("robosuite/Lfit")


def test_another_arm_or_rate_is_refused(lift: TaskEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expert says which arm it plays instead of failing on every seed."""
    plays = "the expert of task 'robosuite/Lift' plays Panda with PandaGripper and delta OSC_POSE at 20 Hz"
    other = make_task("robosuite/Lift", robots="UR5e")
    problem = "not UR5e with Robotiq85Gripper and delta OSC_POSE at 20 Hz; leave robots"
    with pytest.raises(TaskError, match=f"{plays}, {problem}"):
        make_expert("robosuite/Lift").reset(other, 0)
    other.close()
    monkeypatch.setattr(lift, "task_spec", dataclasses.replace(lift.task_spec, fps=10.0))
    with pytest.raises(TaskError, match=f"{plays}, not Panda .* at 10 Hz"):
        make_expert("robosuite/Lift").reset(lift, 0)


def test_a_body_that_is_not_there_is_refused(lift: TaskEnv) -> None:
    """A misspelt body suggests the right one; a task of another simulator is no scene."""
    assert scene_of(lift).body_position("table")[2] == pytest.approx(0.775)
    with pytest.raises(TaskError, match="unknown body 'tabel'; did you mean 'table'"):
        scene_of(lift).body_position("tabel")
    with pytest.raises(TypeError, match="does not say where its bodies are"):
        scene_of(make_task("gym/CartPole-v1"))


@pytest.mark.parametrize("yaw", [-2.0, 0.0, 0.4, 3.0])
def test_the_turn_ends_pointing_down(yaw: float) -> None:
    """From any orientation the rotation vector leads to the yaw asked for, and its z axis to down."""
    start = rotation_vector_to_matrix(np.array([2.8, 0.3, -0.4]))
    end = rotation_vector_to_matrix(turn_down(start, yaw)) @ start
    np.testing.assert_allclose(end[:, 2], [0.0, 0.0, -1.0], atol=1e-9)
    assert yaw_of(end) == pytest.approx(yaw)


def test_the_nearest_equal_turn() -> None:
    """Half turns of a handle, and quarter turns of a square, are left out."""
    assert nearest_turn(np.pi - 0.1, np.pi) == pytest.approx(-0.1)
    assert nearest_turn(-0.6 * np.pi, np.pi / 2) == pytest.approx(-0.1 * np.pi)
    assert nearest_turn(0.3, np.pi / 2) == pytest.approx(0.3)
