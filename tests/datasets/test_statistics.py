"""Statistics: exact where promised, mergeable where promised."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robot_datasets import statistics
from robot_datasets.errors import DatasetError
from robot_datasets.statistics import FeatureStats, PixelStatistics, merge_moments, merge_pixels
from robot_datasets.store.frames import sampled_pixels
from robot_datasets.streamed_statistics import statistics_of_pieces
from robot_datasets.testing import EXAMPLE_IMAGE, write_example_store

values = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.floats(-1e6, 1e6, width=32)
)


@given(values)
def test_statistics_equal_numpy_in_float64(data: np.ndarray) -> None:
    """Extremes, moments and quantiles are those of the float64 values."""
    stats, exact = FeatureStats.of(data), data.astype(np.float64)
    np.testing.assert_array_equal(stats.min, exact.min(axis=0))
    np.testing.assert_array_equal(stats.max, exact.max(axis=0))
    np.testing.assert_allclose(stats.mean, exact.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(stats.std, exact.std(axis=0), rtol=1e-9, atol=1e-9)
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        np.testing.assert_allclose(getattr(stats, name), np.quantile(exact, q, axis=0))
    assert (stats.count == len(data)).all()


@given(
    st.lists(
        hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(-1e3, 1e3)),
        min_size=1,
    )
)
def test_moments_of_parts_merge_exactly(parts: list[np.ndarray]) -> None:
    """Merging the moments of unequal parts gives those of the whole; quantiles are left open."""
    merged = FeatureStats.from_array(merge_moments(np.stack([FeatureStats.of(p).to_array() for p in parts])))
    whole = FeatureStats.of(np.concatenate(parts))
    for name in ("count", "min", "max", "mean", "std"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    assert np.isnan(merged.q50).all()


def test_a_large_mean_does_not_spoil_the_deviation() -> None:
    """float32 values around 1e6 with a deviation of 0.5: naive sums of squares lose it all."""
    data = (1e6 + np.array([0.0, 1.0] * 500, np.float32))[:, None]
    assert FeatureStats.of(data).std[0] == pytest.approx(0.5, abs=1e-9)


def test_blocks_of_components_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large columns are worked through a few components at a time with the same result."""
    data = np.random.default_rng(0).normal(size=(50, 4, 3)).astype(np.float32)
    whole = FeatureStats.of(data).to_array()
    monkeypatch.setattr(statistics, "_BLOCK_VALUES", 100)
    np.testing.assert_array_equal(FeatureStats.of(data).to_array(), whole)
    assert whole.shape == (10, 4, 3)


def test_constant_components_are_marked() -> None:
    """A component that never changes can be found, so that nobody divides by its range."""
    data = np.array([[1.0, 2.0], [1.0, 3.0]])
    assert FeatureStats.of(data).constant.tolist() == [True, False]


@given(st.lists(hnp.arrays(np.uint8, (3, 4, 3)), min_size=1, max_size=4))
def test_pixel_statistics_are_exact_for_grey_levels(frames: list[np.ndarray]) -> None:
    """For uint8 frames the histogram gives exactly the quantiles of all pixels together."""
    parts = [PixelStatistics.of([frame], dtype="uint8", channels=3) for frame in frames]
    merged = merge_pixels(np.stack([p.table for p in parts]), np.stack([p.histogram for p in parts]), "uint8")
    expected = FeatureStats.of(np.stack(frames).reshape(-1, 3)).to_array()
    np.testing.assert_allclose(merged.to_array(), expected, rtol=1e-9, atol=1e-9)


def test_depth_quantiles_are_within_a_bin() -> None:
    """Depth is binned by 16 units, so quantiles are right within that."""
    depth = np.random.default_rng(0).integers(0, 4000, (20, 30, 1), dtype=np.uint16)
    stats = PixelStatistics.of([depth], dtype="uint16", channels=1)
    exact = FeatureStats.of(depth.reshape(-1, 1)).to_array()
    np.testing.assert_allclose(stats.table[:5], exact[:5])
    assert np.abs(stats.table[5:] - exact[5:]).max() <= 16


def test_nothing_has_no_statistics() -> None:
    """No step, no statistics."""
    with pytest.raises(DatasetError, match="at least one step"):
        FeatureStats.of(np.empty((0, 2)))


def test_statistics_of_chosen_episodes_are_over_their_steps(tmp_path: Path) -> None:
    """Statistics over some episodes equal those of their rows, quantiles included; order does not matter."""
    store = write_example_store(tmp_path / "s.zarr", [3, 5, 2, 4])
    rows = np.r_[3:8, 10:14]
    expected = FeatureStats.of(store.column("action")[rows]).to_array()
    np.testing.assert_array_equal(store.stats("action", [3, 1]).to_array(), expected)
    total = FeatureStats.of(store.column("action")).to_array()
    np.testing.assert_array_equal(store.stats("action").to_array(), total)


def test_statistics_of_images_cover_the_chosen_episodes(tmp_path: Path) -> None:
    """Image statistics of an episode of up to two steps are those of all its pixels."""
    store = write_example_store(tmp_path / "s.zarr", [2, 3], image_size=6)
    pixels = store.images(EXAMPLE_IMAGE).decode(np.arange(2)).reshape(-1, 3)
    expected = FeatureStats.of(pixels).to_array()
    np.testing.assert_allclose(store.stats(EXAMPLE_IMAGE, [0]).to_array(), expected, rtol=1e-12)


def test_statistics_of_large_images_take_pixels_on_a_grid() -> None:
    """Every pixel of a small frame, every third of one with 480 rows, whatever the number of columns."""
    small, large = np.zeros((96, 96, 3), np.uint8), np.arange(480 * 640).reshape(480, 640, 1)
    assert sampled_pixels(small).shape == (96, 96, 3)
    np.testing.assert_array_equal(sampled_pixels(large), large[::3, ::3])


@pytest.mark.parametrize("episodes", [[], [4], [-1]])
def test_episodes_that_are_not_there_have_no_statistics(episodes: list[int], tmp_path: Path) -> None:
    """Asking for no or for absent episodes is an error."""
    store = write_example_store(tmp_path / "s.zarr", [3, 5, 2, 4])
    with pytest.raises(DatasetError, match=r"within 0\.\.3"):
        store.stats("action", episodes)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 4001])
def test_statistics_of_pieces_equal_those_of_the_whole(dtype: str, n_rows: int) -> None:
    """A column that passes by in pieces has the same quantiles to the bit, whatever its type and signs."""
    random = np.random.default_rng(n_rows)
    wide = random.normal(size=(n_rows, 2, 11)) * 10.0 ** random.integers(-8, 8, (2, 11))
    wide[:, 0, 0], wide[:, 0, 1], wide[n_rows // 2 :, 0, 2] = 0.25, -0.0, 0.0
    data = (wide > 0).astype(dtype) if dtype == "bool" else wide.astype(dtype)
    pieces = np.array_split(data, [n_rows // 3, n_rows // 3, n_rows // 2])
    found, expected = statistics_of_pieces(lambda: pieces).to_array(), FeatureStats.of(data).to_array()
    np.testing.assert_array_equal(found[[0, 1, 2, 5, 6, 7, 8, 9]], expected[[0, 1, 2, 5, 6, 7, 8, 9]])
    np.testing.assert_allclose(found[3:5], expected[3:5], rtol=1e-9, atol=1e-9 * np.abs(wide).max())


def test_statistics_of_no_pieces_are_an_error() -> None:
    """Nothing has no mean."""
    with pytest.raises(DatasetError, match="at least one step"):
        statistics_of_pieces(lambda: [np.empty((0, 3))])
