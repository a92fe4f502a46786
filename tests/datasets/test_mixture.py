"""Weighted mixtures of several stores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.errors import DatasetError
from robot_datasets.mixture import BLOCK, Affine, MixtureDataset, MixtureOrder, rescaling


class Constant:
    """A dataset of `n` windows whose batch tells dataset and window number."""

    def __init__(self, n: int, name: float) -> None:
        self.n = n
        self.name = name

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, windows, draws=None):
        numbers = np.asarray(windows)
        action = np.stack([np.full(len(numbers), self.name), numbers], axis=1).astype(np.float32)
        return {"action": action[:, None], "task": [f"{self.name}" for _ in numbers]}


def stats_of(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 30_000), st.floats(0.01, 100)), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_every_block_holds_the_weights_and_every_store_its_epochs(parts, seed):
    """Shares are exact to one sample per block, and no window repeats within its store's epoch."""
    sizes, weights = [list(values) for values in zip(*parts, strict=True)]
    order = MixtureOrder(sizes, weights, seed)
    samples = order.samples(np.arange(2 * BLOCK))
    source = np.searchsorted(np.cumsum(sizes), samples, side="right")
    first = np.cumsum(sizes) - sizes
    for k, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        for block in source.reshape(2, BLOCK):
            assert abs((block == k).sum() - weight / sum(weights) * BLOCK) < 1
        own = samples[source == k] - first[k]
        for epoch in range(0, len(own), size):
            seen = own[epoch : epoch + size]
            assert len(np.unique(seen)) == len(seen)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_draws_count_how_often_a_window_occurred_before(n, m, seed):
    """In the whole stream, sample s is drawn for the k-th time with draw number k."""
    order = MixtureOrder([n, m], [2, 1], seed)
    positions = np.arange(300)
    seen: dict[int, int] = {}
    for sample, draw in zip(order.samples(positions), order.draws(positions), strict=True):
        assert draw == seen.get(sample, 0)
        seen[sample] = draw + 1


@given(st.integers(0, 100), st.lists(st.integers(0, 3 * BLOCK), min_size=1, max_size=20))
def test_a_mixed_order_is_a_function_of_position_alone(seed, positions):
    """Positions asked together, or one by one by a fresh order, have the same samples."""
    together = MixtureOrder([50, 70], [2, 1], seed).samples(np.array(positions))
    alone = [MixtureOrder([50, 70], [2, 1], seed).samples(np.array([p]))[0] for p in positions[:3]]
    assert together[:3].tolist() == alone


def test_a_batch_keeps_the_order_of_its_rows():
    """Rows of several datasets land where they were asked for, with the dataset's number."""
    mixed = MixtureDataset([Constant(10, 0.0), Constant(5, 1.0)], [{}, {}])
    batch = mixed.__getitems__([12, 3, 10, 9])
    assert batch["action"][:, 0].tolist() == [[1, 2], [0, 3], [1, 0], [0, 9]]
    assert batch["task"] == ["1.0", "0.0", "1.0", "0.0"]
    assert batch["dataset_index"].tolist() == [1, 0, 1, 0]
    assert len(mixed) == 15


def test_a_goal_is_rescaled_like_the_feature_it_is_made_of():
    """``goal.x`` takes the map of ``x``; a feature without a map stays as it is."""

    class Goals(Constant):
        def __getitems__(self, windows, draws=None):
            ones = np.ones((len(windows), 1, 1), np.float32)
            return {"goal.observation.state": ones, "goal.other": ones}

    double = Affine(scale=np.array([2.0]), offset=np.array([1.0]))
    mixed = MixtureDataset([Goals(2, 0.0), Goals(2, 1.0)], [{}, {"observation.state": double}])
    batch = mixed.__getitems__([0, 2])
    assert batch["goal.observation.state"].ravel().tolist() == [1, 3]
    assert batch["goal.other"].ravel().tolist() == [1, 1]


@pytest.mark.parametrize("mode", ["min_max", "z_score", "identity"])
def test_the_reference_normaliser_does_what_each_stores_own_would(mode):
    """A rescaled value, normalised with the reference's statistics, equals the raw one with its own."""
    rng = np.random.default_rng(0)
    own, reference = rng.normal(3, 5, (50, 3)), rng.normal(-1, 0.2, (50, 3))
    own[:, 2], reference[:, 1] = 7.0, 4.0  # components that never move
    maps = rescaling({"action": stats_of(own)}, {"action": stats_of(reference)}, {"default": mode})
    normalised = Affine.normalising(stats_of(reference), mode)(maps["action"](own.astype(np.float32)))
    np.testing.assert_allclose(normalised, Affine.normalising(stats_of(own), mode)(own), rtol=1e-4, atol=1e-4)


def test_rescaling_agrees_with_the_policys_normaliser():
    """The map fitted here is the one that the policy's normaliser fits."""
    from robot_policies.normalizer import FeatureNormalizer

    values = np.random.default_rng(1).normal(2, 3, (40, 4))
    values[:, 1] = 5.0
    for mode in ("min_max", "z_score", "identity"):
        normaliser = FeatureNormalizer(4)
        normaliser.fit(stats_of(values), mode)
        here = Affine.normalising(stats_of(values), mode)
        np.testing.assert_allclose(normaliser.scale.numpy(), here.scale, rtol=1e-6)
        np.testing.assert_allclose(normaliser.offset.numpy(), here.offset, rtol=1e-6)


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, 1e-9]])
def test_bad_weights_are_refused(weights):
    """A weight that is not positive, or too small to matter, is an error."""
    with pytest.raises(DatasetError, match="weight"):
        MixtureOrder([5, 5], weights, seed=0)
