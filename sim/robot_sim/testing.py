"""Conformance tests for authors of environments: subclass `EnvTests` in a pytest module and every check runs.

class TestMyTask(EnvTests):
    @pytest.fixture(scope="class")
    def env(self):
        env = make_task("my_task")
        yield env
        env.close()

    def make_env(self):
        return make_task("my_task")
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot_datasets.features import is_image
from robot_sim.actions import ActionError
from robot_sim.rendering import RenderingError
from robot_sim.task import Observation, TaskEnv

Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class EnvTests(ABC):
    """What every task promises; see `robot_sim.task.TaskEnv`.

    Provide the fixture ``env`` (one instance, shared by the checks) and `make_env`.

    Attributes:
        n_steps: Steps per episode in the determinism checks.
    """

    n_steps: int = 10

    @abstractmethod
    def make_env(self) -> TaskEnv:
        """Return a second, separate instance of the task; the test closes it."""

    def idle_action(self, env: TaskEnv, observation: Observation) -> np.ndarray:
        """Return an action (A,) that does not solve the task; zeros unless overridden."""
        del observation
        return np.zeros(env.task_spec.action.shape)

    def test_gymnasium_accepts_it(self, env: TaskEnv) -> None:
        """Gymnasium's own checker finds spaces, seeding and return values in order."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # States without bounds are deliberate, see robot_sim.spaces; so are physical units in actions.
            warnings.filterwarnings("ignore", message=".*(infinity|symmetric and normalized).*")
            check_env(env, skip_render_check=True)

    def test_every_number_has_a_name_and_a_unit(self, env: TaskEnv) -> None:
        """Vector features name their components and units, and the action says what it commands."""
        spec = env.task_spec
        for name, feature in spec.features.items():
            if len(feature.shape) == 1:
                assert len(feature.names) == feature.shape[0], f"{name} names its components"
                assert feature.units, f"{name} has units"
        assert spec.action.meaning
        assert spec.fps > 0
        assert spec.max_steps > 0
        assert spec.instruction

    def test_observations_have_the_promised_features(self, env: TaskEnv) -> None:
        """After a reset and after steps: the names, shapes and dtypes of the spec, finite, in the space."""
        for observation in [env.reset(seed=1)[0], *(step[0] for step in _play(env, self.n_steps, seed=1))]:
            assert set(observation) == set(env.task_spec.observation)
            for name, feature in env.task_spec.observation.items():
                value = observation[name]
                assert (value.shape, value.dtype) == (feature.shape, np.dtype(feature.dtype)), name
                assert np.isfinite(value).all(), name
                assert not is_image(name) or value.std() > 1, f"{name} shows something"
            assert env.observation_space.contains(observation)

    def test_a_goal_speaks_of_observed_features(self, env: TaskEnv) -> None:
        """What the task says of its goal has the shape and dtype of an observation of the same name."""
        env.reset(seed=1)
        assert set(env.goal()) == set(env.task_spec.goal)
        for name, value in env.goal().items():
            feature = env.task_spec.observation[name]
            assert (value.shape, value.dtype) == (feature.shape, np.dtype(feature.dtype)), name

    def test_an_observation_is_not_changed_later(self, env: TaskEnv) -> None:
        """What was returned stays as it was: steps do not write into earlier observations."""
        kept, _ = env.reset(seed=1)
        copies = {name: value.copy() for name, value in kept.items()}
        _play(env, self.n_steps)
        _assert_same(kept, copies)

    def test_a_step_reports_success_and_reward_terms(self, env: TaskEnv) -> None:
        """The info has `is_success` and named reward terms; success ends up in no other place."""
        env.reset(seed=1)
        for _, reward, terminated, truncated, info in _play(env, self.n_steps):
            assert isinstance(info["is_success"], bool)
            assert info["reward_terms"]
            assert all(np.isfinite(term) for term in info["reward_terms"].values())
            assert np.isfinite(reward)
            if env.task_spec.score == "max_reward":
                assert 0.0 <= reward <= 1.0
            assert isinstance(terminated, bool)
            assert isinstance(truncated, bool)

    def test_a_seed_fixes_the_episode_in_any_instance(self, env: TaskEnv) -> None:
        """Another instance, reset with the same seed and given the same actions, agrees bit for bit."""
        start, _ = env.reset(seed=7)
        ours = _play(env, self.n_steps, seed=7)
        with contextlib.closing(self.make_env()) as other:
            _assert_same(start, other.reset(seed=7)[0])
            theirs = _play(other, self.n_steps, seed=7)
        assert [step[1] for step in ours] == [step[1] for step in theirs]
        for a, b in zip(ours, theirs, strict=True):
            _assert_same(a[0], b[0])

    def test_a_seed_fixes_the_episode_after_any_others(self, env: TaskEnv) -> None:
        """Episodes leave nothing behind: a seed gives the same rewards and observations again."""
        env.reset(seed=7)
        first = _play(env, self.n_steps, seed=7)
        for seed in (8, 9):
            env.reset(seed=seed)
            _play(env, self.n_steps, seed=seed)
        env.reset(seed=7)
        again = _play(env, self.n_steps, seed=7)
        assert [step[1] for step in first] == [step[1] for step in again]
        for a, b in zip(first, again, strict=True):
            _assert_same(a[0], b[0])

    def test_seeds_differ(self, env: TaskEnv) -> None:
        """Two seeds start differently."""
        a, b = env.reset(seed=1)[0], env.reset(seed=2)[0]
        assert any((a[name] != b[name]).any() for name in a)

    def test_numpys_global_generator_is_left_alone(self, env: TaskEnv) -> None:
        """Resets and steps neither read nor move NumPy's global random state."""
        before = _global_state()
        env.reset(seed=3)
        _play(env, 2)
        assert _global_state() == before

    def test_an_idle_episode_is_cut_at_max_steps(self, env: TaskEnv) -> None:
        """Without success the last of `max_steps` steps is truncated, and none before."""
        observation, _ = env.reset(seed=1)
        flags: list[tuple[bool, bool]] = []
        for _ in range(env.task_spec.max_steps):
            observation, _, terminated, truncated, _ = env.step(self.idle_action(env, observation))
            flags.append((terminated, truncated))
        assert flags[:-1] == [(False, False)] * (env.task_spec.max_steps - 1)
        assert flags[-1] == (False, True)

    @pytest.mark.parametrize("problem", ["shape", "nan"])
    def test_a_bad_action_is_refused(self, env: TaskEnv, problem: str) -> None:
        """A chunk in place of one action, or a NaN, raises instead of reaching the simulator."""
        env.reset(seed=1)
        good = np.zeros(env.task_spec.action.shape)
        bad = np.stack([good, good]) if problem == "shape" else good + np.nan
        with pytest.raises(ActionError, match=env.task_spec.name):
            env.step(bad)

    def test_render_returns_a_picture(self, env: TaskEnv) -> None:
        """`render` gives an RGB frame with something on it, without a window."""
        env.reset(seed=1)
        with _skip_without_graphics():
            frame = env.render()
        assert isinstance(frame, np.ndarray)
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
        assert frame.shape[2] == 3
        assert frame.std() > 1

    def test_two_instances_share_nothing(self, env: TaskEnv) -> None:
        """Steps and resets of another instance in between leave an episode as it is alone."""
        start, _ = env.reset(seed=7)
        alone = _play(env, self.n_steps, seed=7)
        with contextlib.closing(self.make_env()) as other:
            _assert_same(start, env.reset(seed=7)[0])
            low, high = _bounds(env)
            random = np.random.default_rng(7)
            for number, step in enumerate(alone):
                if number % 2 == 0:
                    other.reset(seed=number)
                other.step(high)
                observation, reward, *_ = env.step(random.uniform(low, high))
                _assert_same(step[0], observation)
                assert step[1] == reward

    def test_the_bounds_of_actions_can_be_commanded(self, env: TaskEnv) -> None:
        """The lowest and the highest action lead to finite observations and rewards."""
        for action in _bounds(env):
            env.reset(seed=4)
            for _ in range(2):
                observation, reward, *_ = env.step(action)
                assert env.observation_space.contains(observation)
                assert np.isfinite(reward)

    def test_a_saved_state_continues_the_same(self, env: TaskEnv) -> None:
        """Where an environment can save its state, going back to it gives the same future, bit for bit."""
        saver: Any = env
        if not hasattr(env, "save_state"):
            pytest.skip(
                f"'{env.task_spec.name}' cannot save its state: its simulator keeps what it does not show"
            )
        env.reset(seed=5)
        env.step(np.mean(_bounds(env), axis=0))
        state = saver.save_state()
        first = _play(env, self.n_steps, seed=5)
        env.reset(seed=6)
        saver.restore_state(state)
        for a, b in zip(first, _play(env, self.n_steps, seed=5), strict=True):
            _assert_same(a[0], b[0])
            assert a[1:4] == b[1:4]


#: The name it had before it knew of saved states.
TaskTests = EnvTests


def _bounds(env: TaskEnv) -> tuple[np.ndarray, np.ndarray]:
    space: Any = env.action_space
    return space.low, space.high


@contextlib.contextmanager
def _skip_without_graphics() -> Iterator[None]:
    try:
        yield
    except RenderingError as error:
        pytest.skip(str(error))


def _global_state() -> str:
    return str(np.random.get_state(legacy=False))  # noqa: NPY002  (this is what is tested)


def _play(env: TaskEnv, n_steps: int, *, seed: int = 0) -> list[Step]:
    """Take random actions until the episode ends, `n_steps` at most."""
    random = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    steps: list[Step] = []
    for _ in range(n_steps):
        steps.append(env.step(random.uniform(low, high)))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def _assert_same(a: Observation, b: Observation) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
