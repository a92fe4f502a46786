"""From actions at the policy's rate to targets at the command rate.

An action is where the joints should be when its control step is over. One segment is laid at a time, from the
motion that is really commanded to that action; so a new chunk, a late one, or a motion that the safety filter
had to weaken is continued in position, velocity and acceleration without being a special case, and no error is
carried along.

Knot velocities are the harmonic mean of the slopes before and after, and 0 where they differ in sign (Fritsch
and Carlson, "Monotone Piecewise Cubic Interpolation", SIAM J. Numer. Anal. 17, 1980): between actions there is
no overshoot that the policy did not ask for, once the knots' own velocities follow this rule.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from robot_deploy.motion.tracking import Motion, Target

Interpolation = Literal["cubic", "quintic"]
_DEGREES = np.arange(6.0)  # of the terms of a quintic


def knot_velocity(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the velocity at a knot from the mean velocities before and after it, (n,) each."""
    same = before * after > 0.0
    total = np.where(same, before + after, 1.0)
    return np.where(same, 2.0 * before * after / total, 0.0)


class Segment:
    """A polynomial motion of given length: cubic (C1 at its ends) or quintic (C2)."""

    def __init__(
        self, start: Motion, end: Motion, *, duration: float, interpolation: Interpolation = "quintic"
    ) -> None:
        """Fit the polynomial.

        Args:
            start: Position, velocity and acceleration at time 0, (n,) each.
            end: The same at `duration`; a cubic ignores both accelerations.
            duration: Length [s].
            interpolation: Degree.
        """
        self.duration = duration
        (q0, v0, a0), (q1, v1, a1) = start, end
        t = duration
        d, w0, w1 = q1 - q0, v0 * t, v1 * t
        if interpolation == "cubic":
            powers = [q0, w0, 3.0 * d - 2.0 * w0 - w1, w0 + w1 - 2.0 * d]
        else:
            b0, b1 = a0 * t * t, a1 * t * t
            powers = [
                q0,
                w0,
                0.5 * b0,
                10.0 * d - 6.0 * w0 - 4.0 * w1 - 1.5 * b0 + 0.5 * b1,
                -15.0 * d + 8.0 * w0 + 7.0 * w1 + 1.5 * b0 - b1,
                6.0 * d - 3.0 * (w0 + w1) + 0.5 * (b1 - b0),
            ]
        self._powers = np.array(powers)
        degree = _DEGREES[: len(powers), None]
        self._slopes = (self._powers * degree)[1:] / t
        self._bends = (self._slopes * degree[:-1])[1:] / t

    def at(self, time: float) -> Motion:
        """Position, velocity and acceleration at a time within [0, duration]; after it, the end goes on."""
        x = min(max(time, 0.0), self.duration) / self.duration
        powers = x ** _DEGREES[: len(self._powers)]
        q, v, a = (np.dot(powers[: len(c)], c) for c in (self._powers, self._slopes, self._bends))
        return (q + v * (time - self.duration), v, np.zeros_like(a)) if time > self.duration else (q, v, a)


class ActionReference:
    """Targets between the actions of a policy."""

    def __init__(
        self,
        *,
        step_time: float,
        command: Literal["position", "velocity"] = "position",
        interpolation: Interpolation = "quintic",
    ) -> None:
        """Wait for the first action.

        Args:
            step_time: Length of the policy's control step [s].
            command: What an action is: an absolute position [rad or m], or a velocity [rad/s or m/s].
            interpolation: Degree of the segments of positions; velocities are joined by straight lines.
        """
        self._step_time = step_time
        self._command = command
        self._interpolation: Interpolation = interpolation
        self._segment: Segment | None = None

    def begin(
        self, now: Motion, action: np.ndarray, following: np.ndarray | None, *, duration: float | None = None
    ) -> None:
        """Lay the segment of one control step, or of what is left of it.

        Args:
            now: Commanded position, velocity and acceleration, (n,) each.
            action: (n,) the step's action.
            following: (n,) the next step's action if the plan has one; None ends the step with velocity 0.
            duration: Time until the step is over [s]; None takes a whole step.
        """
        duration = self._step_time if duration is None else duration
        self._segment = self._laid(now, action, following, duration)

    def _laid(
        self, now: Motion, action: np.ndarray, following: np.ndarray | None, duration: float
    ) -> Segment:
        zero = np.zeros_like(action)
        if self._command == "velocity":  # integrate the line from the present velocity to the action
            rise = (action - now[1]) / duration
            end = now[0] + 0.5 * (now[1] + action) * duration
            return Segment(
                (now[0], now[1], rise), (end, action, rise), duration=duration, interpolation="cubic"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # hostile numbers are the filter's business
            end_velocity = zero
            if following is not None:
                end_velocity = knot_velocity(
                    (action - now[0]) / duration, (following - action) / self._step_time
                )
            return Segment(
                now, (action, end_velocity, zero), duration=duration, interpolation=self._interpolation
            )

    def end(self) -> None:
        """Forget the segment: there is no target until the next `begin`."""
        self._segment = None

    def target(self, time: float) -> Target | None:
        """The target, (1, n) arrays, at a time [s] since `begin`; None without a segment."""
        if self._segment is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            q, v, a = self._segment.at(time)
        return Target(None if self._command == "velocity" else q[None], v[None], a[None])
