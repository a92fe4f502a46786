"""Vectorised tasks: buffers, resets, time-outs, clipping; and own MuJoCo tasks behind the same interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from robot_sim.isaac.cartpole import Cartpole, default_config
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.task_adapter import MujocoVecTask, vec_task


@pytest.fixture
def cartpole():
    """Sixteen carts."""
    torch.manual_seed(0)
    task = Cartpole(default_config(16))
    yield task
    task.close()


def test_buffers_have_isaac_gyms_types(cartpole):
    """Shapes and dtypes, `reset_buf` of ones at the start, spaces of one environment."""
    assert cartpole.obs_buf.shape == (16, 4)
    assert cartpole.obs_buf.dtype == torch.float32
    assert cartpole.reset_buf.dtype == torch.int64
    assert cartpole.reset_buf.tolist() == [1] * 16
    assert cartpole.progress_buf.dtype == torch.int64
    assert cartpole.observation_space.shape == (4,)
    assert cartpole.action_space.shape == (1,)
    assert (cartpole.num_envs, cartpole.num_obs, cartpole.num_acts) == (16, 4, 1)


def test_step_returns_four_things_and_starts_episodes(cartpole):
    """The first step resets all environments; the second counts on."""
    observation, reward, reset, extras = cartpole.step(cartpole.zero_actions())
    assert cartpole.progress_buf.tolist() == [0] * 16
    assert observation["obs"].shape == (16, 4)
    assert observation["obs"].abs().max() <= 0.1
    assert reward.shape == reset.shape == extras["time_outs"].shape == (16,)
    cartpole.step(cartpole.zero_actions())
    assert cartpole.progress_buf.tolist() == [1] * 16


def test_a_lost_episode_starts_anew_in_the_next_step_and_alone(cartpole):
    """Pushed hard, one cart leaves its bounds; the others keep their episodes."""
    actions = cartpole.zero_actions()
    cartpole.step(actions)
    actions[3] = 1.0
    _, reward, reset, extras = cartpole.step(actions)
    for _ in range(60):
        if reset[3]:
            break
        _, reward, reset, extras = cartpole.step(actions)
    assert reset.nonzero().flatten().tolist() == [3]
    assert float(reward[3]) == -2.0
    assert not extras["time_outs"].any()
    length = int(cartpole.progress_buf[3])
    observation, *_ = cartpole.step(cartpole.zero_actions())
    assert cartpole.progress_buf[3] == 0
    assert observation["obs"][3].abs().max() <= 0.1
    assert cartpole.progress_buf[2] == length + 1


def test_time_outs_are_told_from_failures():
    """With a short episode length all end together, marked as cut off."""
    config = default_config(4)
    config["env"]["episodeLength"] = 5
    task = Cartpole(config)
    for _ in range(4):
        task.step(task.zero_actions())
    *_, reset, extras = task.step(task.zero_actions())
    assert reset.all()
    assert extras["time_outs"].all()
    task.close()


def test_actions_and_observations_are_clipped(cartpole):
    """An action of 100 pushes as 1 does; observations stay within clipObservations."""
    cartpole.step(cartpole.zero_actions())
    cartpole.step(torch.full((16, 1), 100.0))
    assert cartpole.efforts[:, 0].tolist() == [60.0] * 16
    cartpole.obs_buf[:] = 50.0
    assert cartpole.reset()["obs"].max() == 5.0


def test_the_control_can_be_slower_than_the_simulation():
    """ControlFrequencyInv simulates so often per step."""
    config = default_config(2)
    config["env"]["controlFrequencyInv"] = 3
    task = Cartpole(config)
    task.step(task.zero_actions())
    assert task.sim.frame_count == 3
    task.close()


@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_bad_actions_are_refused(cartpole, bad):
    """A wrong shape and NaN are one line each."""
    actions = torch.zeros(16, 2) if bad == "shape" else torch.full((16, 1), float("nan"))
    with pytest.raises(IsaacError, match="actions"):
        cartpole.step(actions)


@pytest.mark.parametrize("value", [0, "many", None])
def test_bad_configurations_are_refused(value):
    """No environments, or no number of them."""
    config = default_config(2)
    config["env"]["numEnvs"] = value
    with pytest.raises(IsaacError, match="numEnvs"):
        Cartpole(config)


def test_an_own_task_is_a_vectorised_one():
    """tabletop_lift: observations, rewards and ends are the task's own, environment by environment."""
    task = vec_task("tabletop_lift", 3, seed=5)
    size = sum(int(np.prod(feature.shape)) for feature in task.task.spec.observation.values())
    assert task.obs_buf.shape == (3, size) == (3, len(task.observation_names))
    first = task.reset()["obs"].clone()
    assert not torch.equal(first[0], first[1])
    observation, reward, reset, extras = task.step(task.zero_actions())
    outcome = task.simulation.outcome()
    np.testing.assert_allclose(reward.numpy(), outcome.reward, rtol=1e-6)
    assert set(extras["reward_terms"]) == set(outcome.terms)
    assert not reset.any()
    assert torch.isfinite(observation["obs"]).all()
    again = MujocoVecTask(task.task, 3, seed=5)
    assert torch.equal(again.reset()["obs"], first)
    task.reset_idx(torch.tensor([1]))
    task._observe()
    assert torch.equal(task.obs_buf[0], observation["obs"][0])
    assert not torch.equal(task.obs_buf[1], first[1])
    task.close()
    again.close()


def test_an_own_task_ends_with_its_step_limit():
    """At the last step all episodes are over and cut off, and the next step starts others."""
    task = vec_task("tabletop_lift", 2)
    task.simulation.n_steps[:] = task.max_episode_length - 1
    *_, reset, extras = task.step(task.zero_actions())
    assert reset.all()
    assert extras["time_outs"].all()
    task.step(task.zero_actions())
    progress: Any = task.progress_buf
    assert progress.tolist() == [0, 0]
    assert not task.reset_buf.any()
    task.close()


def test_tasks_of_other_libraries_are_refused():
    """Only own tasks are written over batches."""
    with pytest.raises(Exception, match="tabletop_"):
        vec_task("gym/CartPole-v1")
