"""The split into training and validation episodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.errors import DatasetError
from robot_datasets.split import split_episodes


@given(
    st.integers(1, 300),
    st.floats(0, 0.9),
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(1, 50),
)
def test_the_parts_are_disjoint_sorted_and_reproducible(n, val_ratio, seed, max_train):
    """No episode is in both parts, training never runs empty, and the same arguments give the same split."""
    train, val = split_episodes(n, val_ratio=val_ratio, seed=seed, max_train=max_train)
    again = split_episodes(n, val_ratio=val_ratio, seed=seed, max_train=max_train)
    assert len(np.intersect1d(train, val)) == 0
    assert len(train) >= 1
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    assert [part.tolist() for part in again] == [train.tolist(), val.tolist()]
    if max_train is None:
        assert len(train) + len(val) == n
    else:
        assert len(train) <= max_train


def test_the_split_of_the_original_code():
    """The PushT demonstrations split as in the Diffusion Policy code (`get_val_mask`, `downsample_mask`)."""
    train, val = split_episodes(206, val_ratio=0.02, seed=42, max_train=90)
    mask = np.zeros(206, dtype=bool)
    mask[np.random.default_rng(seed=42).choice(206, size=4, replace=False)] = True
    kept = np.nonzero(~mask)[0]
    chosen = kept[np.random.default_rng(42).choice(len(kept), size=90, replace=False)]
    assert val.tolist() == np.nonzero(mask)[0].tolist()
    assert train.tolist() == sorted(chosen.tolist())


@pytest.mark.parametrize(
    ("n", "val_ratio", "max_train", "message"),
    [
        (0, 0.1, None, "0 episodes"),
        (5, 1.0, None, "val_ratio"),
        (5, -0.1, None, "val_ratio"),
        (5, 0.1, 0, "max_train"),
    ],
)
def test_arguments_out_of_range_are_refused(n, val_ratio, max_train, message):
    """Each bad argument is named."""
    with pytest.raises(DatasetError, match=message):
        split_episodes(n, val_ratio=val_ratio, seed=0, max_train=max_train)
