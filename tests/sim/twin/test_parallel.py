"""Copies of a cell side by side: parameters, latency, sensors, and forks of a twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.lag import LagEstimator
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scripted_policy import Handicap, ScriptedPusher
from robot_sim.twin.surrogate import SurrogateCell, SurrogateConfig
from robot_sim.twin.twin import Twin
from robot_sim.twin.view import TwinView, fork


@pytest.fixture(scope="module")
def cell() -> Cell:
    """The cell that comes along, without latencies."""
    shipped = load_cell("tabletop_push_t")
    return replace(shipped, latency=replace(shipped.latency, objects=0.0, command=0.0))


def _with(cell: Cell, **latency: float) -> Cell:
    return replace(cell, latency=replace(cell.latency, **latency))


def test_a_copy_moves_as_the_surrogate_with_its_parameters(cell):
    """With the surrogate's own parameters a copy's tool goes where the surrogate's goes, to 0.1 mm."""
    hidden = SurrogateConfig(friction=1, mass=1, stiffness=0.8, command_latency=0.04)
    surrogate = SurrogateCell(cell, hidden)
    surrogate.start(3)
    known = replace(_with(cell, command=0.04), robot=replace(cell.robot, stiffness=120.0))
    copies = ParallelCell([known], threads=0)
    copies.reset([0], [3])
    for step in range(5):
        action = surrogate.scene.tool[:2] + np.array([0.03, 0.01 * step])
        surrogate.command(action)
        surrogate.advance((step + 1) * 100_000_000)
        copies.step(action[None])
    tool = copies.physics.site_xpos[0, copies.task.names.site("robot_tcp")]
    np.testing.assert_allclose(tool, surrogate.scene.tool, atol=1e-3)


def test_a_late_copy_moves_later(cell):
    """Each copy has its own latency of commands."""
    copies = ParallelCell([cell, _with(cell, command=0.1)], threads=0)
    copies.reset([0, 1], [3, 3])
    site = copies.task.names.site("robot_tcp")
    start = copies.physics.site_xpos[0, site].copy()
    copies.step(np.tile(start[:2] + 0.05, (2, 1)))
    gone = np.linalg.norm(copies.physics.site_xpos[:, site] - start, axis=1)
    assert gone[0] > 0.005
    assert gone[1] < 0.001


def test_sensors_are_late_and_noisy(cell):
    """Observations of a sensed copy differ from the truth by the cell's noise, and the state is left alone."""
    copies = ParallelCell([cell] * 2, sensed=True, threads=0)
    copies.reset([0, 1], [3, 3])
    before = copies.physics.qpos.copy()
    seen = np.stack([copies.observe()["observation.environment_state"] for _ in range(40)])
    np.testing.assert_array_equal(copies.physics.qpos, before)
    exact = ParallelCell([cell], threads=0)
    exact.reset([0], [3])
    truth = exact.observe()["observation.environment_state"]
    assert np.abs(seen.mean(axis=(0, 1)) - truth).max() < 0.002
    assert 0.002 < seen.std(axis=(0, 1)).mean() < 0.006


def test_parameters_are_the_copys_own(cell):
    """Copies share a model only if their objects are equal."""
    heavy = replace(cell, objects={"block": replace(cell.objects["block"], mass=1.0)})
    copies = ParallelCell([cell, heavy, cell], threads=0)
    masses = [model.body("block").mass[0] for model in copies.physics.models]
    np.testing.assert_allclose(masses, [0.3, 1.0, 0.3])
    assert copies.physics.models[0] is copies.physics.models[2]


def test_a_fork_starts_where_the_twin_is(cell):
    """Futures begin at the twin's state and leave the twin alone."""
    twin = Twin(cell)
    twin.tick()
    before = twin.world.data.qpos.copy()
    copies = fork(twin, 2, threads=0)
    copies.step(np.tile([0.1, 0.1], (2, 1)))
    np.testing.assert_array_equal(copies.physics.qpos[0], copies.physics.qpos[1])
    assert np.abs(copies.physics.qpos[0] - before).max() > 1e-3
    np.testing.assert_array_equal(twin.world.data.qpos, before)


def test_the_view_reads_the_twin_as_the_task_does(cell):
    """Observations of a twin are the task's features, one time step."""
    twin = Twin(cell)
    twin.world.start(5)
    view = TwinView(twin)
    copies = ParallelCell([cell], threads=0)
    copies.reset([0], [5])
    for name, value in view.observe().items():
        np.testing.assert_allclose(value, copies.observe()[name][0], atol=1e-5)
    assert not view.succeeds(twin.world)


def test_the_scripted_policy_reads_observations_only(cell):
    """A pusher sees the block through the observation, and its handicap shifts what it sees."""
    copies = ParallelCell([cell], threads=0)
    copies.reset([0], [3])
    observation = {name: value[0] for name, value in copies.observe().items()}
    exact, shifted = ScriptedPusher(), ScriptedPusher(Handicap(offset=0.02))
    assert exact.act(observation).shape == (2,)
    shifted.act(observation)
    np.testing.assert_allclose(
        shifted.situation(None).block - exact.situation(None).block, [0.02, 0.02, 0], atol=1e-6
    )


def test_the_lag_of_an_arm_is_found():
    """An arm that does what the twin did 120 ms ago is 120 ms late; a resting twin says nothing new."""
    lag = LagEstimator()
    path = lambda t: np.array([np.sin(3 * t), 0.5 * np.cos(2 * t)])  # noqa: E731
    for k in range(120):
        time = k / 60
        lag.twin(round(time * 1e9), path(time))
        lag.arm(round(time * 1e9), path(time - 0.12))
    assert lag.update() == pytest.approx(120_000_000, abs=10_000_000)
    for k in range(120, 240):
        lag.twin(round(k / 60 * 1e9), path(2.0))
        lag.arm(round(k / 60 * 1e9), path(2.0))
    assert lag.update() == pytest.approx(120_000_000, abs=10_000_000)
