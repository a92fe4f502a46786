"""Intervals and tests against closed forms, published values and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robot_policies.evaluation.statistics import (
    auroc,
    bootstrap_mean,
    clopper_pearson_interval,
    mcnemar_exact,
    paired_difference,
    wilson_interval,
)

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (5, 10, 0.19, 0.81),
        (10, 20, 0.27, 0.73),
        (25, 50, 0.355, 0.645),
        (50, 100, 0.40, 0.60),
        (250, 500, 0.455, 0.545),
        (18, 20, 0.68, 0.99),
        (45, 50, 0.78, 0.97),
        (90, 100, 0.82, 0.95),
    ],
)
def test_clopper_pearson_known_values(successes, trials, low, high):
    """The exact interval has the widths that are quoted for robot evaluations."""
    interval = clopper_pearson_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.006)


def test_wilson_closed_form():
    """With no success, the upper bound is z^2 / (n + z^2)."""
    z2 = stats.norm.ppf(0.975) ** 2
    interval = wilson_interval(0, 50)
    assert interval.low == 0
    assert interval.high == pytest.approx(z2 / (50 + z2), rel=1e-12)


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_rate_intervals_agree_with_scipy(counts, confidence):
    """Both rate intervals equal SciPy's for any count and confidence."""
    test = stats.binomtest(*counts)
    for ours, name in ((wilson_interval, "wilson"), (clopper_pearson_interval, "exact")):
        interval = ours(*counts, confidence=confidence)
        reference = test.proportion_ci(confidence, method=name)
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
        assert 0 <= interval.low <= interval.value <= interval.high <= 1


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(counts):
    """More successes than trials, or no trials, is a bug of the caller."""
    with pytest.raises(ValueError, match="successes <= trials"):
        wilson_interval(*counts)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_agrees_with_scipy(method):
    """On a skewed sample, both methods land within resampling noise of SciPy's."""
    values = np.random.default_rng(3).beta(4, 1, size=60)
    ours = bootstrap_mean(values, method=method)
    theirs = stats.bootstrap(
        (values,), np.mean, method=method, n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_bootstrap_is_seeded():
    """The same values and seed give the same bounds; another seed gives others."""
    values = np.random.default_rng(0).random(40)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_bootstrap_of_a_normal_sample_matches_the_normal_interval():
    """For many normal values the bootstrap interval is mean +- 1.96 standard errors."""
    values = np.random.default_rng(5).normal(2, 1, size=4000)
    interval = bootstrap_mean(values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert (interval.low, interval.high) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=2e-3
    )


def test_bootstrap_of_a_constant():
    """All episodes alike: the interval is that value, not NaN."""
    interval = bootstrap_mean([1.0] * 50)
    assert (interval.low, interval.value, interval.high) == (1, 1, 1)


@pytest.mark.parametrize("values", [[], [0.5, np.nan]])
def test_bootstrap_refuses_bad_values(values):
    """No values and NaN are refused."""
    with pytest.raises(ValueError, match=r"non-empty|finite"):
        bootstrap_mean(values)


def test_pairing_removes_the_seeds_own_difficulty():
    """A small constant gain hidden in large seed-to-seed variation is found by pairing."""
    rng = np.random.default_rng(2)
    difficulty = rng.random(50)
    first = 0.8 * difficulty
    second = first + 0.02 + rng.normal(scale=0.01, size=50)
    paired = paired_difference(first, second)
    assert 0.01 < paired.low < paired.high < 0.03
    assert bootstrap_mean(second).low < bootstrap_mean(first).high


def test_paired_lengths_must_match():
    """Values of different seeds cannot be paired."""
    with pytest.raises(ValueError, match="same length"):
        paired_difference([1, 2], [1, 2, 3])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_the_binomial_test(only_first, only_second):
    """McNemar's exact test is a binomial test on the discordant pairs."""
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_known_value():
    """One against nine: p = 22/1024."""
    assert mcnemar_exact(1, 9) == pytest.approx(22 / 1024)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    """Known cases: perfect, reversed, ties, and one pair of four wrong."""
    for signal, expected in (
        ([1, 2, 3, 4], 1.0),
        ([4, 3, 2, 1], 0.0),
        ([5, 5, 5, 5], 0.5),
        ([1, 3, 2, 4], 0.75),
    ):
        assert auroc(signal, [False, False, True, True]).value == expected


def test_auroc_interval_covers_the_truth() -> None:
    """Two unit normals one apart: AUROC is Phi(1 / sqrt 2), and so many observations pin it down."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3 == 0
    found = auroc(random.standard_normal(600) + labels, labels)
    assert found.low < 0.7602 < found.high
    assert 0.04 < found.high - found.low < 0.12


@pytest.mark.parametrize(
    ("signal", "positive", "message"),
    [
        ([1.0, 2.0], [True, True], "of one kind"),
        ([1.0, np.nan], [True, False], "finite"),
        ([1.0], [True, False], "as many labels"),
    ],
)
def test_auroc_says_what_it_needs(signal: list[float], positive: list[bool], message: str) -> None:
    """Both kinds, finite values, one label each."""
    with pytest.raises(ValueError, match=message):
        auroc(signal, positive)
