"""Stops: closed form against integration of their phases, for any state, limits and period."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_deploy.motion.braking import Stop, plan_stop, sample_stop

fractions = st.floats(-1.0, 1.0, allow_subnormal=False)
periods = st.sampled_from([0.001, 0.002, 0.008, 0.01, 0.02, 0.05])


def _plan(v: float, a: float, a_max: float, j_max: float, period: float) -> Stop:
    return plan_stop(
        np.array([v]), np.array([a]),
        acceleration_limit=np.array([a_max]), jerk_limit=np.array([j_max]), period=period,
    )  # fmt: skip


def _walk(stop: Stop, v: float, a: float, period: float, points: int = 200) -> np.ndarray:
    """(N, 3) position, velocity, acceleration along a stop, phase by phase."""
    rows, q = [[0.0, v, a]], 0.0
    for jerk, steps in zip(stop.jerk[:, 0], stop.steps[:, 0], strict=True):
        t = np.linspace(0.0, steps * period, points)
        path = (q + v * t + a * t**2 / 2 + jerk * t**3 / 6, v + a * t + jerk * t**2 / 2, a + jerk * t)
        rows += np.stack(path, 1).tolist()
        q, v, a = rows[-1]
    return np.array(rows)


@settings(max_examples=150)
@given(fractions, fractions, st.floats(0.1, 30.0), st.floats(1.0, 1e4), periods, st.booleans())
def test_a_stop_ends_at_rest_within_its_limits(v, a, a_max, j_max, period, near_release):
    """From any state, acceleration and jerk keep their limits, and the end, turn and peak foretold are those met."""
    a *= a_max
    v = -a * abs(a) / (2 * j_max) * (1 + 0.1 * v) if near_release else 3.0 * v
    stop = _plan(v, a, a_max, j_max, period)
    path = _walk(stop, v, a, period)
    assert (np.abs(stop.jerk) <= j_max * (1 + 1e-8)).all()
    assert np.abs(path[:, 2]).max() <= max(a_max, abs(a)) * (1 + 1e-8)
    assert path[-1] == pytest.approx([stop.end[0], 0.0, 0.0], abs=1e-9 * max(1.0, a_max))
    low, high = min(0.0, stop.end[0], stop.turn[0]), max(0.0, stop.end[0], stop.turn[0])
    assert low - 1e-9 <= path[:, 0].min() <= low + 1e-3 + abs(v) * period
    assert high - 1e-3 - abs(v) * period <= path[:, 0].max() <= high + 1e-9
    assert np.abs(path[:, 1]).max() <= stop.peak[0] + 1e-9
    assert stop.steps[:, 0].tolist() == np.round(stop.steps[:, 0]).tolist()


@settings(max_examples=100)
@given(fractions, fractions, periods)
def test_a_stop_is_hardly_longer_than_the_shortest(v, a, period):
    """A stop takes at most six periods more than the time-optimal one with continuous switching times."""
    a_max, j_max = 10.0, 500.0
    v, a = 3.0 * v, a_max * a
    sign = 1.0 if v + a * abs(a) / (2 * j_max) >= 0 else -1.0
    p = np.sqrt(max(sign * v * j_max + a * a / 2, 0.0))
    peak = min(p, a_max)
    hold = (sign * v + a * a / (2 * j_max) - peak**2 / j_max) / peak if peak > 0 else 0.0
    shortest = (peak + sign * a) / j_max + max(hold, 0.0) + peak / j_max
    assert _plan(v, a, a_max, j_max, period).total_steps[0] * period <= shortest + 6 * period + 1e-9


@settings(max_examples=100)
@given(fractions, fractions, periods, st.integers(0, 200))
def test_knots_of_a_stop_are_its_states(v, a, period, begun):
    """Sampled knots equal step-by-step integration, also when part of the stop is over already; then rest."""
    v, a = 2.0 * v, 7.5 * a
    stop = _plan(v, a, 7.5, 300.0, period)
    jerks = np.repeat(stop.jerk[:, 0], stop.steps[:, 0].astype(int))
    state, states = np.array([0.5, v, a]), [np.array([0.5, v, a])]
    for jerk in jerks:
        (q, v, a), t = state, period
        state = np.array(
            [q + v * t + a * t**2 / 2 + jerk * t**3 / 6, v + a * t + jerk * t**2 / 2, a + jerk * t]
        )
        states.append(state)
    begun = min(begun, len(jerks))
    q, v, a = states[begun].reshape(3, 1)
    count = len(jerks) - begun + 3
    knots = np.stack(
        sample_stop(stop.jerk, stop.steps, np.array([float(begun)]), (q, v, a), count, period=period), -1
    )[:, 0]
    expected = [*states[begun + 1 :], *[[states[-1][0], 0.0, 0.0]] * 3]
    np.testing.assert_allclose(knots, np.array(expected), atol=1e-9)
    assert (knots[-3:, 1:] == 0.0).all()


def test_at_rest_there_is_nothing_to_do():
    """A joint at rest has a stop of no length."""
    stop = _plan(0.0, 0.0, 1.0, 1.0, 0.01)
    assert stop.total_steps[0] == 0
    assert stop.end[0] == 0
    assert not stop.jerk.any()
