"""The Lift task, its scripted expert and its pictures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("robosuite") is None:  # not importorskip: the task has to choose a back end before mujoco loads
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.registry import TaskError, make_expert, make_task
from robot_sim.rendering import RenderingError
from robot_sim.task import TaskEnv
from robot_sim.testing import TaskTests


@pytest.fixture(scope="module")
def env() -> Iterator[TaskEnv]:
    """The state-only task, shared: building one takes seconds."""
    task = make_task("lift")
    yield task
    task.close()


class TestContract(TaskTests):
    """Lift keeps the promises of the task contract."""

    n_steps = 8

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("lift")


def _demonstrate(env: TaskEnv, seed: int, *, noise: float) -> tuple[list[np.ndarray], bool]:
    """Play the expert; return its intended actions and whether it succeeded."""
    expert = make_expert("lift", noise=noise)
    observation, _ = env.reset(seed=seed)
    expert.reset(env, seed)
    actions = []
    while True:
        action = expert.act(observation)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(expert.perturb(action))
        if terminated or truncated:
            return actions, info["is_success"]


def test_steps_are_those_of_robosuite() -> None:
    """Joint positions and observations equal those of robosuite's own step, bit for bit."""
    ours: Any = make_task("lift")
    theirs: Any = make_task("lift")
    ours.reset(seed=5)
    theirs.reset(seed=5)
    native = theirs._scene
    random = np.random.default_rng(0)
    for _ in range(6):
        action = random.uniform(-1, 1, 7)
        ours.step(action)
        native.step(action)
        np.testing.assert_array_equal(ours._scene.sim.data.qpos, native.sim.data.qpos)
    native._update_observables(force=True)
    native.sim.forward()
    expected = native._get_observations(force_update=True)
    observed = ours._observe()[STATE]
    np.testing.assert_allclose(observed[:3], expected["robot0_eef_pos"], atol=1e-6)
    np.testing.assert_allclose(observed[3:7], expected["robot0_eef_quat"], atol=1e-6)
    np.testing.assert_allclose(observed[7:], expected["robot0_gripper_qpos"], atol=1e-6)
    ours.close()
    theirs.close()


def test_initial_states_follow_robosuites_distribution(env: TaskEnv) -> None:
    """The cube lies within 3 cm of the table's centre at any angle, the hand near its rest pose."""
    starts = [env.reset(seed=seed)[0] for seed in range(40)]
    cubes = np.array([start[ENVIRONMENT_STATE] for start in starts])
    hands = np.array([start[STATE][:3] for start in starts])
    assert np.abs(cubes[:, :2]).max() <= 0.03 + 1e-6
    assert np.abs(cubes[:, :2]).max() > 0.02
    yaw = 2 * np.arctan2(cubes[:, 5], cubes[:, 6]) % (2 * np.pi)
    assert yaw.min() < 1.0
    assert yaw.max() > 5.0
    assert 0 < hands.std(axis=0).max() < 0.03


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_expert_succeeds(env: TaskEnv, noise: float) -> None:
    """On every seed tried, fast enough and without a pause."""
    for seed in range(4):
        actions, success = _demonstrate(env, 200_000 + seed, noise=noise)
        assert success, f"seed {seed}"
        assert len(actions) < 110
        assert all(np.abs(a).max() > 0.01 for a in actions)


def test_the_expert_needs_no_memory(env: TaskEnv) -> None:
    """What it does depends on the observation alone, so a policy can learn it."""
    expert = make_expert("lift")
    observation, _ = env.reset(seed=1)
    expert.reset(env, 1)
    first = expert.act(observation)
    for _ in range(3):
        env.step(expert.perturb(expert.act(observation)))
    np.testing.assert_array_equal(expert.act(observation), first)


def test_the_experts_disturbance_is_seeded_and_not_recorded(env: TaskEnv) -> None:
    """`perturb` repeats itself for a seed, leaves the gripper and the rotation alone, and stays in range."""
    expert = make_expert("lift", noise=0.5)
    env.reset(seed=1)
    action = np.array([0.8, -0.8, 0.0, 0, 0, 0, 1.0], dtype=np.float32)
    draws = []
    for _ in range(2):
        expert.reset(env, 4)
        draws.append([expert.perturb(action) for _ in range(20)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.array(draws[0])[:, :3].std() > 0.1
    np.testing.assert_array_equal(np.array(draws[0])[:, 3:], np.tile(action[3:], (20, 1)))
    assert np.abs(draws[0]).max() <= 1.0
    np.testing.assert_array_equal(action[:3], np.array([0.8, -0.8, 0.0], dtype=np.float32))


def test_lifting_succeeds_and_terminates(env: TaskEnv) -> None:
    """The episode ends with reward 1 at the step that lifts the cube."""
    expert = make_expert("lift", noise=0.0)
    observation, _ = env.reset(seed=3)
    expert.reset(env, 3)
    rewards = []
    terminated = truncated = False
    info: dict[str, Any] = {}
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(expert.act(observation))
        rewards.append(reward)
    assert (terminated, truncated, info["is_success"], rewards[-1]) == (True, False, True, 1.0)
    assert info["reward_terms"] == {"reach": pytest.approx(1.0, abs=0.2), "grasp": 1.0, "lift": 1.0}
    assert max(rewards[:-1]) < 1.0
    assert observation[ENVIRONMENT_STATE][2] > 0.84


def test_cameras_are_added_by_name_and_leave_the_physics_alone(env: TaskEnv) -> None:
    """Images have the asked size and contrast, and states stay what they are without cameras."""
    with_images = make_task("lift", images=True, cameras=["agentview", "wrist"], image_size=48)
    try:
        observation, _ = with_images.reset(seed=2)
    except RenderingError as error:
        pytest.skip(str(error))
    plain, _ = env.reset(seed=2)
    for camera in ("agentview", "wrist"):
        image = observation[f"observation.images.{camera}"]
        assert image.shape == (48, 48, 3)
        assert image.std() > 5
    np.testing.assert_array_equal(observation[STATE], plain[STATE])
    with_images.close()


def test_an_unknown_camera_is_refused_with_the_nearest_match() -> None:
    """A misspelt camera fails before the scene is built."""
    with pytest.raises(TaskError, match="did you mean 'wrist'"):
        make_task("lift", images=True, cameras=["wrst"])


def test_importing_the_task_prints_nothing() -> None:
    """The greetings of robosuite and pygame reach neither standard output nor standard error."""
    done = subprocess.run(
        [sys.executable, "-c", "import robot_sim.tasks.lift, robot_sim.tasks.pusht"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
