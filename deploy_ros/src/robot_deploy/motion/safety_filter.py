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

import numpy as np

from robot_deploy.motion.braking import WORKING_SHARE, Stop, plan_stop, sample_stop
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.motion.rules import N_RULES, FilterRules, Rule
from robot_deploy.motion.tracking import Motion, Target, bounded, choose, follow, tamed
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
        self._lower, self._upper = limits.lower + POSITION_GUARD, limits.upper - POSITION_GUARD
        self._velocity = limits.velocity * WORKING_SHARE
        self._acceleration = limits.acceleration * WORKING_SHARE
        self._jerk = limits.jerk * WORKING_SHARE
        calm = limits.scaled(acceleration=acceleration_share, jerk=jerk_share)
        self._calm = (calm.acceleration * WORKING_SHARE, calm.jerk * WORKING_SHARE)
        self._stopping_rules = self.rules.stop_mask()
        self._inset = 0.0 if workspace is None else workspace.inset(limits, period)
        self._shape = (batch, len(limits))
        self.counts = np.zeros((batch, N_RULES), dtype=np.int64)
        self.stopped_by = np.full(batch, -1, dtype=np.int64)
        self._q = np.full(self._shape, np.nan)
        self._rest()

    def _rest(self) -> None:
        self._v, self._a = np.zeros(self._shape), np.zeros(self._shape)
        self._stop_jerk, self._stop_steps = np.zeros((4, *self._shape)), np.zeros((4, *self._shape))
        self._done = np.zeros(self._shape)  # periods of the stored stop that were executed
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

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
            raise LimitsError(
                f"joint '{self.limits.names[joint]}' is at {q[row, joint]:.4f}, expected {self._lower[joint]:.4f} to "
                f"{self._upper[joint]:.4f} (limits with margin); move it there by hand first"
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
            self._previous, go = None, np.zeros(self._shape[0], dtype=bool)
            jerk = np.zeros(self._shape)
        else:
            target, stop_now = self._screen(target, broken)
            jerk = follow(
                target,
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
        go = go & (self.stopped_by < 0)
        chosen = self._move(jerk, go, broken)
        self._latch(broken, np.zeros_like(stop_now))  # STOPPABLE and WORKSPACE stop from the next period on
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
        self._previous = None

    def stop_knots(self) -> Motion:
        """The stored stops from the present state to rest.

        Returns:
            Positions, velocities and accelerations, (N, B, n) each, at the ends of the next N periods; N is
            the number of periods until the last joint rests, 0 if all do.
        """
        return sample_stop(
            self._stop_jerk,
            self._stop_steps,
            self._done,
            (self._q, self._v, self._a),
            int(self.steps_to_rest.max()),
            period=self.period,
        )

    def _check_deviation(self, measured: np.ndarray | None, broken: np.ndarray) -> np.ndarray:
        if measured is None or self.rules.max_deviation is None:
            return np.zeros(self._shape[0], dtype=bool)
        with np.errstate(invalid="ignore"):
            near = np.abs(np.asarray(measured, dtype=np.float64) - self._q) <= self.rules.max_deviation
        broken[:, Rule.DEVIATION] = ~near.all(axis=1)  # a NaN is far
        return broken[:, Rule.DEVIATION]

    def _screen(self, target: Target, broken: np.ndarray) -> tuple[Target, np.ndarray]:
        """Check a target, mark what it breaks, clip it to the limits; and say where it goes much too far."""
        stop_now = np.zeros(self._shape[0], dtype=bool)
        arrays = [target.velocity, target.acceleration]
        if target.position is not None:
            arrays.insert(0, target.position)
        if any(np.shape(array) != self._shape for array in arrays):
            broken[:, Rule.SHAPE] = True
            resting = np.zeros(self._shape)
            return Target(self._q, resting, resting), stop_now
        finite = np.ones(self._shape, dtype=bool)
        for array in arrays:
            finite &= np.isfinite(array)
        broken[:, Rule.FINITE] = ~finite.all(axis=1)
        target = tamed(target, finite, self._q)
        q, v, a = target.position, target.velocity, target.acceleration
        speed = np.abs(v) / self.limits.velocity
        if q is not None:
            excess = np.maximum(q - self.limits.upper, self.limits.lower - q)
            broken[:, Rule.POSITION] = (excess > 0.0).any(axis=1)
            stop_now |= self._too_far(Rule.POSITION, excess)
            if self._previous is not None:
                moved = np.abs(q - self._previous[0]) / self.period
                speed = np.maximum(speed, moved / self.limits.velocity)
        broken[:, Rule.VELOCITY] = (speed > 1.0 + 1e-9).any(axis=1)
        stop_now |= self._too_far(Rule.VELOCITY, speed)
        broken[:, Rule.ACCELERATION] = (np.abs(a) > self.limits.acceleration).any(axis=1)
        if self._previous is not None:
            change = np.abs(a - self._previous[1]) / self.period
            broken[:, Rule.JERK] = (change > self.limits.jerk * (1.0 + 1e-9)).any(axis=1)
        self._previous = (self._q if q is None else q, a)
        return Target(
            None if q is None else bounded(q, self._lower, self._upper),
            bounded(v, -self._velocity, self._velocity),
            bounded(a, -self._acceleration, self._acceleration),
        ), stop_now

    def _too_far(self, rule: Rule, excess: np.ndarray) -> np.ndarray:
        bound = self.rules.setting(rule).stop_above
        if bound is None:
            return np.zeros(len(excess), dtype=bool)
        return np.any(excess > bound, axis=1)

    def _latch(self, broken: np.ndarray, stop_now: np.ndarray) -> None:
        """Remember the first rule that stops; `stop_now` marks a POSITION or VELOCITY excess beyond its bound."""
        stops = broken & self._stopping_rules
        stops[:, Rule.POSITION] |= stop_now & broken[:, Rule.POSITION]
        stops[:, Rule.VELOCITY] |= stop_now & broken[:, Rule.VELOCITY]
        fresh = (self.stopped_by < 0) & stops.any(axis=1)
        self.stopped_by = np.where(fresh, stops.argmax(axis=1), self.stopped_by)

    def _move(self, jerk: np.ndarray, go: np.ndarray, broken: np.ndarray) -> np.ndarray:
        """Take the step: the strongest share of `jerk` that is verified, or the stored stop. Return its jerk."""
        stored, stop_state = self._next_of_stop()
        if not go.any():
            self._q, self._v, self._a = stop_state
            self._done = self._done + 1.0
            return stored
        state, chosen = stop_state, stored
        plan_jerk, plan_steps, done = self._stop_jerk, self._stop_steps, self._done + 1.0
        open_ = np.broadcast_to(go[:, None], self._shape)
        for share in _SHARES:
            trial = stored + share * (jerk - stored)
            reached = self._after(trial)
            stop = plan_stop(
                reached[1],
                reached[2],
                acceleration_limit=self._acceleration,
                jerk_limit=self._jerk,
                period=self.period,
            )
            good = open_ & self._verified(reached, stop)
            state = choose(good, reached, state)
            chosen = np.where(good, trial, chosen)
            plan_jerk = np.where(good, stop.jerk, plan_jerk)
            plan_steps = np.where(good, stop.steps, plan_steps)
            done = np.where(good, 0.0, done)
            open_ = open_ & ~good
            if not open_.any():
                break
            if share == 1.0:
                broken[:, Rule.STOPPABLE] = open_.any(axis=1)
        if self._workspace is not None:
            outside = go & ~self._stays_inside(plan_jerk, plan_steps, state, done)
            if outside.any():  # the stored stops of an arm were verified together: back to all of them
                broken[:, Rule.WORKSPACE] = outside
                back = outside[:, None]
                state = choose(back, stop_state, state)
                plan_jerk = np.where(back, self._stop_jerk, plan_jerk)
                plan_steps = np.where(back, self._stop_steps, plan_steps)
                done = np.where(back, self._done + 1.0, done)
                chosen = np.where(back, stored, chosen)
        self._q, self._v, self._a = state
        self._stop_jerk, self._stop_steps, self._done = plan_jerk, plan_steps, done
        return chosen

    def _next_of_stop(self) -> tuple[np.ndarray, Motion]:
        """The jerk of the stored stop's next period, and where that ends."""
        ends = self._stop_steps.cumsum(axis=0)
        active = (self._done < ends) & (self._done >= ends - self._stop_steps)
        jerk = np.where(active, self._stop_jerk, 0.0).sum(axis=0)
        q, v, a = self._after(jerk)
        rests = self._done + 1.0 >= ends[3]  # the last period ends at rest, but for rounding
        return jerk, (q, np.where(rests, 0.0, v), np.where(rests, 0.0, a))

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
        turns = (self._a * a < 0.0) & (self._a != a)
        crest = np.where(
            turns, self._v - 0.5 * self._a**2 * self.period / np.where(turns, a - self._a, 1.0), v
        )
        slowest = np.minimum(np.minimum(v, self._v), crest)
        fastest = np.maximum(np.maximum(v, self._v), crest)
        reverses = (slowest < 0.0) & (fastest > 0.0)
        fastest = np.maximum(fastest, -slowest)
        detour = np.where(reverses, 0.5 * self.period * fastest, 0.0)
        low = np.minimum(np.minimum(self._q, q) - detour, q + np.minimum(stop.end, stop.turn))
        high = np.maximum(np.maximum(self._q, q) + detour, q + np.maximum(stop.end, stop.turn))
        inside = (low >= self._lower) & (high <= self._upper)
        slow = np.logical_and(
            np.maximum(fastest, stop.peak) <= self._velocity, np.abs(a) <= self._acceleration
        )
        good: np.ndarray = np.logical_and(inside, slow)
        return good

    def _stays_inside(
        self,
        stop_jerk: np.ndarray,
        stop_steps: np.ndarray,
        state: Motion,
        done: np.ndarray,
    ) -> np.ndarray:
        """(B,) bool: the tool is inside the workspace at `state` and at every knot of the stops after it."""
        assert self._workspace is not None
        count = int((stop_steps.sum(axis=0) - done).clip(min=0).max())
        knots = sample_stop(stop_jerk, stop_steps, done, state, count, period=self.period)[0]
        path = np.concatenate([state[0][None], knots])
        return np.all(self._workspace.inside(path, inset=self._inset), axis=0)
