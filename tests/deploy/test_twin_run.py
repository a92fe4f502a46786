"""A policy acts in the twin and a surrogate's arm follows, within limits, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from robot_deploy.tracking.twin_run import TwinRun, TwinRunConfig, cell_limits, published_limits
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.surrogate import SurrogateCell


class Circle:
    """Pulls the rod along a circle in the free corner of the table."""

    def reset(self) -> None:
        """Begin."""
        self._step = 0

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where to be now; starts where the rod is."""
        self._step += 1
        here = np.asarray(observation["observation.state"], dtype=float)
        if self._step == 1:
            self._start = here
        angle = 0.25 * self._step
        return self._start + 0.03 * np.array([np.sin(angle), 1 - np.cos(angle)])


@pytest.fixture(scope="module")
def cell() -> Cell:
    """The cell that comes along."""
    return load_cell("tabletop_push_t")


def test_the_arm_follows_the_twin(cell):
    """Two seconds: no fault, no command beyond a limit, and the block known to 5 mm."""
    run = TwinRun(cell, SurrogateCell(cell))
    result = run.run(Circle(), seed=3, max_steps=10)
    assert result.fault == ""
    assert result.steps == 10
    assert not any(result.violations.values())
    assert run.audit.samples > 200
    assert max(result.errors) < 0.005
    assert 20 < result.lags_ms[-1] < 300
    assert np.quantile(result.gaps, 0.95) < 0.02


def test_the_twin_waits_for_an_arm_that_stands_still(cell):
    """While the arm does not move the twin waits: fewer policy steps than ticks allow, and no limit is broken."""
    config = TwinRunConfig(freeze=(1.0, 0.6))
    result = TwinRun(cell, SurrogateCell(cell), config).run(Circle(), seed=3, max_steps=10)
    assert result.held > 0.03 or "deviation" in result.fault
    assert not any(result.violations.values())


def test_the_twin_waits_without_joint_states(cell):
    """When the cell's joint states stop for 0.4 s the twin waits, and goes on afterwards."""
    config = TwinRunConfig(drop_joints=(1.0, 0.4))
    result = TwinRun(cell, SurrogateCell(cell), config).run(Circle(), seed=3, max_steps=15)
    assert result.fault == ""
    assert result.held > 0.1
    assert result.steps == 15


def test_the_cells_own_limits_bind(cell):
    """Limits of the cell narrow the published ones and never widen them."""
    n = len(cell.robot.joints)
    narrow = replace(cell, robot=replace(cell.robot, lower=(-0.5,) * n, upper=(9.0,) * n))
    limits, published = cell_limits(narrow), published_limits(narrow)
    np.testing.assert_array_equal(limits.lower[[0, 1, 2]], [-0.5] * 3)
    np.testing.assert_array_equal(limits.upper, published.upper)
