"""Samples brought to a clock: against slow references, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from robot_datasets.errors import DatasetError
from robot_datasets.resampling import (
    POLICIES,
    ResamplingError,
    latest_before,
    nearest,
    resample,
    sample_age,
    uniform_clock,
    uniform_clock_ns,
)

# Whole and half numbers, so that times coincide often.
_TIMES = st.lists(st.integers(0, 40).map(lambda n: n / 2), min_size=1, max_size=12).map(sorted).map(np.array)
_CLOCK = st.lists(st.integers(-10, 100).map(lambda n: n / 4), max_size=12).map(np.array)


@given(times=_TIMES, clock=_CLOCK)
def test_latest_before_agrees_with_a_loop(times: np.ndarray, clock: np.ndarray) -> None:
    """The last sample that is not in the future; -1 if there is none."""
    expected = [max((i for i, t in enumerate(times) if t <= c), default=-1) for c in clock]
    assert latest_before(times, clock).tolist() == expected


@given(times=_TIMES, clock=_CLOCK)
def test_nearest_agrees_with_a_loop(times: np.ndarray, clock: np.ndarray) -> None:
    """No sample is closer, and of two equally close ones the earlier is taken."""
    for c, row in zip(clock, nearest(times, clock), strict=True):
        distance = np.abs(times - c)
        assert distance[row] == distance.min()
        assert times[row] == times[distance == distance.min()].min()


@given(times=_TIMES, clock=_CLOCK, seed=st.integers(0, 9))
def test_linear_agrees_with_numpy(times: np.ndarray, clock: np.ndarray, seed: int) -> None:
    """Within the samples' span, the line between neighbours; with it, ages bound the distance to both."""
    times = np.unique(times)
    clock = clock[(clock >= times[0]) & (clock <= times[-1])]
    values = np.random.default_rng(seed).normal(size=(len(times), 2))
    found, age = resample(times, values, clock, policy="linear")
    expected = np.stack([np.interp(clock, times, column) for column in values.T], axis=1)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-12)
    assert (age <= np.diff(times, append=times[-1]).max()).all()


@given(times=_TIMES, clock=_CLOCK, seed=st.integers(0, 9))
@settings(deadline=None)
def test_slerp_agrees_with_scipy(times: np.ndarray, clock: np.ndarray, seed: int) -> None:
    """The same rotations as scipy's, whatever the signs of the quaternions."""
    times = np.unique(np.append(times, times[-1] + 1))
    clock = clock[(clock >= times[0]) & (clock <= times[-1])]
    random = np.random.default_rng(seed)
    quaternions = random.normal(size=(len(times), 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    found, _ = resample(times, quaternions, clock, policy="slerp")
    if len(clock):
        expected = Slerp(times, Rotation.from_quat(quaternions))(clock)
        np.testing.assert_allclose((Rotation.from_quat(found) * expected.inv()).magnitude(), 0, atol=1e-7)


@given(times=_TIMES, policy=st.sampled_from(POLICIES))
def test_a_sample_at_the_clock_time_is_kept_to_the_bit(times: np.ndarray, policy: str) -> None:
    """The samples' own times as clock give the samples, with age 0."""
    times = np.unique(times)
    values = np.random.default_rng(0).normal(size=(len(times), 4)).astype(np.float32)
    found, age = resample(times, values, times, policy=policy, max_age=0.0)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype
    assert (age == 0).all()


@given(times=_TIMES, clock=_CLOCK, policy=st.sampled_from(POLICIES), max_age=st.sampled_from([0.0, 1.0, 30]))
def test_no_row_is_older_than_allowed(
    times: np.ndarray, clock: np.ndarray, policy: str, max_age: float
) -> None:
    """Either every age is within the limit, or the whole call is refused."""
    values = np.ones((len(times), 4))
    ages = sample_age(times, clock, policy)
    if (ages <= max_age).all():
        found, age = resample(times, values, clock, policy=policy, max_age=max_age)
        assert len(found) == len(clock)
        assert (age <= max_age).all()
    else:
        with pytest.raises(ResamplingError, match="no usable sample"):
            resample(times, values, clock, policy=policy, max_age=max_age)


@given(start=st.floats(-1e6, 1e6), n=st.integers(0, 5000), rate=st.sampled_from([1, 3, 10, 29.97, 30, 60]))
def test_clock_hits_its_end_and_does_not_drift(start: float, n: int, rate: float) -> None:
    """A span of n periods has n + 1 steps, each where it belongs."""
    clock = uniform_clock(start, start + n / rate, rate)
    assert len(clock) == n + 1
    assert abs(clock[-1] - (start + n / rate)) < 1e-9


@pytest.mark.parametrize("policy", POLICIES)
def test_without_samples_nothing_is_made_up(policy: str) -> None:
    """An empty stream has infinite age everywhere and cannot be resampled."""
    clock = np.array([0.0, 1.0])
    assert np.isinf(sample_age(np.empty(0), clock, policy)).all()
    with pytest.raises(ResamplingError, match="does not exist"):
        resample(np.empty(0), np.empty((0, 4)), clock, policy=policy)


def test_interpolation_does_not_go_beyond_the_samples() -> None:
    """Before the first and after the last sample there is no line to be on."""
    for clock in ([-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ResamplingError, match="1 of 2 clock steps"):
            resample(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array(clock), policy="linear")


def test_a_gap_makes_interpolated_values_old() -> None:
    """Half a second into a gap of two, the farther neighbour is one and a half seconds away."""
    age = sample_age(np.array([0.0, 2.0]), np.array([0.5]), "linear")
    assert age.tolist() == [1.5]


@pytest.mark.parametrize(
    ("times", "values", "policy", "message"),
    [
        ([0.0, 2.0, 1.0], np.zeros(3), "nearest", "sort the samples"),
        ([0.0, np.nan], np.zeros(2), "nearest", "NaN or infinite"),
        ([0.0], np.zeros(2), "nearest", "one time each"),
        ([0.0, 1.0], np.zeros(2), "quadratic", "unknown resampling policy"),
        ([0.0, 1.0], np.array(["a", "b"]), "linear", "cannot be interpolated"),
        ([0.0, 1.0], np.zeros((2, 3)), "slerp", "expected quaternions"),
        ([0.0, 1.0], np.zeros((2, 4)), "slerp", "length 0"),
    ],
)
def test_bad_input_is_refused(times: list[float], values: np.ndarray, policy: str, message: str) -> None:
    """Each kind of bad input has its own message."""
    with pytest.raises(DatasetError, match=message):
        resample(np.array(times), values, np.array([0.5]), policy=policy)


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_a_clock_needs_a_rate(rate: float) -> None:
    """No rate, no clock."""
    with pytest.raises(ResamplingError, match="positive rate"):
        uniform_clock(0, 1, rate)


@pytest.mark.parametrize("policy", ["latest_before", "nearest", "linear"])
@pytest.mark.parametrize("start", [0, 1_700_000_000_123_456_789])
def test_whole_nanoseconds_do_not_depend_on_where_the_axis_begins(policy: str, start: int):
    """The same samples and steps give the same bits, near zero and in ROS time; ages are seconds."""
    random = np.random.default_rng(0)
    times = np.cumsum(random.integers(1_000_000, 30_000_000, 50))
    values, clock = random.normal(size=(50, 3)), random.integers(times[0], times[-1], 40)
    near, near_age = resample(times, values, clock, policy=policy)
    far, far_age = resample(times + start, values, clock + start, policy=policy)
    np.testing.assert_array_equal(far, near)
    np.testing.assert_array_equal(far_age, near_age)
    assert 0 <= near_age.min() <= near_age.max() < 0.03
    with pytest.raises(ResamplingError, match=r"expected within 0\.05 s"):
        resample(times, values, times[-1:] + 60_000_000, policy="latest_before", max_age=0.05)


def test_a_clock_in_whole_nanoseconds_hits_both_ends():
    """Steps are rounded one by one, so nothing adds up, and no step is beyond the end."""
    clock = uniform_clock_ns(7, 7 + 1_000_000_000, 30.0)
    assert len(clock) == 31
    assert clock[-1] == 7 + 1_000_000_000
    assert set(np.diff(clock)) == {33_333_333, 33_333_334}
    assert len(uniform_clock_ns(7, 7 + 999_999_999, 30.0)) == 30
