"""Search and densities against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.errors import UserError
from robot_policies.retrieval import neighbours
from robot_policies.retrieval.neighbours import log_density, nearest, scott_bandwidth


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
def test_nearest_is_exact_in_any_blocks(n, m, dim, k, seed):
    """Distances equal those of a full table in float64, in blocks of a few rows, far from the origin, too."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(n, dim, generator=generator) + 100
    keys = torch.randn(m, dim, generator=generator) + 100
    before = neighbours.BLOCK_VALUES
    neighbours.BLOCK_VALUES = 50
    try:
        distances, indices = nearest(queries, keys, k=k)
    finally:
        neighbours.BLOCK_VALUES = before
    table = torch.cdist(queries.double(), keys.double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected = table.sort(dim=1).values[:, : min(k, m)]
    np.testing.assert_allclose(distances, expected, atol=2e-3)
    np.testing.assert_allclose(distances, table.gather(1, indices), atol=1e-4)


def test_a_copy_is_found_at_distance_zero():
    """No cancellation: the distance to an equal vector is exactly 0."""
    keys = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) * 1e3
    distances, indices = nearest(keys[100:200], keys)
    assert (distances == 0).all()
    assert indices.flatten().tolist() == list(range(100, 200))


def test_density_of_one_kernel_is_gaussian():
    """With a single point the density is its kernel; two points average."""
    x = torch.linspace(-2, 2, 9)[:, None]
    one = log_density(x, torch.zeros(1, 1), bandwidth=0.5)
    torch.testing.assert_close(one, -(x.flatten() ** 2) / 0.5 - np.log(0.5))
    two = log_density(x, torch.tensor([[0.0], [1.0]]), bandwidth=0.5)
    shifted = log_density(x - 1, torch.zeros(1, 1), bandwidth=0.5)
    torch.testing.assert_close(two.exp(), (one.exp() + shifted.exp()) / 2)


def test_density_integrates_to_one():
    """In one dimension, with the constant that is left out put back."""
    points = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-8, 8, 4001)[:, None]
    density = log_density(x, points, bandwidth=scott_bandwidth(50, 1)).exp() / np.sqrt(2 * np.pi)
    assert torch.trapezoid(density, x.flatten()) == pytest.approx(1, abs=1e-3)


def test_nothing_to_compare_with_is_an_error():
    """Empty sets are named."""
    with pytest.raises(UserError, match="set of keys is empty"):
        nearest(torch.zeros(3, 2), torch.zeros(0, 2))
    with pytest.raises(UserError, match="needs points"):
        log_density(torch.zeros(3, 2), torch.zeros(0, 2), bandwidth=1.0)


def test_faiss_takes_over_beyond_exact_search(monkeypatch):
    """The approximate search finds most true neighbours, and its distances are exact."""
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(3000, 4, generator=generator), torch.randn(200, 4, generator=generator)
    exact, _ = nearest(queries, keys)
    monkeypatch.setattr(neighbours, "MAX_EXACT_KEYS", 100)
    found, indices = nearest(queries, keys)
    torch.testing.assert_close(found, (queries[:, None] - keys[indices]).norm(dim=-1))
    assert (found >= exact - 1e-6).all()
    assert ((found - exact) < 1e-6).float().mean() > 0.5


def test_without_faiss_too_many_keys_are_refused(monkeypatch):
    """The message names the package and the other way out."""
    monkeypatch.setattr(neighbours, "MAX_EXACT_KEYS", 10)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match="install faiss-cpu"):
        nearest(torch.zeros(3, 2), torch.zeros(11, 2))
