"""Receding horizon against an obvious reference, and what all executors share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.execution.executor import (
    RecedingHorizon,
    build_executor,
    check_chunk,
)
from robot_policies.policy import ActionChunk, Policy
from robot_policies.spec import PolicySpec


@st.composite
def horizons(draw):
    """(T_o, T_p, T_a) that fit together."""
    n_obs_steps = draw(st.integers(1, 4))
    horizon = draw(st.integers(n_obs_steps, 20))
    return n_obs_steps, horizon, draw(st.integers(1, horizon - n_obs_steps + 1))


def receding(n_obs_steps, horizon, n_action_steps):
    return RecedingHorizon(
        n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps, action_dim=2
    )


def spec_of(n_obs_steps, horizon, n_action_steps):
    vector = Feature(dtype="float32", shape=(2,))
    return PolicySpec(
        observation={"observation.state": vector},
        action=vector,
        n_obs_steps=n_obs_steps,
        horizon=horizon,
        n_action_steps=n_action_steps,
        fps=10.0,
    )


@given(horizons(), st.integers(1, 60))
def test_every_step_gets_its_own_action_from_the_last_chunk(chunk_for, sizes, n_steps):
    """Step t executes index T_o - 1 + t mod T_a of the chunk computed at the last multiple of T_a."""
    n_obs_steps, horizon, n_action_steps = sizes
    executor = receding(*sizes)
    for step in range(n_steps):
        assert executor.step == step
        assert executor.needs_chunk() == (step % n_action_steps == 0)
        if executor.needs_chunk():
            executor.push(chunk_for(step, n_obs_steps, horizon), computed_for_step=step)
        assert executor.next_action().tolist() == [step, step - step % n_action_steps]


@given(horizons(), st.data())
def test_a_late_chunk_skips_what_has_passed(chunk_for, sizes, data):
    """A chunk computed d steps ago starts with the action for now, not with its first one."""
    n_obs_steps, horizon, n_action_steps = sizes
    delay = data.draw(st.integers(0, n_action_steps - 1))
    executor = receding(*sizes)
    executor.push(chunk_for(0, n_obs_steps, horizon), computed_for_step=0)
    for _ in range(delay):
        executor.next_action()
    executor.push(np.add(chunk_for(0, n_obs_steps, horizon), (0, 100)), computed_for_step=0)
    taken = [executor.next_action().tolist() for _ in range(n_action_steps - delay)]
    assert taken == [[step, 100] for step in range(delay, n_action_steps)]
    assert executor.needs_chunk()


@given(horizons())
def test_planned_reaches_to_the_end_of_the_chunk(chunk_for, sizes):
    """`planned` is the prediction from now to the chunk's end, also beyond what will be executed."""
    n_obs_steps, horizon, _ = sizes
    executor = receding(*sizes)
    assert executor.planned().shape == (0, 2)
    executor.push(chunk_for(0, n_obs_steps, horizon), computed_for_step=0)
    executor.next_action()
    assert executor.planned()[:, 0].tolist() == list(range(1, horizon - n_obs_steps + 1))


def test_the_caller_may_reuse_its_array(chunk_for):
    """Changing the pushed array, or a returned action, changes nothing inside."""
    executor = receding(1, 3, 3)
    chunk = chunk_for(0, 1, 3)
    executor.push(chunk, computed_for_step=0)
    chunk[:] = -1
    executor.next_action()[:] = -2
    executor.planned()[:] = -3
    assert executor.next_action().tolist() == [1, 0]


def test_no_chunk_no_action(chunk_for):
    """Asking for an action that no chunk covers is an error, before the first chunk and after the last."""
    executor = receding(1, 2, 2)
    with pytest.raises(RuntimeError, match="no chunk covers step 0"):
        executor.next_action()
    executor.push(chunk_for(0, 1, 2), computed_for_step=0)
    executor.next_action()
    executor.next_action()
    with pytest.raises(RuntimeError, match="no chunk covers step 2"):
        executor.next_action()


@pytest.mark.parametrize("computed_for_step", [-2, 1])
def test_stale_and_future_chunks_are_refused(chunk_for, computed_for_step):
    """A chunk that has no action for the current step is not silently executed."""
    executor = receding(1, 2, 2)
    with pytest.raises(ValueError, match="current step is 0"):
        executor.push(chunk_for(0, 1, 2), computed_for_step=computed_for_step)


def test_reset_forgets_the_chunk(chunk_for):
    """After a reset the executor is at step 0 and wants a chunk."""
    executor = receding(2, 8, 4)
    executor.push(chunk_for(0, 2, 8), computed_for_step=0)
    executor.next_action()
    executor.reset()
    assert executor.step == 0
    assert executor.needs_chunk()


def test_bad_chunks_are_refused():
    """Shape and finiteness are checked where a chunk enters."""
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(3, 2\)"):
        check_chunk(np.zeros((2, 3)), horizon=3, action_dim=2)
    with pytest.raises(ValueError, match="first at index 1 of 3"):
        check_chunk(np.array([[0, 0], [np.inf, 0], [0, np.nan]]), horizon=3, action_dim=2)


def test_execution_horizon_can_be_overridden_within_the_chunk(chunk_for):
    """A configured T_a replaces the policy's, up to what was predicted."""
    executor = build_executor({"type": "receding_horizon", "n_action_steps": 7}, spec_of(2, 8, 4))
    executor.push(chunk_for(0, 2, 8), computed_for_step=0)
    assert [executor.next_action()[0] for _ in range(7)] == list(range(7))
    with pytest.raises(ConfigError, match="got 8, expected 1 to 7"):
        build_executor({"type": "receding_horizon", "n_action_steps": 8}, spec_of(2, 8, 4))


def test_default_executor_takes_the_policys_horizon(chunk_for):
    """Without a configuration, T_a actions of each chunk are executed."""
    executor = build_executor(None, spec_of(1, 6, 3))
    executor.push(chunk_for(0, 1, 6), computed_for_step=0)
    for _ in range(3):
        executor.next_action()
    assert executor.needs_chunk()


class Still(Policy):
    """A policy that stays where it is."""

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_chunk(self, observation, *, goal=None, generator=None, sampler=None):
        size = self.check_observation(observation)
        return ActionChunk(actions=torch.zeros(size, self.spec.horizon, 2), n_network_calls=1)


def test_the_evaluation_loop_runs_any_executor():
    """An executor is chosen by its type in an evaluation; one that ensembles asks for a chunk at every step."""
    policy = Still(
        PolicySpec(
            observation={"observation.state": POSITION}, action=VELOCITY,
            n_obs_steps=1, horizon=5, n_action_steps=5, fps=FPS,
        )
    )  # fmt: skip
    results = evaluate_policy(policy, PointMass, [1, 2], workers=0, executor={"type": "temporal_ensemble"})
    assert [r.n_chunks for r in results] == [r.steps for r in results] == [20, 20]
    assert [r.n_chunks for r in evaluate_policy(policy, PointMass, [1, 2], workers=0)] == [4, 4]


def test_receding_horizon_tolerates_no_delay():
    """It has nothing to do while a chunk is computed, and says what has."""
    receding(1, 3, 3).check_delay(0)
    with pytest.raises(ConfigError, match="use executor=real_time"):
        receding(1, 3, 3).check_delay(1)
    assert receding(1, 3, 3).continuation() is None
