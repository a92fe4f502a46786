r"""The safety filter: whatever is asked for, the motion that comes out keeps every limit and can be stopped.

The filter's state is the last commanded position, velocity and acceleration of every joint, together with a
*verified stop*: a jerk-limited motion from there to rest that keeps every limit. A period is one of

* **go**: a jerk is chosen that follows the target. The step and a new stop planned from its end are verified;
  if both keep all limits, the step is taken and the new stop replaces the old one.
* **weaken**: otherwise the same is tried with jerks nearer and nearer to that of the stored stop.
* **stop**: otherwise the next period of the stored stop is executed, and what is left of it is still verified.

The stored stop of a joint at rest is to stay. So by induction there is a verified stop in every period, and
every period that is executed was verified before, whatever the targets were: the filter needs no assumption
about them, nor about the tracking law. Joints are verified one by one; the workspace, which couples them, for
all stops of an arm together.

Only verification matters for safety; only the tracking law for how well a good target is followed. A target
that keeps the limits and is the end of a motion of constant jerk is followed exactly.

All arrays are (B, n): B filters side by side (one on a robot, thousands in a test) of n joints. The result is
the same whatever B is. Nothing here knows the time: a call is one period.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from robot_deploy.motion.braking import WORKING_SHARE, Stop, plan_stop, sample_stop
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.motion.rules import N_RULES, FilterRules, Rule
from robot_deploy.motion.screening import TargetScreen
from robot_deploy.motion.small_arrays import ONE, ZERO, bounded, every, rows, some
from robot_deploy.motion.tracking import Motion, Target, choose, follow
from robot_deploy.motion.workspace import Workspace

POSITION_GUARD = 1e-9
"""Distance that verified positions keep from their limits [rad or m]: room for rounding."""

_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the way from the stored stop's jerk to the wanted one


@dataclass(frozen=True, eq=False)
class FilterStep:
    """One period's result; (B, n) arrays.

    Attributes:
        position: Commanded position at the end of the period.
        velocity: Commanded velocity there.
        acceleration: Commanded acceleration there.
        jerk: Commanded jerk, constant over the period.
        broken: (B, N_RULES) bool, the rules that the target broke; index with `Rule`.
        stopped: (B,) bool, the filter is stopping or at rest because of a rule, until `reset`.
    """

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    broken: np.ndarray
    stopped: np.ndarray


@dataclass(frozen=True, eq=False)
class _Period:
    """A period that may be executed, and the stop after it: (B, n) arrays, and (4, B, n) for the stop.

    Attributes:
        jerk: Constant over the period.
        state: Position, velocity and acceleration at its end.
        stop_jerk: Of each phase of the stop.
        stop_steps: Length of each phase [periods].
        done: Periods of the stop that are over by then.
    """

    jerk: np.ndarray
    state: Motion
    stop_jerk: np.ndarray
    stop_steps: np.ndarray
    done: np.ndarray


class SafetyFilter:
    """Turns targets into motions within limits; see the module docstring.

    Attributes:
        limits: The limits that are kept.
        period: Command period [s].
        counts: (B, N_RULES) int64: periods in which each rule was broken since construction.
        stopped_by: (B,) int64: the `Rule` that stopped the filter, or -1.
    """

    def __init__(
        self,
        limits: MotionLimits,
        *,
        period: float,
        rules: FilterRules | None = None,
        workspace: Workspace | None = None,
        batch: int = 1,
        acceleration_share: float = 1.0,
        jerk_share: float = 1.0,
    ) -> None:
        """Make filters that are at rest nowhere yet: `reset` them before the first `step`.

        Args:
            limits: The limits to keep.
            period: Command period [s].
            rules: What is clamped and what stops.
            workspace: Where the tool may be; None for anywhere.
            batch: Number of filters B.
            acceleration_share: Share of the acceleration limits that following a target uses, in (0, 1]; stops
                use them all.
            jerk_share: The same for jerk.

        Raises:
            LimitsError: The period or a share is not positive, or a share is above 1.
        """
        if not (np.isfinite(period) and period > 0.0):
            raise LimitsError(f"command period {period:g} s; expected a positive time")
        self.limits, self.period, self.rules = limits, period, rules or FilterRules()
        self._workspace = workspace
        self._shape = (batch, len(limits))
        self._none = np.zeros(self._shape)
        self._lower = rows(limits.lower + POSITION_GUARD, batch)
        self._upper = rows(limits.upper - POSITION_GUARD, batch)
        self._velocity = rows(limits.velocity * WORKING_SHARE, batch)
        self._acceleration = rows(limits.acceleration * WORKING_SHARE, batch)
        jerk = rows(limits.jerk * WORKING_SHARE, batch)
        self._plan_stop = partial(
            plan_stop, acceleration_limit=self._acceleration, jerk_limit=jerk, period=period
        )
        calm = limits.scaled(acceleration=acceleration_share, jerk=jerk_share)
        self._calm = (rows(calm.acceleration * WORKING_SHARE, batch), rows(calm.jerk * WORKING_SHARE, batch))
        self._screen = TargetScreen(limits, self.rules, period=period, batch=batch)
        self._stopping_rules = rows(self.rules.stop_mask(), batch)
        self._inset = 0.0 if workspace is None else workspace.inset(limits, period)
        self.counts = np.zeros((batch, N_RULES), dtype=np.int64)
        self.stopped_by = np.full(batch, -1, dtype=np.int64)
        self._q = np.full(self._shape, np.nan)
        self._rest()

    def _rest(self) -> None:
        self._v, self._a = np.zeros(self._shape), np.zeros(self._shape)
        self._stop_jerk, self._stop_steps = np.zeros((4, *self._shape)), np.zeros((4, *self._shape))
        self._done = self._none  # periods of the stored stop that were executed
        self._tail: Motion | None = None  # the stored stop's knots, once somebody asked for them
        self._screen.forget()

    @property
    def state(self) -> Motion:
        """Commanded position, velocity and acceleration, (B, n) each."""
        return self._q.copy(), self._v.copy(), self._a.copy()

    @property
    def at_rest(self) -> np.ndarray:
        """(B,) bool: nothing moves."""
        return ((self._v == 0.0) & (self._a == 0.0)).all(axis=1)

    @property
    def steps_to_rest(self) -> np.ndarray:
        """(B,) int64: command periods that the stored stop still needs."""
        return (self._stop_steps.sum(axis=0) - self._done).clip(min=0).max(axis=1).astype(np.int64)

    def reset(self, position: np.ndarray) -> None:
        """Start at rest at a measured position (n,) or (B, n), and forget what stopped the filter.

        Raises:
            LimitsError: A joint is outside its limits, or the tool outside the workspace; move it by hand.
        """
        q = np.broadcast_to(np.asarray(position, dtype=np.float64), self._shape)
        inside = (q >= self._lower) & (q <= self._upper)  # false for NaN
        if not inside.all():
            row, joint = (int(i) for i in np.argwhere(~inside)[0])
            low, high = self._lower[row, joint], self._upper[row, joint]
            raise LimitsError(
                f"joint '{self.limits.names[joint]}' is at {q[row, joint]:.4f}, expected {low:.4f} to {high:.4f} "
                "(limits with margin); move it there by hand first"
            )
        if self._workspace is not None:
            self._workspace.require_inside(q, inset=self._inset)
        self._q = q.copy()
        self.stopped_by[:] = -1
        self._rest()

    def step(self, target: Target | None, measured: np.ndarray | None = None) -> FilterStep:
        """Compute one period.

        Args:
            target: Where to be at the end of the period; None brakes without latching.
            measured: (B, n) measured positions, for the DEVIATION rule; None skips it.

        Returns:
            The motion, and which rules the target broke.

        Raises:
            LimitsError: The filter was never reset.
        """
        if np.isnan(self._q[0, 0]):
            raise LimitsError("the safety filter knows no position yet; reset it with a measured one first")
        broken = np.zeros((self._shape[0], N_RULES), dtype=bool)
        stop_now = np.zeros(self._shape[0], dtype=bool)
        hold = self._check_deviation(measured, broken)
        if target is None:
            self._screen.forget()
            go, jerk = np.zeros(self._shape[0], dtype=bool), self._none
        else:
            target, stop_now = self._screen.check(target, self._q, broken)
            jerk = follow(
                self._clipped(target),
                (self._q, self._v, self._a),
                lower=self._lower,
                upper=self._upper,
                velocity=self._velocity,
                acceleration=self._calm[0],
                jerk=self._calm[1],
                period=self.period,
            )
            go = ~hold
        self._latch(broken, stop_now)
        go &= self.stopped_by < 0
        chosen = self._move(jerk, go, broken)
        self._latch(broken)  # STOPPABLE and WORKSPACE stop from the next period on
        if some(broken):
            self.counts += broken
        return FilterStep(
            self._q.copy(), self._v.copy(), self._a.copy(), chosen, broken, self.stopped_by >= 0
        )

    def trip(self, rule: Rule) -> None:
        """Stop all filters that are not stopped yet because of a rule that a caller found broken, and count it."""
        self.counts[:, rule] += 1
        self.stopped_by = np.where(self.stopped_by < 0, int(rule), self.stopped_by)

    def snapshot(self) -> tuple[np.ndarray, ...]:
        """The motion's state, for `restore`; counts and what stopped the filter are not part of it."""
        return (self._q, self._v, self._a, self._stop_jerk, self._stop_steps, self._done)

    def restore(self, snapshot: tuple[np.ndarray, ...]) -> None:
        """Go back to an earlier state of the same filter, whose stored stop is verified as it was then."""
        self._q, self._v, self._a, self._stop_jerk, self._stop_steps, self._done = snapshot
        self._tail = None
        self._screen.forget()

    def stop_knots(self) -> Motion:
        """The stored stops from the present state to rest.

        Returns:
            Positions, velocities and accelerations, (N, B, n) each, at the ends of the next N periods; N is
            the number of periods until the last joint rests, 0 if all do.
        """
        if self._tail is None:
            state = (self._q, self._v, self._a)
            self._tail = self._sampled(self._stop_jerk, self._stop_steps, self._done, state)
        return self._tail

    def _check_deviation(self, measured: np.ndarray | None, broken: np.ndarray) -> np.ndarray:
        if measured is None or self.rules.max_deviation is None:
            return np.zeros(self._shape[0], dtype=bool)
        near = np.abs(np.asarray(measured, dtype=np.float64) - self._q) <= self.rules.max_deviation
        if not every(near):
            broken[:, Rule.DEVIATION] = ~near.all(axis=1)  # a NaN is far
        return broken[:, Rule.DEVIATION]

    def _clipped(self, target: Target) -> Target:
        q = target.position
        return Target(
            None if q is None else bounded(q, self._lower, self._upper),
            bounded(target.velocity, -self._velocity, self._velocity),
            bounded(target.acceleration, -self._acceleration, self._acceleration),
        )

    def _latch(self, broken: np.ndarray, stop_now: np.ndarray | None = None) -> None:
        """Remember the first rule that stops; `stop_now` marks a POSITION or VELOCITY excess beyond its bound."""
        stops = broken & self._stopping_rules
        if stop_now is not None and some(stop_now):
            stops[:, Rule.POSITION] |= stop_now & broken[:, Rule.POSITION]
            stops[:, Rule.VELOCITY] |= stop_now & broken[:, Rule.VELOCITY]
        if some(stops):
            fresh = (self.stopped_by < 0) & stops.any(axis=1)
            self.stopped_by = np.where(fresh, stops.argmax(axis=1), self.stopped_by)

    def _move(self, jerk: np.ndarray, go: np.ndarray, broken: np.ndarray) -> np.ndarray:
        """Take the step: the strongest share of `jerk` that is verified, or the stored stop. Return its jerk."""
        stored = self._next_of_stop()
        tail = None
        if not some(go):
            period = self._stopping(stored)
        else:
            period = self._strongest(stored, jerk, go, broken)
            if self._workspace is not None:
                tail = self._sampled(period.stop_jerk, period.stop_steps, period.done, period.state)
                outside = go & ~self._stays_inside(period, tail)
                if some(outside):  # the stored stops of an arm were verified together: back to all of them
                    broken[:, Rule.WORKSPACE] = outside
                    period, tail = _merged(outside[:, None], self._stopping(stored), period), None
        self._q, self._v, self._a = period.state
        self._stop_jerk, self._stop_steps, self._done = period.stop_jerk, period.stop_steps, period.done
        self._tail = tail
        return period.jerk

    def _strongest(self, stored: np.ndarray, jerk: np.ndarray, go: np.ndarray, broken: np.ndarray) -> _Period:
        """The strongest share of `jerk` that is verified, joint by joint; for those without one, the stored stop."""
        open_, best = go[:, None], None
        for share in _SHARES:
            trial = stored + share * (jerk - stored)
            reached = self._after(trial)
            stop = self._plan_stop(reached[1], reached[2])
            good = open_ & self._verified(reached, stop)
            period = _Period(trial, reached, stop.jerk, stop.steps, self._none)
            if every(good):  # as a rule at once, so that nothing has to be chosen
                return period
            best = _merged(good, period, best or self._stopping(stored))
            open_ = open_ & ~good
            if not some(open_):
                break
            if share == 1.0:
                broken[:, Rule.STOPPABLE] = open_.any(axis=1)
        assert best is not None
        return best

    def _next_of_stop(self) -> np.ndarray:
        """The jerk of the stored stop's next period."""
        ends = self._stop_steps.cumsum(axis=0)
        active = (self._done < ends) & (self._done >= ends - self._stop_steps)
        return np.where(active, self._stop_jerk, ZERO).sum(axis=0)

    def _stopping(self, stored: np.ndarray) -> _Period:
        """The stored stop's next period, given its jerk, and what is left of the stop."""
        done = self._done + 1.0
        q, v, a = self._after(stored)
        rests = done >= self._stop_steps.sum(axis=0)  # the last period ends at rest, but for rounding
        state = (q, np.where(rests, ZERO, v), np.where(rests, ZERO, a))
        return _Period(stored, state, self._stop_jerk, self._stop_steps, done)

    def _after(self, jerk: np.ndarray) -> Motion:
        """Position, velocity and acceleration after one period of constant jerk (..., B, n)."""
        t = self.period
        return (
            self._q + t * (self._v + t * (0.5 * self._a + jerk * (t / 6.0))),
            self._v + t * (self._a + jerk * (0.5 * t)),
            self._a + t * jerk,
        )

    def _verified(self, reached: Motion, stop: Stop) -> np.ndarray:
        """Whether one period of constant jerk to `reached`, and the stop after it, keep the limits of every joint.

        Within the period, a speed has its extreme at an end or where the acceleration changes sign. Where the
        velocity changes sign, the position leaves the range of its two ends by at most half a period at the
        largest speed.
        """
        q, v, a = reached
        slowest, fastest = np.minimum(v, self._v), np.maximum(v, self._v)
        turns = (self._a * a < ZERO) & (self._a != a)
        if some(turns):
            rise = np.where(turns, a - self._a, ONE)
            crest = np.where(turns, self._v - 0.5 * self._a**2 * self.period / rise, v)
            slowest, fastest = np.minimum(slowest, crest), np.maximum(fastest, crest)
        reverses = (slowest < ZERO) & (fastest > ZERO)
        fastest = np.maximum(fastest, -slowest)
        low, high = np.minimum(self._q, q), np.maximum(self._q, q)
        if some(reverses):
            detour = np.where(reverses, 0.5 * self.period * fastest, ZERO)
            low, high = low - detour, high + detour
        low = np.minimum(low, q + np.minimum(stop.end, stop.turn))
        high = np.maximum(high, q + np.maximum(stop.end, stop.turn))
        inside = (low >= self._lower) & (high <= self._upper)
        slow = (np.maximum(fastest, stop.peak) <= self._velocity) & (np.abs(a) <= self._acceleration)
        return inside & slow

    def _sampled(self, jerk: np.ndarray, steps: np.ndarray, done: np.ndarray, state: Motion) -> Motion:
        """The knots of stops, (N, B, n) each, until the last joint rests."""
        left = (steps.sum(axis=0) - done).max()
        return sample_stop(jerk, steps, done, state, max(int(left), 0), period=self.period)

    def _stays_inside(self, period: _Period, tail: Motion) -> np.ndarray:
        """(B,) bool: the tool is inside the workspace after a period and at every knot of the stops after it."""
        assert self._workspace is not None
        path = np.concatenate([period.state[0][None], tail[0]])
        return np.all(self._workspace.inside(path, inset=self._inset), axis=0)


def _merged(mask: np.ndarray, first: _Period, second: _Period) -> _Period:
    """`first` for the joints where `mask` is true, `second` for the others."""
    return _Period(
        np.where(mask, first.jerk, second.jerk),
        choose(mask, first.state, second.state),
        np.where(mask, first.stop_jerk, second.stop_jerk),
        np.where(mask, first.stop_steps, second.stop_steps),
        np.where(mask, first.done, second.done),
    )
