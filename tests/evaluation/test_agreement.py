"""Agreement of two worlds against hand-worked cases, SciPy and SIMPLER's published rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from robot_datasets.errors import UserError
from robot_policies.evaluation.agreement import agreement, mean_maximum_rank_violation, pearson, spearman
from robot_policies.evaluation.agreement_plot import plot_agreement
from robot_policies.evaluation.statistics import mcnemar_exact

# Success on the robot and in SIMPLER of RT-2-X, RT-1 converged, RT-1 at 15 %, RT-1-X, RT-1 begin and Octo-base, as
# published with SimplerEnv (simpler_env/utils/metrics.py); the figures are what its formulas make of them.
SIMPLER = {
    "pick coke can": (
        [0.907, 0.853, 0.920, 0.760, 0.133, 0.293], [0.787, 0.857, 0.710, 0.567, 0.027, 0.170], 0.9754, 0.0313,
    ),
    "move near": (
        [0.733, 0.633, 0.583, 0.450, 0.017, 0.350], [0.779, 0.442, 0.354, 0.317, 0.050, 0.042], 0.8561, 0.1110,
    ),
}  # fmt: skip


def family(rates, episodes, seed):
    """Outcomes of policies with these chances of success."""
    random = np.random.default_rng(seed)
    return {f"policy {i}": random.random(episodes) < rate for i, rate in enumerate(rates)}


@pytest.mark.parametrize("task", SIMPLER)
def test_simplers_published_rates(task):
    """SIMPLER's rates give the correlation and rank violation that SIMPLER computes from them."""
    real, simulated, r, mmrv = SIMPLER[task]
    assert pearson(simulated, real) == pytest.approx(r, abs=5e-5)
    assert mean_maximum_rank_violation(simulated, real) == pytest.approx(mmrv, abs=5e-5)


def test_rank_violation_by_hand():
    """Two swapped pairs: each policy is charged its worst mistake, in units of the reference."""
    # Reference order d > c > b > a; the twin has a and b swapped (0.1 apart), and c and d (0.4 apart).
    reference, twin = [0.1, 0.2, 0.5, 0.9], [0.2, 0.1, 0.9, 0.5]
    assert mean_maximum_rank_violation(twin, reference) == pytest.approx((0.1 + 0.1 + 0.4 + 0.4) / 4)
    # A reversed order: everyone's worst mistake is against the farther end.
    assert mean_maximum_rank_violation([4, 3, 2, 1], [0.1, 0.2, 0.5, 0.9]) == pytest.approx(
        (0.8 + 0.7 + 0.4 + 0.8) / 4
    )


def test_a_tie_is_charged_to_the_better_policy_only():
    """The comparison is strict: where the twin ties, only the policy that the reference prefers is in violation."""
    assert mean_maximum_rank_violation([0.5, 0.5], [0.2, 0.8]) == pytest.approx(0.3)
    assert mean_maximum_rank_violation([0.2, 0.8], [0.5, 0.5]) == 0.0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=3, max_size=12))
def test_correlations_agree_with_scipy(counts):
    """Pearson and Spearman equal SciPy's, and are undefined where it has nothing to correlate."""
    twin, reference = np.array(counts).T / 50
    if np.ptp(twin) == 0 or np.ptp(reference) == 0:
        assert np.isnan(pearson(twin, reference))
        assert np.isnan(spearman(twin, reference))
    else:
        assert pearson(twin, reference) == pytest.approx(stats.pearsonr(twin, reference)[0], abs=1e-9)
        assert spearman(twin, reference) == pytest.approx(stats.spearmanr(twin, reference)[0], abs=1e-9)


def test_a_world_agrees_with_itself_exactly():
    """The same outcomes give correlation 1, no violation and no bias, without any width."""
    outcomes = family(np.linspace(0.1, 0.9, 8), 50, 0)
    result = agreement(outcomes, outcomes, n_resamples=200)
    assert result.pearson is not None
    assert (result.pearson.value, result.pearson.low) == (pytest.approx(1), pytest.approx(1))
    assert (result.mmrv.value, result.mmrv.high, result.bias, result.worst) == (0, 0, 0, 0)
    assert all(p.p_value == 1 and p.difference is not None and p.difference.low == 0 for p in result.policies)


def test_policies_are_paired_by_start():
    """Difference and p-value count the starts on which exactly one world succeeds."""
    twin = {"a": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], "b": [1] * 10}
    reference = {"a": [1, 0, 0, 0, 0, 0, 0, 0, 0, 1], "b": [1] * 9 + [0]}
    first, second = agreement(twin, reference, n_resamples=200).policies
    assert [first.policy, second.policy] == ["b", "a"]
    assert second.difference is not None
    assert second.difference.value == pytest.approx(0.1)
    assert second.p_value == mcnemar_exact(2, 1)
    assert (second.twin.value, second.reference.value) == (0.3, 0.2)


def test_intervals_cover():
    """The 90 % interval of the correlation holds the value of endless episodes in most families."""
    chances = np.array([0.15, 0.3, 0.4, 0.55, 0.7, 0.9]), np.array([0.2, 0.25, 0.5, 0.45, 0.8, 0.85])
    truth, hits = pearson(chances[1], chances[0]), 0
    for seed in range(30):
        worlds = family(chances[1], 60, 2 * seed), family(chances[0], 60, 2 * seed + 1)
        interval = agreement(
            *worlds, resampling="episodes", confidence=0.9, n_resamples=200, seed=seed
        ).pearson
        assert interval is not None
        hits += interval.low <= truth <= interval.high
    assert hits >= 19  # four in five are expected: see `agreement`


def test_common_starts_narrow_the_interval():
    """Starts that are hard in both worlds and for all policies are drawn together, and the interval knows it."""
    hardness = np.random.default_rng(0).random(80)
    worlds = [{f"{c}": hardness < c for c in (0.2, 0.4, 0.6, 0.8)} for _ in range(2)]
    paired = agreement(*worlds, n_resamples=500).pearson
    independent = agreement(*worlds, resampling="episodes", n_resamples=500).pearson
    assert paired is not None
    assert independent is not None
    assert paired.high - paired.low < 0.5 * (independent.high - independent.low)


def test_flat_worlds_have_no_correlation():
    """Where every policy succeeds equally often there is no correlation to report, and the table says why."""
    result = agreement({"a": [1, 1, 0], "b": [1, 0, 1]}, {"a": [1, 0, 0], "b": [1, 1, 1]}, n_resamples=100)
    assert result.pearson is None
    assert "undefined" in dict(result.rows())["Pearson r"]
    assert result.mmrv.value == pytest.approx(1 / 3)


def test_scores_are_allowed():
    """Scores in [0, 1] are compared like successes, with a bootstrap interval and no McNemar test."""
    result = agreement(
        {"a": [0.2, 0.4], "b": [0.9, 0.7]}, {"a": [0.1, 0.3], "b": [0.8, 0.8]}, n_resamples=100
    )
    assert result.policies[0].p_value is None
    assert result.policies[0].twin.method == "bootstrap-bca"


@pytest.mark.parametrize(
    ("twin", "reference", "message"),
    [
        ({"a": [1], "b": [0]}, {"a": [1], "c": [0]}, "one world only: b, c"),
        ({"a": [1]}, {"a": [1]}, "two or more"),
        ({"a": [1], "b": []}, {"a": [1], "b": [0]}, "policy 'b' in the twin"),
        ({"a": [1], "b": [np.nan]}, {"a": [1], "b": [0]}, "policy 'b' in the twin"),
        ({"a": [1], "b": [1]}, {"a": [1], "b": [2]}, "within 2 to 2"),
        ({"a": [1], "b": [1]}, {"a": [1, 0], "b": [0, 1]}, "same number of episodes"),
    ],
)
def test_bad_outcomes_are_refused(twin, reference, message):
    """Outcomes that cannot be compared are refused in one line that says what to do."""
    with pytest.raises(UserError, match=message):
        agreement(twin, reference)


def test_the_plot_is_a_picture(tmp_path):
    """The calibration plot is a PNG with a panel for each agreement."""
    reference = family(np.linspace(0.1, 0.9, 8), 40, 0)
    twin = agreement(family(np.linspace(0.1, 0.9, 8), 40, 1), reference, n_resamples=100)
    plot_agreement(tmp_path / "new" / "plot.png", {"twin": twin, "uncorrected": twin})
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1.5 * picture.height
        assert len(picture.convert("L").getcolors() or []) > 20
