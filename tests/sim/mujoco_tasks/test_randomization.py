"""Randomised physics and latency belong to an episode's seed and to its environment alone."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("robosuite") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.errors import UserError
from robot_sim.mujoco_tasks.randomization import Randomization, movable_bodies
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.tasks.tabletop_lift import make_task


@pytest.fixture(scope="module")
def task() -> MujocoTask:
    """One task for all tests."""
    return make_task()


def test_masses_and_friction_follow_the_seed(task: MujocoTask) -> None:
    """Equal seeds get equal values, different seeds different ones, within the range; the arm keeps its own."""
    simulation = TaskSimulation(task, 3, threads=0, randomization=Randomization(mass=0.5, friction=0.3))
    simulation.reset([0, 1, 2], [7, 8, 7])
    cube = task.names.body("cube")
    ratio = [model.body_mass[cube] / task.model.body_mass[cube] for model in simulation.physics.models]
    assert ratio[0] == ratio[2] != ratio[1]
    assert all(0.5 <= r <= 1.5 for r in ratio)
    friction = [
        model.geom_friction[:, 0] / task.model.geom_friction[:, 0] for model in simulation.physics.models
    ]
    assert np.ptp(friction[0]) < 1e-12
    assert 0.7 <= friction[0][0] <= 1.3
    assert friction[0][0] != friction[1][0]
    arm = np.setdiff1d(np.arange(task.model.nbody), movable_bodies(task.model))
    for model in simulation.physics.models:
        np.testing.assert_array_equal(model.body_mass[arm], task.model.body_mass[arm])


def test_initial_states_are_those_without(task: MujocoTask) -> None:
    """Randomisation draws from a stream of its own: a seed starts at the same place with and without it."""
    plain = TaskSimulation(task, 1, threads=0)
    varied = TaskSimulation(task, 1, threads=0, randomization=Randomization(mass=0.5, latency=3))
    for simulation in (plain, varied):
        simulation.reset([0], [11])
    np.testing.assert_array_equal(plain.physics.qpos, varied.physics.qpos)


def test_late_actions_are_the_same_actions_later(task: MujocoTask) -> None:
    """An episode of latency k stays put for k steps and then moves exactly as one without."""
    random = np.random.default_rng(0)
    actions = random.uniform(-0.5, 0.5, (6, 1, 7))
    late = TaskSimulation(task, 1, threads=0, randomization=Randomization(latency=3))
    seed = next(s for s in range(50) if _latency(late, s) == 2)
    late.reset([0], [seed])
    plain = TaskSimulation(task, 1, threads=0)
    plain.reset([0], [seed])
    start = task.arm.position(late.physics).copy()  # type: ignore[attr-defined]
    for _ in range(2):
        late.step(actions[0])
        late._late._waiting[:] = np.nan  # nothing was given in these two steps
        plain.step(np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]]))
    assert np.abs(task.arm.position(late.physics) - start).max() < 1e-3  # type: ignore[attr-defined]
    positions = []
    for action in [*actions, actions[-1], actions[-1]]:
        late.step(action)
        positions.append(task.arm.position(late.physics)[0].copy())  # type: ignore[attr-defined]
    for index, action in enumerate(actions):
        plain.step(action)
        expected = task.arm.position(plain.physics)[0]  # type: ignore[attr-defined]
        np.testing.assert_allclose(positions[index + 2], expected, atol=2e-3)


def test_a_snapshot_holds_what_waits(task: MujocoTask) -> None:
    """Saved and restored in the middle of an episode, late actions arrive all the same."""
    simulation = TaskSimulation(task, 2, threads=0, randomization=Randomization(latency=4))
    simulation.reset([0, 1], [1, 2])
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, 7))
    for action in actions[:3]:
        simulation.step(action)
    saved = simulation.save()
    for action in actions[3:]:
        simulation.step(action)
    first = simulation.physics.qpos.copy()
    simulation.restore(saved)
    for action in actions[3:]:
        simulation.step(action)
    np.testing.assert_array_equal(simulation.physics.qpos, first)


@pytest.mark.parametrize(("name", "value"), [("mass", 1.5), ("friction", -0.1), ("latency", -1)])
def test_impossible_ranges_are_refused(name: str, value: float) -> None:
    """A mass that could become negative, or a negative amount, is refused and named."""
    with pytest.raises(UserError, match=f"randomization: {name} = "):
        Randomization(**{name: value})  # type: ignore[arg-type]


def _latency(simulation: TaskSimulation, seed: int) -> int:
    simulation.reset([0], [seed])
    return int(simulation._late._steps[0])
