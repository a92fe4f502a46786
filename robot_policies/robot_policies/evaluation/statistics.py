"""Intervals and paired tests for evaluation results; pure functions of numbers.

A rate over n episodes is a noisy measurement: 45 of 50 is anything from 79 % to 96 %. Every rate and mean in
this package is therefore reported with an interval, and two policies are compared seed by seed, because
the same seed means the same initial state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import special

BootstrapMethod = Literal["bca", "percentile"]
# Resamples are drawn in blocks of about this many numbers, so that memory stays bounded.
_BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with a confidence interval.

    Attributes:
        value: Point estimate.
        low: Lower bound.
        high: Upper bound.
        confidence: Nominal coverage, e.g. 0.95.
        method: How the bounds were found: ``"wilson"``, ``"clopper-pearson"``, ``"bootstrap-bca"``, ...
    """

    value: float
    low: float
    high: float
    confidence: float
    method: str

    def to_dict(self) -> dict[str, float | str]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate: the default, close to its nominal coverage for any n."""
    _check_counts(successes, trials, confidence)
    z = float(special.ndtri(0.5 + confidence / 2))
    rate = successes / trials
    centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    # At the ends the bound is exactly 0 or 1; rounding must not push it beyond the estimate.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(value=rate, low=low, high=high, confidence=confidence, method="wilson")


def clopper_pearson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a success rate: never below its coverage, so a little wide."""
    _check_counts(successes, trials, confidence)
    tail = (1 - confidence) / 2
    k, n = successes, trials
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return Interval(value=k / n, low=low, high=high, confidence=confidence, method="clopper-pearson")


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    method: BootstrapMethod = "bca",
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of independent values.

    Args:
        values: (N,) finite values, N >= 1.
        confidence: Nominal coverage.
        method: ``"bca"`` corrects the percentiles for bias and skew (Efron 1987); ``"percentile"`` does not.
        n_resamples: Number of bootstrap resamples.
        seed: Seed of the resampling; the same values and seed give the same interval.

    Raises:
        ValueError: No values, or values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0:
        raise ValueError(f"expected a non-empty vector of values, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError("values must be finite")
    mean = float(sample.mean())
    name = f"bootstrap-{method}"
    if np.ptp(sample) == 0:  # resampling a constant says nothing; neither does BCa's 0/0
        return Interval(value=mean, low=mean, high=mean, confidence=confidence, method=name)
    means = _resampled_means(sample, n_resamples, seed)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        tails = _bca_levels(sample, means, tails)
    low, high = np.quantile(means, tails)
    return Interval(value=mean, low=float(low), high=float(high), confidence=confidence, method=name)


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of mean(second - first), resampling pairs: entry i of both is the same seed."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values must have the same length, got {a.shape} and {b.shape}")
    return bootstrap_mean(b - a, confidence=confidence, seed=seed)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test on paired successes.

    Under the hypothesis that both policies are equally good, an episode in which exactly one of them
    succeeds is a fair coin. Episodes in which both succeed or both fail say nothing.

    Args:
        only_first: Episodes in which only the first policy succeeded.
        only_second: Episodes in which only the second one did.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(k, n, 0.5)))


def auroc(
    signal: Sequence[float] | np.ndarray,
    positive: Sequence[bool] | np.ndarray,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Area under the ROC curve: the share of (positive, negative) pairs of which the positive has the higher signal.

    0.5 is chance; ties count half. The interval is a percentile bootstrap over observations, those resamples left out
    that hold one kind only.

    Args:
        signal: (N,) finite values, e.g. the energies of episodes.
        positive: (N,) what they are to tell, e.g. whether the episodes failed; at least one of each kind.
        confidence: Nominal coverage.
        n_resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The lengths differ, a value is not finite, or all observations are of one kind.
    """
    values, labels = np.asarray(signal, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.ndim != 1 or values.shape != labels.shape or not np.isfinite(values).all():
        raise ValueError(f"expected finite values and as many labels, got {values.shape} and {labels.shape}")
    if labels.all() or not labels.any():
        raise ValueError(f"all {len(labels)} observations are of one kind, so there is nothing to tell apart")
    draws = np.random.default_rng(seed).integers(0, len(values), (n_resamples, len(values)))
    resampled = [
        _pairs_in_order(values[d], labels[d]) for d in draws if labels[d].any() and not labels[d].all()
    ]
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        value=_pairs_in_order(values, labels),
        low=float(low),
        high=float(high),
        confidence=confidence,
        method="bootstrap-percentile",
    )


def _pairs_in_order(values: np.ndarray, positive: np.ndarray) -> float:
    high, low = values[positive][:, None], values[~positive]
    return float(((high > low).mean() + (high >= low).mean()) / 2)


def _check_counts(successes: int, trials: int, confidence: float) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")


def _resampled_means(sample: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(sample))
    blocks = []
    for start in range(0, n_resamples, rows):
        shape = (min(rows, n_resamples - start), len(sample))
        blocks.append(sample[rng.integers(0, len(sample), shape)].mean(axis=1))
    return np.concatenate(blocks)


def _bca_levels(sample: np.ndarray, means: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Percentile levels corrected for bias (z0) and acceleration (a, from the jackknife)."""
    mean = sample.mean()
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    z0 = special.ndtri(np.clip(below, 1 / (2 * len(means)), 1 - 1 / (2 * len(means))))
    # For the mean the jackknife's deviations are (x - mean) / (n - 1).
    deviations = (sample - mean) / max(len(sample) - 1, 1)
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    z = special.ndtri(tails)
    return special.ndtr(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
