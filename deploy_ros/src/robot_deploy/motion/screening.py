"""Which rules a target breaks before any motion is tried; see `robot_deploy.motion.rules`."""

from __future__ import annotations

import numpy as np

from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.rules import FilterRules, Rule
from robot_deploy.motion.small_arrays import ZERO, rows, some
from robot_deploy.motion.tracking import Target, tamed

_ROUND = np.array(1.0 + 1e-9)  # a target at its limit is not beyond it


class TargetScreen:
    """Checks targets (B, n) against limits and the target before; knows nothing of the motion."""

    def __init__(self, limits: MotionLimits, rules: FilterRules, *, period: float, batch: int) -> None:
        """Remember no target.

        Args:
            limits: What targets should keep.
            rules: Which excess is too large.
            period: Command period [s].
            batch: Number of filters B.
        """
        self._shape, self._period = (batch, len(limits)), np.array(period)
        self._lower, self._upper = rows(limits.lower, batch), rows(limits.upper, batch)
        self._velocity, self._acceleration = rows(limits.velocity, batch), rows(limits.acceleration, batch)
        self._jerk = rows(limits.jerk * (1.0 + 1e-9), batch)
        self._far = {rule: rules.setting(rule).stop_above for rule in (Rule.POSITION, Rule.VELOCITY)}
        self.forget()

    def forget(self) -> None:
        """The next target is compared with none before it."""
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

    def check(self, target: Target, position: np.ndarray, broken: np.ndarray) -> tuple[Target, np.ndarray]:
        """Mark what a target breaks.

        Args:
            target: Any target.
            position: (B, n) where the joints are.
            broken: (B, N_RULES) bool, nothing marked yet; gets the marks.

        Returns:
            The target, finite and of the right shape; and (B,) bool, where it goes much too far.
        """
        stop_now = np.zeros(self._shape[0], dtype=bool)
        q, v, a = target.position, target.velocity, target.acceleration
        if any(np.shape(array) != self._shape for array in ((v, a) if q is None else (q, v, a))):
            broken[:, Rule.SHAPE] = True
            resting = np.zeros(self._shape)
            return Target(position, resting, resting), stop_now
        finite = np.isfinite(v) & np.isfinite(a)
        if q is not None:
            finite &= np.isfinite(q)
        _mark(broken, Rule.FINITE, ~finite)
        target = tamed(target, finite, position)
        q, v, a = target.position, target.velocity, target.acceleration
        speed = np.abs(v) / self._velocity
        if q is not None:
            excess = np.maximum(q - self._upper, self._lower - q)
            _mark(broken, Rule.POSITION, excess > ZERO)
            self._too_far(Rule.POSITION, excess, stop_now)
            if self._previous is not None:
                moved = np.abs(q - self._previous[0]) / self._period
                speed = np.maximum(speed, moved / self._velocity)
        _mark(broken, Rule.VELOCITY, speed > _ROUND)
        self._too_far(Rule.VELOCITY, speed, stop_now)
        _mark(broken, Rule.ACCELERATION, np.abs(a) > self._acceleration)
        if self._previous is not None:
            _mark(broken, Rule.JERK, np.abs(a - self._previous[1]) / self._period > self._jerk)
        self._previous = (position if q is None else q, a)
        return target, stop_now

    def _too_far(self, rule: Rule, excess: np.ndarray, stop_now: np.ndarray) -> None:
        bound = self._far[rule]
        if bound is not None:
            far = excess > bound
            if some(far):
                stop_now |= far.any(axis=1)


def _mark(broken: np.ndarray, rule: Rule, joints: np.ndarray) -> None:
    if some(joints):
        broken[:, rule] = joints.any(axis=1)
