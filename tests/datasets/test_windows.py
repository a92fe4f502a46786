"""Windows, against a reference that walks through every episode step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.windows import WindowDataset, WindowIndex, WindowSpec, check_finite

STATE, ENVIRONMENT, TOP = "observation.state", "observation.environment_state", "observation.images.top"


class CountingImages:
    """Frames whose pixels spell their step; remembers what it was asked to decode."""

    def __init__(self, n: int) -> None:
        self.frames = np.zeros((n, 2, 3, 3), np.uint8)
        self.frames[:] = np.arange(n)[:, None, None, None]
        self.frames[..., 1] += 100
        self.decoded: list[int] = []

    def decode(self, indices: np.ndarray) -> np.ndarray:
        self.decoded += indices.tolist()
        return self.frames[indices]


def make_store(lengths: list[int]) -> Any:
    """A store in memory whose values spell their step."""
    n = sum(lengths)
    columns = {
        STATE: np.arange(n, dtype=np.float32)[:, None] + np.array([0.0, 0.25], np.float32),
        ENVIRONMENT: np.arange(n, dtype=np.float64)[:, None] * 3,
        "action": np.arange(n, dtype=np.float32)[:, None] * -1,
    }
    images = CountingImages(n)
    features = {name: Feature(dtype="float32", shape=c.shape[1:]) for name, c in columns.items()}
    features[TOP] = Feature(dtype="uint8", shape=(2, 3, 3))
    return SimpleNamespace(
        features=features,
        episode_ends=np.cumsum(lengths),
        episodes={"task_index": [i % 2 for i in range(len(lengths))]},
        tasks=["push", "pull"],
        column=columns.__getitem__,
        images=lambda name: images,
        columns=columns,
    )


def reference_windows(
    lengths: list[int], spec: WindowSpec, episodes: list[int]
) -> list[tuple[int, list[int], list[bool]]]:
    """(episode, steps, is_pad) of every window, by the definition: try each 'now', clamp each step."""
    windows = []
    for episode in episodes:
        first = sum(lengths[:episode])
        for now in range(lengths[episode]):
            start = now - (spec.n_obs_steps - 1)
            if start + spec.horizon > lengths[episode] + spec.n_action_steps - 1:
                continue  # would begin to execute beyond the end
            steps, pads = [], []
            for k in range(spec.horizon):
                wanted = start + k
                steps.append(first + min(max(wanted, 0), lengths[episode] - 1))
                pads.append(not 0 <= wanted < lengths[episode])
            windows.append((episode, steps, pads))
    return windows


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    n_obs = draw(st.integers(1, 4))
    n_action = draw(st.integers(1, 5))
    return WindowSpec(n_obs, draw(st.integers(n_obs + n_action - 1, 10)), n_action)


@given(st.lists(st.integers(1, 14), min_size=1, max_size=6), specs(), st.data())
def test_every_window_equals_the_step_by_step_reference(lengths, spec, data):
    """Count, order, episodes, steps and padding of all windows agree with the reference."""
    episodes = data.draw(st.lists(st.sampled_from(range(len(lengths))), unique=True, min_size=1).map(sorted))
    expected = reference_windows(lengths, spec, episodes)
    index = WindowIndex(np.cumsum(lengths), spec, np.array(episodes))
    assert len(index) == len(expected)
    assert index.n_too_short == len(set(episodes) - {e for e, _, _ in expected})
    numbers = np.arange(len(index))
    steps, is_pad = index.steps(numbers)
    assert index.episode(numbers).tolist() == [e for e, _, _ in expected]
    assert steps.tolist() == [s for _, s, _ in expected]
    assert is_pad.tolist() == [p for _, _, p in expected]


@given(st.lists(st.integers(8, 14), min_size=1, max_size=4), specs(), st.data())
def test_a_batch_equals_its_samples_one_by_one(lengths, spec, data):
    """A gathered batch holds, row by row, what the reference reads for each window."""
    store = make_store(lengths)
    dataset = WindowDataset(store, spec, observation=[STATE, ENVIRONMENT, TOP], with_task=True)
    numbers = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=9))
    batch = dataset.__getitems__(numbers)
    windows = reference_windows(lengths, spec, list(range(len(lengths))))
    for row, number in enumerate(numbers):
        episode, steps, pads = windows[number]
        seen = steps[: spec.n_obs_steps]
        np.testing.assert_array_equal(batch[STATE][row], store.columns[STATE][seen])
        np.testing.assert_array_equal(batch[ENVIRONMENT][row], store.columns[ENVIRONMENT][seen])
        np.testing.assert_array_equal(batch["action"][row], store.columns["action"][steps])
        np.testing.assert_array_equal(batch["action_is_pad"][row], pads)
        frames = store.images(TOP).frames[seen]
        np.testing.assert_array_equal(batch[TOP][row], frames.transpose(0, 3, 1, 2))
        assert batch["task"][row] == store.tasks[episode % 2]


def test_batches_have_the_documented_shapes_and_types():
    """Low-dimensional features are float32, images (B, T_o, C, H, W) uint8, padding boolean."""
    dataset = WindowDataset(make_store([20, 20]), WindowSpec(2, 8, 4), observation=[STATE, ENVIRONMENT, TOP])
    batch = dataset.__getitems__(np.arange(5))
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        STATE: ((5, 2, 2), "float32"),
        ENVIRONMENT: ((5, 2, 1), "float32"),
        TOP: ((5, 2, 3, 2, 3), "uint8"),
        "action": ((5, 8, 1), "float32"),
        "action_is_pad": ((5, 8), "bool"),
    }


def test_a_frame_is_decoded_once_per_batch():
    """Neighbouring windows share frames; each is decoded once."""
    store = make_store([20])
    dataset = WindowDataset(store, WindowSpec(3, 8, 4), observation=[TOP])
    dataset.__getitems__([4, 5, 6, 5])
    assert store.images(TOP).decoded == [2, 3, 4, 5, 6]


def test_sample_count_of_the_original_code():
    """An episode of 161 steps with horizons 2/16/8 has 154 windows, as in the Diffusion Policy code."""
    assert WindowSpec(2, 16, 8).n_windows(np.array([161])).tolist() == [154]


def test_window_numbers_out_of_range_are_refused():
    """A negative or too large number raises instead of wrapping around."""
    dataset = WindowDataset(make_store([20]), WindowSpec(2, 8, 4), observation=[STATE])
    for number in (-1, len(dataset)):
        with pytest.raises(IndexError, match=f"got {number}"):
            dataset.__getitems__([number])


def test_an_unknown_feature_names_the_nearest_one():
    """A misspelt observation is answered with the right spelling."""
    with pytest.raises(DatasetError, match=r"did you mean 'observation\.state'"):
        WindowDataset(make_store([20]), WindowSpec(2, 8, 4), observation=["observation.stat"])


def test_episodes_too_short_for_the_horizon_are_an_error():
    """If no episode has a window, the message gives the longest episode and the length needed."""
    with pytest.raises(DatasetError, match="longest has 5 steps, horizon=16 needs 8"):
        WindowDataset(make_store([5, 4]), WindowSpec(2, 16, 8), observation=[STATE])


def test_a_store_without_episodes_is_an_error():
    """Zero episodes end in a clear message."""
    with pytest.raises(DatasetError, match="no episodes"):
        WindowDataset(make_store([]), WindowSpec(2, 8, 4), observation=[STATE])


def test_execution_beyond_the_prediction_is_refused():
    """T_a may not exceed the predicted steps from now on."""
    with pytest.raises(DatasetError, match="exceeds the 7 predicted steps"):
        WindowSpec(2, 8, 8)


def test_not_a_number_is_located():
    """The check names feature, step and episode, and ignores episodes that are not used."""
    store = make_store([10, 10])
    store.columns["action"][13] = np.nan
    with pytest.raises(DatasetError, match=r"'action' is not finite at step 3 of episode 1"):
        check_finite(store, ["action"], np.array([0, 1]))
    check_finite(store, ["action", TOP], np.array([0]))
