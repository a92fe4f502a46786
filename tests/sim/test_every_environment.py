"""Every registered environment passes the conformance tests, the ones without a test file of their own too.

Tasks of other libraries by the dozen, or of a package of one's own, when asked for (commas between them):

    ROBOT_POLICIES_TASKS=metaworld/reach-v3,robosuite/Door pytest tests/sim/test_every_environment.py -k Registered
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("robosuite") is None or find_spec("gym_pusht") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_sim.registry import TaskError, make_task, task_names
from robot_sim.task import TaskEnv
from robot_sim.testing import EnvTests
from robot_sim.vector.make import make_vector_env

#: Tested in a file of their own.
ELSEWHERE = {"lift", "lift_joint", "pusht", "tabletop_lift", "tabletop_pick_place", "planar_push_t"}
OTHER_SIMULATORS = {"lift", "lift_joint", "pusht"}
ASKED_FOR = [name for name in os.environ.get("ROBOT_POLICIES_TASKS", "").split(",") if name]


@pytest.mark.parametrize(
    "env", ASKED_FOR or sorted(set(task_names()) - ELSEWHERE), indirect=True, scope="class"
)
class TestRegistered(EnvTests):
    """Each in turn."""

    n_steps = 3
    name: str

    @pytest.fixture(scope="class")
    def env(self, request: pytest.FixtureRequest) -> Iterator[TaskEnv]:
        """Build the task."""
        type(self).name = request.param
        task = self.make_env()
        yield task
        task.close()

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task(self.name)


@pytest.mark.parametrize("name", sorted(set(task_names()) - OTHER_SIMULATORS))
def test_a_row_of_a_batch_is_the_single_environment(name: str) -> None:
    """Two environments side by side give what one alone gives, from the same seed and actions."""
    batch = make_vector_env(name, 2)
    alone = make_task(name)
    both, _ = batch.reset(seed=[1, 5])
    single, _ = alone.reset(seed=5)
    random = np.random.default_rng(0)
    space: Any = batch.single_action_space
    for _ in range(3):
        for feature, value in single.items():
            np.testing.assert_array_equal(both[feature][1], value, err_msg=feature)
        actions = random.uniform(space.low, space.high, (2, *space.shape)).astype(np.float32)
        both, reward, *_ = batch.step(actions)
        single, expected, *_ = alone.step(actions[1])
        assert reward[1] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    batch.close()
    alone.close()


def test_other_simulators_are_not_vectorised_here() -> None:
    """Asking for a batch of gym-pusht names what to use instead."""
    with pytest.raises(TaskError, match=r"'pusht' is not one of our MuJoCo tasks.*SyncVectorEnv"):
        make_vector_env("pusht", 2)
