"""The order of samples, and reading ahead."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.loader import EpochOrder, Loader


class Numbers:
    """A dataset whose batch is the sample numbers; fails on request."""

    def __init__(self, n: int, fail_at: int = -1) -> None:
        self.n = n
        self.fail_at = fail_at

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, windows, draws=None):
        if self.fail_at in windows:
            raise OSError("disk is gone")
        return {"x": np.asarray(windows), "draws": draws}


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_ranks_together_visit_every_sample_once_per_epoch(n, batch_size, world_size, seed):
    """All ranks' batches in turn are one permutation of the samples after another."""
    orders = [EpochOrder(n, batch_size, seed, rank, world_size) for rank in range(world_size)]
    steps = -(-3 * n // (batch_size * world_size))
    stream = np.concatenate([order.batch(step) for step in range(steps) for order in orders])
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_dataset_is_told_how_often_it_was_asked_before(prefetch):
    """The loader passes each sample's epoch, also where a batch straddles two."""
    loader = Loader(Numbers(5), EpochOrder(5, 3, seed=1), prefetch=prefetch)
    draws = np.concatenate([batch["draws"] for batch in loader.batches(0, 5)])
    assert draws.tolist() == [0] * 5 + [1] * 5 + [2] * 5


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 1000), st.lists(st.integers(0, 30), min_size=1))
def test_a_batch_depends_on_its_step_alone(n, batch_size, seed, steps):
    """Asked in any order, with any history, a step has the same batch: a resumed run reads what it missed."""
    order = EpochOrder(n, batch_size, seed)
    for step in steps:
        fresh = EpochOrder(n, batch_size, seed)
        assert order.batch(step).tolist() == fresh.batch(step).tolist()


def test_epochs_and_seeds_are_shuffled_differently():
    """Neither the next epoch nor another seed repeats an order."""
    first, second = (EpochOrder(100, 100, seed=1).batch(step).tolist() for step in (0, 1))
    other = EpochOrder(100, 100, seed=2).batch(0).tolist()
    assert first != second
    assert first != other
    assert sorted(first) != first


def test_the_epoch_counts_samples_of_all_ranks():
    """Two ranks with batches of 5 finish an epoch of 100 samples in 10 steps."""
    assert EpochOrder(100, 5, 0, rank=1, world_size=2).epoch(10) == 1.0


def test_reading_ahead_changes_nothing():
    """A prefetching loader yields the same batches as a plain one, and ends its thread."""
    order = EpochOrder(17, 4, seed=3)
    plain = [b["x"].tolist() for b in Loader(Numbers(17), order).batches(2, 12)]
    before = threading.active_count()
    ahead = [b["x"].tolist() for b in Loader(Numbers(17), order, prefetch=3).batches(2, 12)]
    assert ahead == plain
    assert len(plain) == 10
    assert threading.active_count() == before


def test_an_error_while_reading_ahead_reaches_the_caller():
    """A failure in the thread is raised where the batch is asked for."""
    order = EpochOrder(8, 4, seed=0)
    bad = int(order.batch(1)[0])
    batches = Loader(Numbers(8, fail_at=bad), order, prefetch=2).batches(0, 2)
    assert len(next(batches)["x"]) == 4
    with pytest.raises(OSError, match="disk is gone"):
        next(batches)


def test_closing_early_ends_the_thread():
    """Leaving an endless stream does not leave its thread behind."""
    before = threading.active_count()
    batches = Loader(Numbers(8), EpochOrder(8, 4, seed=0), prefetch=2).batches(0, 2**62)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("n", "batch_size", "rank"), [(0, 4, 0), (8, 0, 0), (8, 4, 1)])
def test_impossible_orders_are_refused(n, batch_size, rank):
    """No samples, an empty batch or a rank beyond the world raise."""
    with pytest.raises(ValueError, match=r"cannot order|bad batch_size"):
        EpochOrder(n, batch_size, 0, rank=rank)
