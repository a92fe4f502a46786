"""Stopping early: the interval holds at all times together, and what flatters is left out."""

from __future__ import annotations

import numpy as np
import pytest

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.sequential import EarlyStop, confidence_sequence, reason_to_stop
from robot_policies.evaluation.statistics import wilson_interval


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_sequence_covers_the_rate_at_all_times_together(rate: float) -> None:
    """Of 400 runs of 100 episodes, at most 5 % (and sampling error) leave the interval at any time."""
    random = np.random.default_rng(0)
    left = 0
    intervals = {}
    for _ in range(400):
        successes = np.cumsum(random.random(100) < rate)
        for n, s in enumerate(successes, start=1):
            if (s, n) not in intervals:
                intervals[s, n] = confidence_sequence(int(s), n)
            if not intervals[s, n].low <= rate <= intervals[s, n].high:
                left += 1
                break
    assert left / 400 < 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_it_is_wider_than_an_interval_for_one_look() -> None:
    """The price of looking at any time, and not a ruinous one."""
    sequence, once = confidence_sequence(70, 100), wilson_interval(70, 100)
    assert sequence.low < once.low < once.high < sequence.high
    assert sequence.high - sequence.low < 2 * (once.high - once.low)


@pytest.mark.parametrize(("successes", "trials", "low", "high"), [(0, 20, 0.0, 0.3), (20, 20, 0.7, 1.0)])
def test_the_ends_are_closed(successes: int, trials: int, low: float, high: float) -> None:
    """All or none of the episodes: the bound on that side is 1 or 0, the other one is inside."""
    interval = confidence_sequence(successes, trials)
    assert interval.low >= low
    assert interval.high <= high
    assert interval.low == low or interval.high == high


def test_a_clear_case_stops_and_an_unclear_one_goes_on() -> None:
    """Twenty successes in a row are above one half, ten of twenty are neither, and not before the least number."""
    stop = EarlyStop(reference=0.5)
    assert "above 0.5" in reason_to_stop([True] * 20, stop)
    assert "below 0.5" in reason_to_stop([False] * 20, stop)
    assert reason_to_stop([True, False] * 10, stop) == ""
    assert reason_to_stop([True] * 9, stop) == ""
    assert "known to" in reason_to_stop([True, False] * 200, EarlyStop(width=0.2))
    assert reason_to_stop([], stop) == ""


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "give a reference"),
        ({"reference": 1.5}, "between 0 and 1"),
        ({"width": 0.1, "confidence": 1.0}, "confidence"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(values: dict[str, float], problem: str) -> None:
    """No reference and no width would never stop."""
    with pytest.raises(ConfigError, match=problem):
        EarlyStop(**values)  # type: ignore[arg-type]
