"""The example of an own MuJoCo task."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("robosuite") is None:  # not importorskip: the task has to choose a back end before mujoco loads
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_sim.registry import TaskError, make_task
from robot_sim.task import TaskEnv
from robot_sim.testing import TaskTests


@pytest.fixture(scope="module")
def env() -> Iterator[TaskEnv]:
    """The state-only task, shared."""
    task = make_task("tabletop_lift")
    yield task
    task.close()


class TestContract(TaskTests):
    """The task keeps the promises of the task contract."""

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("tabletop_lift")


@pytest.mark.parametrize("arm", ["panda", "ur5e", "iiwa"])
@pytest.mark.parametrize("control", ["osc_delta", "joint_delta"])
def test_zero_change_stays_put(arm: str, control: str) -> None:
    """With every arm and either actuation, asking for no change leaves the tool within a millimetre."""
    env = make_task("tabletop_lift", arm=arm, control=control)
    start, _ = env.reset(seed=1)
    action = np.zeros(env.task_spec.action.shape)
    action[-1] = -1.0
    observation = start
    for _ in range(10):
        observation, *_ = env.step(action)
    moved = observation["observation.state"][:3] - start["observation.state"][:3]
    assert np.abs(moved).max() < 1e-3


def test_an_unknown_arm_is_refused_with_the_nearest_match() -> None:
    """A misspelt arm suggests the right one."""
    with pytest.raises(TaskError, match="unknown arm 'pandas'; did you mean 'panda'"):
        make_task("tabletop_lift", arm="pandas")
