"""The window of observations against an obvious reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.evaluation.observation_history import ObservationHistory
from robot_policies.spec import PolicySpec, SpecError

STATE, IMAGE = "observation.state", "observation.images.top"


def history(n_obs_steps):
    return ObservationHistory(
        PolicySpec(
            observation={
                STATE: Feature(dtype="float32", shape=(2,)),
                IMAGE: Feature(dtype="uint8", shape=(3, 4, 3)),
            },
            action=Feature(dtype="float32", shape=(1,)),
            n_obs_steps=n_obs_steps,
            horizon=8,
            n_action_steps=1,
            fps=10.0,
        )
    )


def observed(i):
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) + i
    return {STATE: np.array([i, -i], dtype=np.float64), IMAGE: image.astype(np.uint8), "extra": np.zeros(3)}


@given(st.integers(1, 5), st.integers(1, 9))
def test_window_is_the_last_steps_with_the_first_repeated(n_obs_steps, n):
    """After n observations the window holds the last T_o, padded in front with the first."""
    window = history(n_obs_steps)
    window.reset(observed(0))
    for i in range(1, n):
        window.append(observed(i))
    expected = [max(0, n - n_obs_steps + k) for k in range(n_obs_steps)]
    states = window.window()[STATE]
    assert states.dtype == np.float32
    assert states[:, 0].tolist() == expected


def test_images_become_channels_first():
    """(H, W, C) from the task is (T_o, C, H, W) for the policy, still uint8; other features are left out."""
    window = history(2)
    window.reset(observed(5))
    result = window.window()
    assert set(result) == {STATE, IMAGE}
    assert result[IMAGE].shape == (2, 3, 3, 4)
    assert result[IMAGE].dtype == np.uint8
    np.testing.assert_array_equal(result[IMAGE][1].transpose(1, 2, 0), observed(5)[IMAGE])


def test_reset_forgets():
    """Nothing of an earlier episode stays in the window."""
    window = history(3)
    window.reset(observed(1))
    window.append(observed(2))
    window.reset(observed(7))
    assert window.window()[STATE][:, 0].tolist() == [7, 7, 7]


def test_the_task_may_reuse_its_arrays():
    """An array that the task overwrites later does not change the window."""
    window = history(1)
    shared = {**observed(1), STATE: np.ones(2, dtype=np.float32)}
    window.reset(shared)
    shared[STATE][:] = 9
    assert window.window()[STATE].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({STATE: np.zeros(3)}, SpecError, r"shape \(3,\), but the policy reads \(2,\)"),
        ({STATE: np.array([0, np.nan])}, ValueError, "NaN"),
    ],
)
def test_bad_observations(change, error, message):
    """A wrong shape and NaN are caught where they enter."""
    with pytest.raises(error, match=message):
        history(1).reset({**observed(0), **change})


def test_a_missing_feature_is_named():
    """What the task does not observe is named, with what it does."""
    with pytest.raises(SpecError, match=r"reads the observation 'observation\.images\.top'"):
        history(1).reset({STATE: np.zeros(2)})
