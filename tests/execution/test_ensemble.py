"""Temporal ensembling against a reference written as ACT's loop over time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.configuration import ConfigError
from robot_policies.execution import ChunkExecutor, build_executor
from robot_policies.execution.ensemble import TemporalEnsemble
from robot_policies.spec import PolicySpec


def ensemble(n_obs_steps, horizon, decay=0.01):
    vector = Feature(dtype="float32", shape=(2,))
    spec = PolicySpec(
        observation={"observation.state": vector},
        action=vector,
        n_obs_steps=n_obs_steps,
        horizon=horizon,
        n_action_steps=1,
        fps=10.0,
    )
    executor = build_executor({"type": "temporal_ensemble", "decay": decay}, spec)
    assert isinstance(executor, TemporalEnsemble)
    return executor


@given(
    n_obs_steps=st.integers(1, 3),
    room=st.integers(1, 8),
    n_steps=st.integers(1, 20),
    decay=st.floats(-1, 1),
    seed=st.integers(0, 99),
)
def test_every_step_is_the_weighted_mean_of_all_predictions_for_it(n_obs_steps, room, n_steps, decay, seed):
    """With a chunk per step this is ACT: weights exp(-decay i), the oldest prediction first."""
    rng = np.random.default_rng(seed)
    chunks = rng.normal(size=(n_steps, n_obs_steps - 1 + room, 2))
    executor = ensemble(n_obs_steps, n_obs_steps - 1 + room, decay)
    assert isinstance(executor, ChunkExecutor)
    for t in range(n_steps):
        assert executor.needs_chunk()
        executor.push(chunks[t], computed_for_step=t)
        assert not executor.needs_chunk()
        votes = [chunks[s][n_obs_steps - 1 + t - s] for s in range(t + 1) if t - s < room]
        weights = np.exp(-decay * np.arange(len(votes)))
        expected = (np.array(votes) * (weights / weights.sum())[:, None]).sum(axis=0)
        np.testing.assert_allclose(executor.planned()[0], expected, atol=1e-12)
        np.testing.assert_allclose(executor.next_action(), expected, atol=1e-12)


@given(delay=st.integers(0, 4), room=st.integers(1, 8), decay=st.floats(0, 0.5))
def test_late_chunks_leave_no_gap_and_keep_their_alignment(drive, delay, room, decay):
    """If every chunk is late, each action is still a mean of predictions for its own step, and of old ones."""
    executor = ensemble(2, room + 1, decay)
    try:
        executor.check_delay(delay)
    except ConfigError:
        return
    taken, requests = drive(executor, 2, room + 1, [delay], 25)
    np.testing.assert_allclose(taken[:, 0], np.arange(25), atol=1e-9)
    assert (taken[2 * max(delay, 1) :, 1] <= np.arange(25)[2 * max(delay, 1) :] - delay + 1e-9).all()
    assert [step for step, _ in requests[:3]] == [0, 1, 1 + max(delay, 1)]


def test_a_real_zero_is_a_prediction():
    """The original takes an all-zero prediction for a missing one; a mean with zeros must be pulled to 0."""
    executor = ensemble(1, 2, decay=0.0)
    executor.push(np.zeros((2, 2)), computed_for_step=0)
    executor.next_action()
    executor.push(np.ones((2, 2)), computed_for_step=1)
    assert executor.next_action().tolist() == [0.5, 0.5]


def test_a_positive_decay_trusts_the_old():
    """The sign is ACT's: larger weights for older predictions."""
    executor = ensemble(1, 2, decay=1.0)
    executor.push(np.zeros((2, 2)), computed_for_step=0)
    executor.next_action()
    executor.push(np.ones((2, 2)), computed_for_step=1)
    assert executor.next_action()[0] < 0.5


def test_memory_does_not_grow():
    """Chunks that reach no further step are dropped."""
    executor = ensemble(1, 4)
    for step in range(50):
        executor.push(np.zeros((4, 2)), computed_for_step=step)
        executor.next_action()
    assert len(executor._chunks) == 3


@pytest.mark.parametrize("computed_for_step", [-4, 1])
def test_stale_and_future_chunks_are_refused(computed_for_step):
    """A chunk without an action for now is an error."""
    with pytest.raises(ValueError, match="current step is 0"):
        ensemble(1, 4).push(np.zeros((4, 2)), computed_for_step=computed_for_step)


def test_nothing_pushed_nothing_planned():
    """Without chunks there is no action; a reset forgets them."""
    executor = ensemble(1, 4)
    executor.push(np.zeros((4, 2)), computed_for_step=0)
    executor.reset()
    assert executor.planned().shape == (0, 2)
    with pytest.raises(RuntimeError, match="no chunk covers step 0"):
        executor.next_action()


def test_a_delay_that_outlasts_the_chunks_is_refused():
    """Eight predicted steps cover chunks that are four steps late, not five."""
    ensemble(1, 8).check_delay(4)
    with pytest.raises(ConfigError, match="has to last 10 steps"):
        ensemble(1, 8).check_delay(5)
