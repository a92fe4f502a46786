"""Tasks of robosuite, Meta-World and Gymnasium keep the contract and stay what they are there."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import pytest

if any(find_spec(package) is None for package in ("robosuite", "metaworld")):
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.adapters.seeding import seeded_globals
from robot_sim.registry import TaskError, family_names, family_task_names, make_expert, make_task
from robot_sim.rendering import RenderingError
from robot_sim.task import TaskEnv
from robot_sim.testing import TaskTests

ROBOSUITE = {"horizon": 12}


@pytest.fixture(scope="module")
def can() -> Iterator[TaskEnv]:
    """PickPlaceCan of robosuite, shared: building one takes seconds."""
    task = make_task("robosuite/Can", **ROBOSUITE)
    yield task
    task.close()


def test_global_generators_are_seeded_and_put_back() -> None:
    """NumPy's and Python's, from which robosuite draws poses and which object there is."""
    before = (repr(np.random.get_state()), random.getstate())  # noqa: NPY002
    draws = []
    for _ in range(2):
        with seeded_globals(7):
            draws.append((np.random.uniform(), random.random()))  # noqa: NPY002
    assert draws[0] == draws[1]
    assert (repr(np.random.get_state()), random.getstate()) == before  # noqa: NPY002


class TestRobosuiteCan(TaskTests):
    """PickPlaceCan keeps the promises of the task contract."""

    n_steps = 4

    @pytest.fixture(scope="class")
    def env(self, can: TaskEnv) -> TaskEnv:
        """Return the shared instance."""
        return can

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("robosuite/Can", **ROBOSUITE)


class TestMetaWorldDrawer(TaskTests):
    """A Meta-World task keeps them, too."""

    n_steps = 6

    @pytest.fixture(scope="class")
    def env(self) -> Iterator[TaskEnv]:
        """Build the task."""
        task = self.make_env()
        yield task
        task.close()

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("metaworld/drawer-open-v3", max_steps=30)


class TestGymPendulum(TaskTests):
    """And so does an environment of Gymnasium's registry."""

    @pytest.fixture(scope="class")
    def env(self) -> Iterator[TaskEnv]:
        """Build the task."""
        task = self.make_env()
        yield task
        task.close()

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("gym/Pendulum-v1", max_steps=25)


def test_a_robosuite_step_is_robosuites_own(can: TaskEnv) -> None:
    """Observations, rewards and joint positions equal those of an environment made by robosuite, bit for bit."""
    ours: Any = can
    from robot_sim.adapters.robosuite_import import robosuite

    with seeded_globals(0):
        theirs = robosuite.make(
            "PickPlaceCan", robots="Panda", has_renderer=False, has_offscreen_renderer=False,
            use_camera_obs=False, hard_reset=False, renderer="mujoco",
        )  # fmt: skip
        theirs.reset()
    with seeded_globals(11):
        expected = theirs.reset()
    observed, _ = ours.reset(seed=11)
    draws = np.random.default_rng(0)
    for _ in range(3):
        np.testing.assert_array_equal(
            observed[ENVIRONMENT_STATE], expected["object-state"].astype(np.float32)
        )
        np.testing.assert_array_equal(ours._env.sim.data.qpos, theirs.sim.data.qpos)
        action = draws.uniform(-1, 1, 7)
        observed, reward, *_ = ours.step(action)
        expected, their_reward, *_ = theirs.step(action)
        assert reward == their_reward
    theirs.close()


def test_robosuites_options_keep_their_names(can: TaskEnv) -> None:
    """Robot and controller change state and action as robosuite says."""
    task = make_task("robosuite/Lift", robots="UR5e", controller_configs="JOINT_POSITION", control_freq=10)
    assert task.task_spec.embodiment == "ur5e"
    assert task.task_spec.fps == 10
    assert task.task_spec.action.meaning == "delta JOINT_POSITION"
    assert task.task_spec.action.shape == (7,)  # six joints and the gripper
    task.reset(seed=0)
    task.step(np.zeros(7))
    task.close()
    assert can.task_spec.action.meaning == "delta pose"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"robots": "Pnada"}, "unknown robot 'Pnada'; did you mean 'Panda'"),
        ({"controller_configs": "OSC_PSE"}, "no controller 'OSC_PSE'"),
        ({"images": True, "cameras": ["agentveiw"]}, "did you mean 'agentview'"),
        ({"env_configuration": "opposed"}, "has one arm"),
        ({"more": {"tabel_friction": 1}}, "robosuite refuses"),
    ],
)
def test_what_robosuite_does_not_have_is_refused(options: dict[str, Any], problem: str) -> None:
    """A misspelt option ends in one line, not in robosuite's traceback."""
    with pytest.raises(TaskError, match=problem):
        make_task("robosuite/Lift", **options)


def test_a_robosuite_camera_draws(can: TaskEnv) -> None:
    """Pictures have contrast and stand upright: the robot's dark base is not at the top."""
    can.reset(seed=0)
    try:
        frame: Any = can.render()
    except RenderingError as error:
        pytest.skip(str(error))
    assert frame.shape == (256, 256, 3)
    assert frame.std() > 10


@pytest.mark.parametrize(
    "task", ["reach-v3", "button-press-v3", "drawer-open-v3", "push-v3", "window-open-v3"]
)
def test_metaworlds_scripted_policies_succeed(task: str) -> None:
    """The expert solves each of three seeds within Meta-World's 500 steps."""
    env = make_task(f"metaworld/{task}")
    expert = make_expert(f"metaworld/{task}")
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        expert.reset(env, seed)
        done = success = False
        while not done:
            observation, _, terminated, truncated, info = env.step(expert.act(observation))
            success, done = info["is_success"], terminated or truncated
        assert success, f"seed {seed}"
    env.close()


def test_meta_world_observes_its_goal_and_objects() -> None:
    """The features are the parts of Meta-World's own 39 numbers."""
    env: Any = make_task("metaworld/pick-place-v3")
    observation, _ = env.reset(seed=4)
    raw = env.raw_observation
    np.testing.assert_array_equal(observation[STATE], raw[:4].astype(np.float32))
    np.testing.assert_array_equal(observation[ENVIRONMENT_STATE][:14], raw[4:18].astype(np.float32))
    np.testing.assert_array_equal(
        observation[ENVIRONMENT_STATE][14:], env._env._target_pos.astype(np.float32)
    )
    assert np.abs(observation[ENVIRONMENT_STATE][14:]).max() > 0.1
    env.close()


def test_all_fifty_tasks_are_there() -> None:
    """Each of Meta-World's tasks has a name and a scripted policy."""
    from metaworld.policies import ENV_POLICY_MAP

    names = family_task_names("metaworld")
    assert len(names) == 50
    assert {name.removeprefix("metaworld/") for name in names} <= set(ENV_POLICY_MAP)
    assert family_names() == ["compose", "gym", "metaworld", "robosuite"]


def test_a_gymnasium_environment_is_its_own() -> None:
    """States and rewards are those of the environment; a discrete action takes the larger score."""
    ours = make_task("gym/CartPole-v1", success_return=3.0)
    theirs = gymnasium.make("CartPole-v1")
    observation, _ = ours.reset(seed=3)
    expected, _ = theirs.reset(seed=3)
    for scores, choice in (([0.1, 0.9], 1), ([0.7, 0.2], 0), ([0.0, 1.0], 1)):
        np.testing.assert_array_equal(observation[STATE], expected)
        observation, reward, _, _, info = ours.step(np.array(scores))
        expected, their_reward, *_ = theirs.step(choice)
        assert reward == their_reward
    assert info["is_success"]
    assert ours.task_spec.score == "success"
    ours.close()


def test_an_environment_without_success_is_scored_by_its_return() -> None:
    """Pendulum reports no success, so the return is the score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = make_task("gym/Pendulum-v1")
    assert task.task_spec.score == "return"
    task.close()


@pytest.mark.parametrize(
    ("task", "options", "problem"),
    [
        ("gym/CartPoll-v1", {}, "did you mean 'gym/CartPole-v1'"),
        ("gym/no_such_package:Env-v0", {}, "gymnasium cannot make 'no_such_package:Env-v0'"),
        ("gym/FrozenLake-v1", {}, "expected boxes"),
        ("gym/CartPole-v1", {"kwargs": {"gravity": 3}}, "gymnasium cannot make"),
        ("metaworld/rech-v3", {}, "did you mean 'metaworld/reach-v3'"),
        ("metaworld/reach-v3", {"max_steps": 501}, "expected 1 to 500"),
        ("metawrld/reach-v3", {}, "unknown task family 'metawrld'; did you mean 'metaworld'"),
        ("robosuite/Lfit", {}, "did you mean 'robosuite/Lift'"),
    ],
)
def test_an_unknown_task_is_refused_with_the_nearest_match(
    task: str, options: dict[str, Any], problem: str
) -> None:
    """Misspelt names and impossible options are one line."""
    with pytest.raises(TaskError, match=problem):
        make_task(task, **options)
