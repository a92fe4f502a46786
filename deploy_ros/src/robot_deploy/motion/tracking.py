"""Following a target: which jerk brings a joint back onto it without overshooting, when that jerk is limited.

This is the part of the safety filter that nothing depends on for safety. It is a cascade: the distance asks for
a velocity, the velocity for an acceleration, the acceleration for a jerk. Near the target each stage is linear
(poles of the error at 0, 0.63 and 0.80 per period); far from it, each asks only for what can still be taken
back with the limit of the next one, as in the law v = sqrt(2 A d) of braking distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_deploy.motion.small_arrays import ZERO, bounded, every

Motion = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Position, velocity and acceleration of the same shape, joints last."""

_VELOCITY_GAIN = 0.5  # per period: share of a velocity error that the acceleration removes in the next one
_POSITION_GAIN = 0.15  # per period: share of a distance that is asked for as velocity
_HUGE = np.array(1e6)  # larger targets mean the same
_RESERVE = 0.8  # share of a limit that the square-root laws count on


@dataclass(frozen=True, eq=False)
class Target:
    """Where joints should be at the end of the next command period; (B, n) arrays, rad or m, and s.

    Attributes:
        position: Wanted position; None follows the velocity only.
        velocity: Wanted velocity.
        acceleration: Wanted acceleration.
    """

    position: np.ndarray | None
    velocity: np.ndarray
    acceleration: np.ndarray


def follow(
    target: Target,
    state: Motion,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    jerk: np.ndarray,
    period: float,
) -> np.ndarray:
    """Return the jerk (B, n) for the next period.

    Args:
        target: A finite target.
        state: Position, velocity and acceleration now, (B, n) each.
        lower: (n,) smallest position; -inf for none.
        upper: (n,) largest position; inf for none.
        velocity: (n,) largest speed.
        acceleration: (n,) largest acceleration.
        jerk: (n,) largest jerk.
        period: Command period [s].
    """
    q, v, a = state
    t, brakes = np.array(period), 2.0 * _RESERVE * acceleration
    next_v = v + 0.5 * t * (a + target.acceleration)  # if the acceleration became the target's
    next_q = q + t * (v + t * (a / 3.0 + target.acceleration / 6.0))
    wanted = target.velocity
    if target.position is not None:
        gap = target.position - next_q
        size = np.abs(gap)
        back = np.minimum(_POSITION_GAIN / period * size, np.sqrt(brakes * size))
        wanted = wanted + np.copysign(back, gap)
    room_above = np.sqrt(brakes * np.maximum(upper - next_q, ZERO))
    room_below = np.sqrt(brakes * np.maximum(next_q - lower, ZERO))
    wanted = bounded(wanted, -np.minimum(velocity, room_below), np.minimum(velocity, room_above))
    error = wanted - next_v
    size = np.abs(error)
    push = np.minimum(_VELOCITY_GAIN / period * size, np.sqrt(2.0 * _RESERVE * jerk * size))
    wanted_a = bounded(target.acceleration + np.copysign(push, error), -acceleration, acceleration)
    return bounded((wanted_a - a) / t, -jerk, jerk)


def choose(mask: np.ndarray, first: Motion, second: Motion) -> Motion:
    """Return `first` where `mask` is true, else `second`."""
    return (
        np.where(mask, first[0], second[0]),
        np.where(mask, first[1], second[1]),
        np.where(mask, first[2], second[2]),
    )


def tamed(target: Target, finite: np.ndarray, position: np.ndarray) -> Target:
    """Return a target without NaN, infinity, or numbers so large that they overflow.

    Args:
        target: Any target; (B, n) arrays.
        finite: (B, n) bool: joints whose target is finite; the others get the one to stay.
        position: (B, n) where the joints are.
    """
    q, v, a = target.position, target.velocity, target.acceleration
    if not every(finite):
        q = None if q is None else np.where(finite, q, position)
        v, a = np.where(finite, v, ZERO), np.where(finite, a, ZERO)
    return Target(
        None if q is None else bounded(q, -_HUGE, _HUGE), bounded(v, -_HUGE, _HUGE), bounded(a, -_HUGE, _HUGE)
    )


class TrackedJoints:
    """The joints of a twin or of a person's leader arm, as targets as long as they are fresh."""

    def __init__(self, joints: int, max_age_ms: float) -> None:
        """Know nothing yet.

        Args:
            joints: How many n.
            max_age_ms: Older positions are none [ms].
        """
        self._rest, self._max_age_ns = np.zeros((1, joints)), max_age_ms * 1e6
        self.forget()

    def forget(self) -> None:
        """Forget the last positions."""
        self._last: tuple[int, np.ndarray] | None = None

    def take(self, positions: np.ndarray, now_ns: int) -> None:
        """Take positions (n,) [rad or m] that came at a monotonic time [ns]."""
        self._last = (now_ns, np.array(positions, dtype=np.float64))

    def target(self, now_ns: int) -> Target | None:
        """The target (1, n), or None if there is none that is fresh."""
        if self._last is None or now_ns - self._last[0] > self._max_age_ns:
            return None
        return Target(self._last[1][None], self._rest, self._rest)
