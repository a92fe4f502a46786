"""Our table-top tasks: the contract, their scripted experts, what a seed may draw."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("robosuite") is None:  # its files hold the arms
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.registry import TaskError, make_expert, make_task
from robot_sim.task import Expert, LabelsSegments, TaskEnv
from robot_sim.testing import TaskTests

TASKS = (
    *("planar_push_t", "tabletop_push_t", "tabletop_pick_place", "tabletop_stack"),
    *("tabletop_drawer", "tabletop_peg_insert", "tabletop_handover"),
)


def play(env: TaskEnv, expert: Expert, seed: int) -> tuple[bool, int]:
    """Play one episode; return whether it succeeded, and after how many steps it ended."""
    observation, _ = env.reset(seed=seed)
    expert.reset(env, seed)
    steps = 0
    while True:
        observation, _, terminated, truncated, info = env.step(expert.perturb(expert.act(observation)))
        steps += 1
        if terminated or truncated or info["is_success"]:
            return info["is_success"], steps


class TestPickPlace(TaskTests):
    """The task with an arm that stands for the others."""

    n_steps = 5

    @pytest.fixture(scope="class")
    def env(self) -> Iterator[TaskEnv]:
        """Build the task."""
        task = self.make_env()
        yield task
        task.close()

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("tabletop_pick_place")


class TestPlanarPushT(TaskTests):
    """The task without an arm."""

    @pytest.fixture(scope="class")
    def env(self) -> Iterator[TaskEnv]:
        """Build the task."""
        task = self.make_env()
        yield task
        task.close()

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("planar_push_t")


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_and_the_start_is_the_seeds(task: str) -> None:
    """One episode is solved; another seed starts elsewhere, the same one starts the same; nothing is solved at once."""
    env, expert = make_task(task), make_expert(task)
    first, info = env.reset(seed=11)
    assert not info["is_success"]
    other, _ = env.reset(seed=12)
    again, _ = env.reset(seed=11)
    assert (first[ENVIRONMENT_STATE] != other[ENVIRONMENT_STATE]).any()
    np.testing.assert_array_equal(first[ENVIRONMENT_STATE], again[ENVIRONMENT_STATE])
    success, steps = play(env, expert, 11)
    assert success
    assert 10 < steps < env.task_spec.max_steps
    env.close()


@pytest.mark.parametrize("arm", ["ur5e", "iiwa"])
def test_another_arm_carries_the_same_task_out(arm: str) -> None:
    """State and action are the same features as for a Panda, and the expert succeeds."""
    panda, other = make_task("tabletop_stack"), make_task("tabletop_stack", arm=arm)
    assert panda.task_spec.features == other.task_spec.features
    assert play(other, make_expert("tabletop_stack"), 3)[0]
    panda.close()
    other.close()


def test_the_push_succeeds_with_an_arm_that_yields() -> None:
    """A UR5e's hand gives way three times as far as a Panda's: pushes still end where they should, the same each time.

    Its empty Robotiq fingers come to rest, too: bouncing at their stops, they pulled the tool 20 mm off its goal.
    """
    env: Any = make_task("tabletop_push_t", arm="ur5e")
    expert = make_expert("tabletop_push_t")
    assert play(env, expert, 34)[0]
    end = env.simulation.physics.qpos[0].copy()
    names, mount = env.simulation.task.names, env.simulation.task.arm.mount
    speeds = env.simulation.physics.qvel[0, names.qvel(*mount.gripper_joints)]
    assert np.abs(speeds).max() < 1.0  # rad/s; 60 when they bounced
    assert play(env, expert, 34)[0]
    np.testing.assert_array_equal(env.simulation.physics.qpos[0], end)
    env.close()


def test_the_blocks_mass_and_friction_are_parameters_of_the_model() -> None:
    """A twin reads and changes them; a heavier block on a rougher table goes less far for the same push."""
    from robot_sim.tasks.push_t_block import block_parameters, set_block_parameters

    env: Any = make_task("planar_push_t", mass=0.4, friction=0.6)
    model = env.simulation.task.model
    assert block_parameters(model) == pytest.approx({"mass": 0.4, "friction": 0.6})
    set_block_parameters(model, mass=0.5, friction=0.9)
    assert block_parameters(model) == pytest.approx({"mass": 0.5, "friction": 0.9})
    env.close()


def test_coverage_counts_what_the_block_covers() -> None:
    """1 on the target, 0 far away, and about what two shifted T shapes share in between."""
    from shapely import affinity
    from shapely.geometry import Polygon

    from robot_sim.tasks.push_t_geometry import OUTLINE, coverage

    target = Polygon(OUTLINE)
    for x, y, yaw in ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.01, -0.02, 0.3), (0.0, 0.03, 2.0)):
        block = affinity.translate(affinity.rotate(target, yaw, origin=(0, 0), use_radians=True), x, y)
        expected = target.intersection(block).area / target.area
        found = coverage(np.array([[x, y]]), np.array([yaw]), np.zeros((1, 2)), np.zeros(1))[0]
        assert found == pytest.approx(expected, abs=0.015)


def test_the_predicted_push_is_about_what_happens() -> None:
    """The block turns and moves in the predicted direction when the disc pushes it off its centre."""
    from robot_sim.experts.push_t import NORMALS, PLACES, predict

    block = np.array([0.2, 0.2, 0.0])
    contact = int(np.argmin(np.linalg.norm(PLACES - (0.05, 0.0), axis=1)))
    after = predict(block, PLACES[contact][None], NORMALS[contact][None], 0.02)[0]
    assert NORMALS[contact] == pytest.approx([0.0, 1.0])
    assert after[2] > 0.1  # pushed up at its right end, it turns to the left
    assert after[1] != pytest.approx(0.2)


def test_skills_label_their_episode_and_show_recovery() -> None:
    """Segments cover the episode without a gap and name skills; a shove is labelled, executed, not recorded."""
    env, expert = make_task("tabletop_pick_place"), make_expert("tabletop_pick_place", recovery=1.0)
    assert isinstance(expert, LabelsSegments)
    observation, _ = env.reset(seed=4)
    expert.reset(env, 4)
    apart = 0.0
    for _ in range(80):
        action = expert.act(observation)
        executed = expert.perturb(action)
        apart = max(apart, float(np.abs(executed - action).max()))
        observation, _, terminated, _, _ = env.step(executed)
        if terminated:
            break
    segments: list[Any] = expert.segments()
    assert segments[0].start == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(segments))
    assert {"grasp", "recovery"} <= {segment.tag for segment in segments}
    assert apart > 0.6
    env.close()


def test_skills_need_a_control_that_takes_poses() -> None:
    """With joint commands the expert says what to choose instead of moving wildly."""
    env = make_task("tabletop_pick_place", control="joint_absolute")
    env.reset(seed=0)
    with pytest.raises(TaskError, match=r"task\.control=osc_delta"):
        make_expert("tabletop_pick_place").reset(env, 0)
    env.close()


def test_two_arms_have_two_states_and_actions() -> None:
    """The hand-over has fourteen action components, left arm first."""
    env = make_task("tabletop_handover")
    assert env.task_spec.action.shape == (14,)
    assert env.task_spec.action.names[6:8] == ("left_gripper", "right_dx")
    assert env.task_spec.observation[STATE].shape == (16,)
    env.close()
