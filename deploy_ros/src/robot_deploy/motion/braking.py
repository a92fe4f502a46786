r"""Stops in closed form: from any velocity and acceleration to rest, within acceleration and jerk limits.

A stop is at most four phases of constant jerk, each a whole number of command periods long, so that every
change of jerk falls on a knot of the trajectory that is sent. Between knots the motion is then one cubic per
joint, and a controller that interpolates positions and velocities (cubic) or accelerations as well (quintic)
reproduces it exactly: what was verified is what is executed.

For a joint with velocity v and acceleration a, signs chosen such that v + a|a| / 2J >= 0, the time-optimal
stop ramps the acceleration to -p, holds it, and releases it::

      a |\
        | \                      n1 steps: ramp, n2 steps: hold, n3 steps: release
      0 |--\-------------/--
        |   \           /        p = sqrt(J v + a²/2), at most A
     -p |    \_________/

With the three durations rounded up to whole periods, p follows from the velocity that has to go, which is a
linear equation; rounding up never needs a larger p or jerk. Where the rounding would need a negative p, a
ramp faster than J downwards, or a long hold at a small p (all only in the last few periods of a stop), another
stop is used that always exists: first a to 0, then a symmetric trapezoid. Neither is claimed to be optimal.

All arrays broadcast; the joints are the last axis. Units: rad or m, s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_deploy.motion.small_arrays import ONE, ZERO, every, some

_ROUND = 1e-9  # a duration this close above a whole number of periods is that number; see `WORKING_SHARE`
_TINY = np.array(1e-300)

WORKING_SHARE = 1.0 - 1e-6
"""Share of a limit that motions use: rounding, here and in what executes them, never exceeds the rest."""


@dataclass(frozen=True, eq=False)
class Stop:
    """Stops of any number of joints; (4, ...) arrays have one entry per phase.

    Attributes:
        jerk: (4, ...) jerk of each phase.
        steps: (4, ...) length of each phase [command periods], whole numbers as float64.
        end: (...) where the joint comes to rest, relative to where it is now.
        turn: (...) farthest excursion before the joint turns round, relative to now; 0 if it does not.
        peak: (...) largest speed on the way, the present one included.
    """

    jerk: np.ndarray
    steps: np.ndarray
    end: np.ndarray
    turn: np.ndarray
    peak: np.ndarray

    @property
    def total_steps(self) -> np.ndarray:
        """(...) command periods until rest."""
        return self.steps.sum(axis=0)


def plan_stop(
    velocity: np.ndarray,
    acceleration: np.ndarray,
    *,
    acceleration_limit: np.ndarray,
    jerk_limit: np.ndarray,
    period: float,
) -> Stop:
    """Plan a stop for every joint by itself.

    Args:
        velocity: (...) present velocities.
        acceleration: (...) present accelerations, within their limit.
        acceleration_limit: (n,) largest acceleration A.
        jerk_limit: (n,) largest jerk J.
        period: Command period [s].

    Returns:
        The stops. Their accelerations and jerks are within the limits by construction; whether positions and
        speeds are is for the caller to check, with `Stop.end`, `Stop.turn` and `Stop.peak`.
    """
    t = np.array(period)
    twist = velocity + acceleration * np.abs(acceleration) / (2.0 * jerk_limit)
    sign = np.where(twist >= ZERO, ONE, -ONE)
    v, a = sign * velocity, sign * acceleration
    n1, n2, n3, p = _ramp_hold_release(v, a, acceleration_limit, jerk_limit, t)
    m0, m1, m2, rest = _zero_then_trapezoid(v, a, acceleration_limit, jerk_limit, t)
    fall = -(p + a)  # change of the acceleration in the first phase
    direct = (p >= ZERO) & (fall <= jerk_limit * t * n1) & (n1 + n2 + n3 <= m0 + 2.0 * m1 + m2)

    none = np.zeros(p.shape)
    t0, hold, t3 = n1 * t, n2 * t, n3 * t
    first, release = fall / t0, p / t3
    steps, jerk = np.array([n1, none, n2, n3]), np.array([first, none, none, release])
    all_direct = every(direct)  # as a rule: the others are the last few periods of a stop
    if not all_direct:
        steps = np.where(direct, steps, np.array([m0, m1, m2, m1]))
        t0 = steps[0] * t
        first = np.where(direct, first, -a / (t * np.maximum(m0, ONE)))
        release = np.where(direct, release, rest / (t * (m1 + m2)) / (m1 * t))
        jerk = np.array([first, np.where(direct, ZERO, -release), none, release])

    # How far and how fast on the way; after the first phase the speed only falls.
    change, half_a = first * t0, 0.5 * a
    v1 = v + t0 * (a + 0.5 * change)
    after = hold * (v1 - 0.5 * p * hold) + p * t3 * t3 / 6.0
    if not all_direct:
        after = np.where(direct, after, 0.5 * rest * t * (2.0 * m1 + m2))
    end = sign * (t0 * (v + t0 * (half_a + change / 6.0)) + after)
    jerk = sign * jerk
    moving = (velocity != ZERO) | (acceleration != ZERO)
    if not every(moving):
        jerk, steps, end = (
            np.where(moving, jerk, ZERO),
            np.where(moving, steps, ZERO),
            np.where(moving, end, ZERO),
        )
    return Stop(
        jerk=jerk,
        steps=steps,
        end=end,
        turn=sign * _turn(v, v1, a, first),
        peak=_peak(v, v1, a, first, change),
    )


def _ramp_hold_release(
    v: np.ndarray, a: np.ndarray, a_max: np.ndarray, j_max: np.ndarray, period: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The lengths n1, n2 and n3 of the three phases [periods], and p; see the module's docstring."""
    ramp = j_max * period  # change of acceleration within a period
    p = np.minimum(np.sqrt(np.maximum(j_max * v + 0.5 * a * a, ZERO)), a_max)
    n1 = np.maximum(np.ceil((p + a) / ramp - _ROUND), ONE)
    n3 = np.maximum(np.ceil(p / ramp - _ROUND), ONE)
    gone = (v + 0.5 * period * a * n1) / period  # what the later phases have to take away, per period
    ramps = 0.5 * (n1 + n3)
    n2 = np.maximum(np.ceil(gone / np.maximum(p, _TINY) - ramps - _ROUND), ZERO)
    return n1, n2, n3, gone / (ramps + n2)


def _zero_then_trapezoid(
    v: np.ndarray, a: np.ndarray, a_max: np.ndarray, j_max: np.ndarray, period: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The length m0 of the way to no acceleration, m1 and m2 of the trapezoid's sides and top, and its velocity."""
    ramp = j_max * period
    m0 = np.maximum(np.ceil(np.abs(a) / ramp - _ROUND), a != ZERO)
    rest = v + 0.5 * period * a * m0
    size = np.abs(rest)
    m1 = np.maximum(np.ceil(np.minimum(np.sqrt(size / j_max), a_max / j_max) / period), ONE)
    m2 = np.maximum(np.ceil(size / (period * np.minimum(a_max, ramp * m1)) - m1 - _ROUND), ZERO)
    return m0, m1, m2, rest


def _peak(v: np.ndarray, v1: np.ndarray, a: np.ndarray, first: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The largest speed of a stop, from the velocities around its first phase."""
    peak = np.maximum(np.abs(v), np.abs(v1))
    crests = (a * first < ZERO) & (np.abs(a) < np.abs(change))
    if not some(crests):
        return peak
    crest = np.where(crests, v - 0.5 * a * a / np.where(crests, first, ONE), v)
    return np.maximum(peak, np.abs(crest))


def _turn(v: np.ndarray, v1: np.ndarray, a: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The farthest excursion of a stop whose velocity changes sign in its first phase; 0 for the others."""
    turns = v * v1 < ZERO
    if not some(turns):
        return np.zeros(turns.shape)
    root = np.sqrt(np.maximum(a * a - 2.0 * first * v, ZERO))
    time = np.where(turns, -2.0 * v / np.where(turns, a + np.copysign(root, a), ONE), ZERO)
    return time * (v + time * (0.5 * a + first * time / 6.0))


def sample_stop(
    stop_jerk: np.ndarray,
    stop_steps: np.ndarray,
    done: np.ndarray,
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
    count: int,
    *,
    period: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where joints are at the ends of the next `count` command periods, if they stop.

    Args:
        stop_jerk: (4, ...) `Stop.jerk`.
        stop_steps: (4, ...) `Stop.steps`.
        done: (...) periods of the stop that are over already.
        state: Position, velocity and acceleration now, (...) each.
        count: Number of periods N.
        period: Command period [s].

    Returns:
        Positions, velocities and accelerations, (N, ...) each; exactly at rest from the end of the stop on.
    """
    q, v, a = state
    t = np.array(period)
    ends = stop_steps.cumsum(axis=0) - done
    begun = np.maximum(ends, ZERO)
    left = np.minimum(begun, stop_steps)  # of each phase
    before = begun - left
    # Velocity and acceleration at the beginning of each phase.
    span, jerk = left[:3] * t, stop_jerk[:3]
    phase_v, phase_a = np.empty(left.shape), np.empty(left.shape)
    phase_v[0], phase_a[0] = v, a
    np.multiply(span, jerk, out=phase_a[1:])
    phase_a = phase_a.cumsum(axis=0)
    np.multiply(span, phase_a[:3] + 0.5 * jerk * span, out=phase_v[1:])
    phase_v = phase_v.cumsum(axis=0)
    steps = np.arange(1.0, count + 1.0).reshape(-1, 1, *[1] * q.ndim)
    x = np.minimum(np.maximum(steps - before, ZERO), left) * t  # time in each phase
    gained = x * stop_jerk
    q_at = q + (x * (phase_v + x * (0.5 * phase_a + stop_jerk * (x / 6.0)))).sum(axis=1)
    v_at = v + (x * (phase_a + 0.5 * gained)).sum(axis=1)
    a_at = a + gained.sum(axis=1)
    resting = steps[:, 0] >= ends[3]
    return q_at, np.where(resting, ZERO, v_at), np.where(resting, ZERO, a_at)
