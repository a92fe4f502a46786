"""The vector environment equals many single ones."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("robosuite") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from gymnasium.vector import AutoresetMode, SyncVectorEnv

from robot_sim.actions import ActionError
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.tasks.tabletop_lift import TabletopLift
from robot_sim.vector.vector_env import MujocoVectorEnv

N = 3


class ShortLift(TabletopLift):
    """Lift with episodes of different lengths: the cube need only be approached, and four steps are the limit."""

    def __init__(self) -> None:
        super().__init__(arm="panda", control="osc_delta", cameras=(), image_size=84)
        self.spec = type(self.spec)(**{**self.spec.__dict__, "max_steps": 4})

    def success(self, sim: Any) -> np.ndarray:
        """Succeed where the arm happens to be near."""
        return self.reward_terms(sim)["reach"] > 0.02


@pytest.fixture(scope="module")
def task() -> ShortLift:
    """One task for all tests: its model is compiled once."""
    return ShortLift()


@pytest.fixture
def env(task: ShortLift) -> Iterator[MujocoVectorEnv]:
    """A vector environment."""
    made = MujocoVectorEnv(task, N)
    yield made
    made.close()


def _actions(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, N, 7)).astype(np.float32)


def _same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        for name in a:
            _same(a[name], b[name])
    elif np.asarray(a).dtype.kind == "f" and np.asarray(a).dtype.itemsize == 8:
        # rewards: NumPy's vectorised functions round by the length of the array
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12, atol=0)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_it_equals_gymnasiums_own(task: ShortLift, mode: AutoresetMode) -> None:
    """Over several episodes each, all equals `SyncVectorEnv`: bits of states, rewards to rounding."""
    ours = MujocoVectorEnv(task, N, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: MujocoTaskEnv(task)] * N, autoreset_mode=mode)
    _same(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    ends = 0
    for action in _actions(14):
        a, b = ours.step(action), theirs.step(action)
        for x, y in zip(a[:4], b[:4], strict=True):
            _same(x, y)
        _same(a[4]["is_success"], b[4]["is_success"])
        _same(a[4]["reward_terms"]["reach"], b[4]["reward_terms"]["reach"])
        ended = a[2] | a[3]
        ends += int(ended.sum())
        if mode == AutoresetMode.SAME_STEP and ended.any():
            _same(a[4]["_final_obs"], b[4]["_final_obs"])
            for row in np.flatnonzero(ended):
                _same(a[4]["final_obs"][row], b[4]["final_obs"][row])
    assert ends > N
    ours.close()
    theirs.close()


def test_a_row_depends_on_its_own_seed_alone(env: MujocoVectorEnv, task: ShortLift) -> None:
    """Other seeds and actions in the other rows change nothing in this one, over several episodes."""
    other = MujocoVectorEnv(task, N, threads=0)
    env.reset(seed=[1, 2, 3])
    other.reset(seed=[9, 2, 7])
    for ours, strange in zip(_actions(10), _actions(10, seed=1), strict=True):
        strange[1] = ours[1]
        a, b = env.step(ours), other.step(strange)
        _same({k: v[1] for k, v in a[0].items()}, {k: v[1] for k, v in b[0].items()})
        assert a[1][1] == b[1][1]
        assert a[4]["episode_seed"][1] == b[4]["episode_seed"][1]
    other.close()


def test_ended_environments_wait_for_a_reset(task: ShortLift) -> None:
    """Without autoreset, stepping an ended environment is an error, and a mask resets it alone."""
    env = MujocoVectorEnv(task, N, autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(seed=1)
    ended = np.zeros(N, dtype=bool)
    for action in _actions(4):
        if not ended.any():
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated | truncated
    assert ended.any()
    with pytest.raises(ValueError, match="reset them first"):
        env.step(_actions(1)[0])
    after, _ = env.reset(seed=[50, 51, 52], options={"reset_mask": ended})
    for name, value in observation.items():
        _same(value[~ended], after[name][~ended])
        assert (value[ended] != after[name][ended]).any()
    env.close()


def test_a_saved_state_continues_bit_for_bit(env: MujocoVectorEnv) -> None:
    """After a restore the same actions give the same future, the next episodes' seeds included."""
    env.reset(seed=3)
    actions = _actions(12)
    env.step(actions[0])
    saved = env.save_state()
    first = [env.step(action) for action in actions[1:]]
    env.restore_state(saved)
    for before, action in zip(first, actions[1:], strict=True):
        after = env.step(action)
        _same(before[0], after[0])
        assert np.array_equal(before[1], after[1])


def test_an_unstable_environment_ends_alone(env: MujocoVectorEnv) -> None:
    """One that flies apart is terminated and told; the others go on as if nothing had happened."""
    env.reset(seed=2)
    fast = np.zeros(env.task.model.nv)
    fast[0] = 1e12
    env.simulation.physics.set_state([1], qvel=fast)
    _, _, terminated, _, info = env.step(np.zeros((N, 7)))
    assert terminated[1]
    assert info["diverged"].tolist() == [False, True, False]
    _, _, _, _, info = env.step(np.zeros((N, 7)))
    assert not info["diverged"].any()


@pytest.mark.parametrize("problem", ["shape", "nan"])
def test_bad_actions_are_refused(env: MujocoVectorEnv, problem: str) -> None:
    """One action for all, or a NaN in one row, raises and names the task."""
    env.reset(seed=0)
    bad = np.zeros(7) if problem == "shape" else np.full((N, 7), np.nan)
    with pytest.raises(ActionError, match="tabletop_lift"):
        env.step(bad)
