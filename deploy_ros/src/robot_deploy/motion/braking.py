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

_ROUND = 1e-9  # a duration this close above a whole number of periods is that number; see `WORKING_SHARE`

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
    a_max, ramp = acceleration_limit, jerk_limit * period  # ramp: change of acceleration within a period
    sign = np.where(velocity + acceleration * np.abs(acceleration) / (2.0 * jerk_limit) >= 0.0, 1.0, -1.0)
    v, a = sign * velocity, sign * acceleration

    # Ramp, hold, release.
    p = np.minimum(np.sqrt(np.maximum(jerk_limit * v + 0.5 * a * a, 0.0)), a_max)
    n1 = np.maximum(np.ceil((p + a) / ramp - _ROUND), 1.0)
    n3 = np.maximum(np.ceil(p / ramp - _ROUND), 1.0)
    gone = (v + 0.5 * period * a * n1) / period  # what the later phases have to take away, per period
    n2 = np.maximum(np.ceil(gone / np.maximum(p, 1e-300) - 0.5 * (n1 + n3) - _ROUND), 0.0)
    p = gone / (0.5 * (n1 + n3) + n2)

    # First a to 0, then a trapezoid.
    m0 = np.maximum(np.ceil(np.abs(a) / ramp - _ROUND), a != 0.0)
    rest = v + 0.5 * period * a * m0
    m1 = np.maximum(np.ceil(np.minimum(np.sqrt(np.abs(rest) / jerk_limit), a_max / jerk_limit) / period), 1.0)
    m2 = np.maximum(np.ceil(np.abs(rest) / (period * np.minimum(a_max, ramp * m1)) - m1 - _ROUND), 0.0)
    height = rest / (period * (m1 + m2))

    direct = (p >= 0.0) & (-(p + a) <= ramp * n1) & (n1 + n2 + n3 <= m0 + 2.0 * m1 + m2)
    moving = (velocity != 0.0) | (acceleration != 0.0)
    t0 = np.where(direct, n1, m0) * period
    first = np.where(direct, -(p + a) / (period * n1), -a / (period * np.maximum(m0, 1.0)))
    t3 = np.where(direct, n3, m1) * period
    release = np.where(direct, p, height) / t3
    steps = np.stack(
        [
            np.where(direct, n1, m0),
            np.where(direct, 0.0, m1),
            np.where(direct, n2, m2),
            np.where(direct, n3, m1),
        ]
    )
    jerk = np.stack([first, np.where(direct, 0.0, -release), np.zeros_like(first), release])

    # How far and how fast on the way; after the first phase the speed only falls.
    v1 = v + t0 * (a + 0.5 * first * t0)
    q1 = t0 * (v + t0 * (0.5 * a + first * t0 / 6.0))
    hold = n2 * period
    after_direct = hold * (v1 - 0.5 * p * hold) + p * t3 * t3 / 6.0
    after_trapezoid = 0.5 * rest * period * (2.0 * m1 + m2)
    end = q1 + np.where(direct, after_direct, after_trapezoid)
    crests = (a * first < 0.0) & (np.abs(a) < np.abs(first) * t0)
    crest = np.where(crests, v - 0.5 * a * a / np.where(crests, first, 1.0), v)
    turns = v * v1 < 0.0
    root = np.sqrt(np.maximum(a * a - 2.0 * first * v, 0.0))
    t_turn = np.where(turns, -2.0 * v / np.where(turns, a + np.copysign(root, a), 1.0), 0.0)
    turn = t_turn * (v + t_turn * (0.5 * a + first * t_turn / 6.0))
    return Stop(
        jerk=np.where(moving, sign * jerk, 0.0),
        steps=np.where(moving, steps, 0.0),
        end=np.where(moving, sign * end, 0.0),
        turn=sign * turn,
        peak=np.maximum(np.maximum(np.abs(v), np.abs(v1)), np.abs(crest)),
    )


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
    ends = stop_steps.cumsum(axis=0) - done
    left = np.clip(ends, 0.0, stop_steps)  # of each phase
    before = ends.clip(min=0.0) - left
    starts_v, starts_a = [v], [a]
    for phase in range(3):
        t, j = left[phase] * period, stop_jerk[phase]
        starts_v.append(starts_v[-1] + t * (starts_a[-1] + 0.5 * j * t))
        starts_a.append(starts_a[-1] + t * j)
    phase_v, phase_a = np.stack(starts_v), np.stack(starts_a)
    steps = np.arange(1.0, count + 1.0).reshape(-1, 1, *[1] * q.ndim)
    t = np.clip(steps - before, 0.0, left) * period
    q_at = q + (t * (phase_v + t * (0.5 * phase_a + stop_jerk * (t / 6.0)))).sum(axis=1)
    v_at = v + (t * (phase_a + stop_jerk * (0.5 * t))).sum(axis=1)
    a_at = a + (t * stop_jerk).sum(axis=1)
    resting = steps[:, 0] >= ends[3]
    return q_at, np.where(resting, 0.0, v_at), np.where(resting, 0.0, a_at)
