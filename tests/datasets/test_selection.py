"""Selections of a store's steps, and the order that draws windows in proportion to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.errors import DatasetError
from robot_datasets.selection import Selection, WeightedOrder
from robot_datasets.windows import WindowIndex, WindowSpec


def selection(weights, fingerprint="abc"):
    weights = np.asarray(weights, np.float32)
    return Selection(fingerprint=fingerprint, weights=weights, distances=1 - weights, about={"method": "x"})


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.1, 2.5]), min_size=1, max_size=40), st.integers(0, 99))
def test_windows_are_drawn_in_proportion_to_their_weights(weights, seed):
    """After any number of epochs, each window was drawn as often as its weight says, to one draw."""
    weights = np.array(weights)
    if not weights.any():
        weights[0] = 1.0
    n = int((weights > 0).sum())
    samples = WeightedOrder(weights, seed).samples(np.arange(7 * n))
    counts = np.bincount(samples, minlength=len(weights))
    expected = 7 * n * weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    # The last epoch may be cut short, where counts differ by as much as one epoch draws.
    slack = 1 + np.ceil(weights / weights.sum() * n)
    assert (np.abs(counts - expected) <= 2 * slack).all()


@settings(max_examples=20)
@given(st.integers(1, 50), st.integers(0, 99))
def test_equal_weights_visit_every_window_once_per_epoch(n, seed):
    """A selection without preferences is a shuffled subset."""
    weights = np.zeros(2 * n)
    weights[::2] = 0.25
    samples = WeightedOrder(weights, seed).samples(np.arange(3 * n)).reshape(3, n)
    assert (np.sort(samples, axis=1) == np.arange(0, 2 * n, 2)).all()


@settings(max_examples=20)
@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=20), st.integers(0, 99), st.integers(0, 90))
def test_the_order_is_a_pure_function_of_the_position(weights, seed, start):
    """Positions asked one by one, in any order, give what a whole run gives; draws count occurrences."""
    weights = np.array(weights)
    positions = np.arange(99)
    whole = WeightedOrder(weights, seed, stream=3)
    samples, draws = whole.samples(positions), whole.draws(positions)
    fresh = WeightedOrder(weights, seed, stream=3)
    assert fresh.samples(positions[start : start + 5]).tolist() == samples[start : start + 5].tolist()
    seen: dict[int, int] = {}
    for sample, draw in zip(samples.tolist(), draws.tolist(), strict=True):
        assert draw == seen.get(sample, 0)
        seen[sample] = draw + 1


def test_seeds_and_streams_give_other_orders():
    """Neither the seed nor the stream is ignored."""
    weights = np.ones(50)
    orders = [WeightedOrder(weights, 0), WeightedOrder(weights, 1), WeightedOrder(weights, 0, stream=1)]
    first = {tuple(order.samples(np.arange(50)).tolist()) for order in orders}
    assert len(first) == 3


def test_a_selection_survives_its_file(tmp_path):
    """Weights, distances, fingerprint and description come back; no temporary file stays."""
    before = selection([0, 0.5, 2])
    before.save(tmp_path / "selection.npz")
    after = Selection.load(tmp_path / "selection.npz")
    assert (after.fingerprint, after.about) == ("abc", {"method": "x"})
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.distances, before.distances)
    assert [p.name for p in tmp_path.iterdir()] == ["selection.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b'{"a": 1}'])
def test_a_damaged_file_is_explained(tmp_path, content):
    """Whatever is in the file, the message says what was expected."""
    path = tmp_path / "selection.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="no selection"):
        Selection.load(path)
    with pytest.raises(DatasetError, match="no selection"):
        Selection.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, np.nan]])
def test_impossible_weights_are_refused(weights):
    """No step, no positive weight, a negative or a missing one."""
    with pytest.raises(DatasetError, match="weights must be"):
        selection(weights)


def test_windows_take_the_weight_of_their_now():
    """With T_o = 2, the first window's now is the first step of its episode; left-out episodes do not count."""
    index = WindowIndex(np.array([4, 9, 12]), WindowSpec(2, 4, 2), np.array([1, 2]))
    weights = selection(np.arange(12)).of_windows(index, "abc", where="s")
    assert weights.tolist() == [4, 5, 6, 7, 9, 10]


def test_a_selection_fits_its_own_store_only():
    """Another fingerprint is refused, and so is a selection of which no window is left."""
    index = WindowIndex(np.array([4, 9]), WindowSpec(1, 2, 1), np.array([0]))
    with pytest.raises(DatasetError, match="made for another store"):
        selection(np.ones(9)).of_windows(index, "xyz", where="s")
    with pytest.raises(DatasetError, match="no window of the training episodes is selected"):
        selection([0] * 4 + [1] * 5).of_windows(index, "abc", where="s")
