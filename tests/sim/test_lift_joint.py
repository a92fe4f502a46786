"""Lift with joint targets: the contract, the servo, the expert."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("robosuite") is None:  # not importorskip: the task has to choose a back end before mujoco loads
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.experts.lift_joint import joint_step, tool_positions
from robot_sim.registry import make_expert, make_task
from robot_sim.task import TaskEnv
from robot_sim.testing import TaskTests


@pytest.fixture(scope="module")
def env() -> Iterator[TaskEnv]:
    """The state-only task, shared: building one takes seconds."""
    task = make_task("lift_joint")
    yield task
    task.close()


class TestContract(TaskTests):
    """The task keeps the promises of the task contract."""

    n_steps = 8

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("lift_joint")


@pytest.mark.parametrize("seed", [3, 8])
def test_the_expert_lifts_the_cube(env: TaskEnv, seed: int):
    """With its noise it succeeds, in fewer than 60 steps."""
    expert = make_expert("lift_joint")
    observation, info = env.reset(seed=seed)
    expert.reset(env, seed)
    for _ in range(60):
        observation, _, done, _, info = env.step(expert.perturb(expert.act(observation)))
        if done:
            break
    assert info["is_success"]


def test_the_arm_follows_its_targets(env: TaskEnv):
    """After a ramp to a pose 0.1 rad away, and a moment, every joint is within 0.5 mrad of it."""
    observation, _ = env.reset(seed=1)
    target = observation[STATE][:8].astype(np.float64)
    goal = target + np.append(np.full(7, 0.1), -0.01)
    for share in np.minimum(np.arange(1, 16) / 8.0, 1.0):
        observation, *_ = env.step(target + share * (goal - target))
    assert np.abs(observation[STATE][:7] - goal[:7]).max() < 5e-4


def test_a_step_of_the_hand_is_straight(env: TaskEnv):
    """The inverse kinematics moves the tool where it was told, within a twentieth of the way."""
    observation, _ = env.reset(seed=4)
    joints = observation[STATE][:7].astype(np.float64)
    way = np.array([0.006, -0.004, -0.008])
    moved = tool_positions((joints + joint_step(joints, way))[None]) - tool_positions(joints[None])
    assert np.linalg.norm(moved[0] - way) < 0.05 * np.linalg.norm(way)


def test_the_tool_is_between_the_fingers(env: TaskEnv):
    """Forward kinematics and the simulator agree within 2 mm; the cube lies on the table, below the tool."""
    observation, _ = env.reset(seed=2)
    scene = env._scene  # type: ignore[attr-defined]
    site = scene.sim.data.site_xpos[scene.robots[0].eef_site_id["right"]]
    assert np.abs(observation[STATE][8:11] + env.servo.base - site).max() < 2e-3  # type: ignore[attr-defined]
    assert observation[ENVIRONMENT_STATE][2] < observation[STATE][10]
