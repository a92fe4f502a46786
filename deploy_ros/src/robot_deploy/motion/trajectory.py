r"""What is sent: a few periods of verified motion, then the verified stop.

Commands are computed a fixed number of periods ahead ("lead"), so that a message that is a little late changes
nothing. Every message holds the motion from now to the end of the lead and the stop after it::

    now
     |--- lead ---|--- stop, velocity 0 at the end ---|
     o----o----o--o----o----o----o----o----o----o-----o    knots, one command period apart

If no further message comes, the receiver executes the stop: silence is a smooth stop, whatever became of the
sender. Knots lie on one grid of times and consecutive messages agree on the part that is going to be executed,
so a receiver that replaces one by the next sees no step in position, velocity or acceleration. Within a period the
motion is a cubic per joint: interpolating positions and velocities gives exactly the verified motion.

A stop on request starts from the present, not from the end of the lead: the stop of every knot of the lead is
kept, and `CommittedPlan.cut` goes back to the earliest of them that can still be changed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from robot_deploy.motion.limits import LimitsError
from robot_deploy.motion.safety_filter import FilterStep, SafetyFilter
from robot_deploy.motion.small_arrays import rests
from robot_deploy.motion.tracking import Motion, Target


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Knots of a motion; the last one is at rest.

    Attributes:
        names: (n) joint names.
        start_ns: Monotonic time of knot 0 [ns]: a knot that is being left or has just been left.
        period_ns: Time between knots [ns].
        positions: (K, n) [rad or m].
        velocities: (K, n) [rad/s or m/s].
        accelerations: (K, n) [rad/s² or m/s²].
    """

    names: tuple[str, ...]
    start_ns: int
    period_ns: int
    positions: np.ndarray
    velocities: np.ndarray
    accelerations: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, names: tuple[str, ...]) -> Trajectory:
        """Return the motion of some joints, in their order, for a controller that has only these."""
        index = [self.names.index(name) for name in names]
        return Trajectory(
            names,
            self.start_ns,
            self.period_ns,
            self.positions[:, index],
            self.velocities[:, index],
            self.accelerations[:, index],
        )

    def at(self, time_ns: int) -> Motion:
        """Position, velocity and acceleration (n,) at a time, as a controller interpolates positions and velocities.

        Before the first knot and after the last one, those knots' positions at rest.
        """
        last = len(self) - 1
        index, rest_ns = divmod(time_ns - self.start_ns, self.period_ns)
        if index < 0 or index >= last:
            zero = np.zeros(len(self.names))
            return self.positions[0 if index < 0 else last], zero, zero
        t, x = self.period_ns * 1e-9, rest_ns / self.period_ns
        q0, q1 = self.positions[index], self.positions[index + 1]
        w0, w1 = self.velocities[index] * t, self.velocities[index + 1] * t
        c2, c3 = 3.0 * (q1 - q0) - 2.0 * w0 - w1, w0 + w1 - 2.0 * (q1 - q0)
        return (
            q0 + x * (w0 + x * (c2 + x * c3)),
            (w0 + x * (2.0 * c2 + 3.0 * x * c3)) / t,
            (2.0 * c2 + 6.0 * x * c3) / t**2,
        )


class CommittedPlan:
    """The knots from now to the end of the lead, each with its verified stop."""

    def __init__(self, safety: SafetyFilter, *, period_ns: int, lead: int, waits: bool = False) -> None:
        """Wrap the filter of one robot.

        Args:
            safety: A filter of batch 1 and the same period; from now on only the plan steps it.
            period_ns: Command period [ns].
            lead: Periods computed ahead, at least 1.
            waits: The receiver gets one point at a time and keeps the last one, so it did not move on while nothing
                was sent: `now` takes a gap for one period, and the motion goes on where the receiver stands.

        Raises:
            LimitsError: `lead` is below 1, or the periods differ.
        """
        if lead < 1 or abs(safety.period - period_ns * 1e-9) > 1e-12:
            raise LimitsError(
                f"lead {lead} and period {period_ns} ns; expected at least 1, and the filter's {safety.period:g} s"
            )
        self._safety, self._period_ns, self._lead, self._waits = safety, period_ns, lead, waits
        self._knots: deque[tuple[np.ndarray, ...]] = deque()
        self._index = 0  # grid index of the first knot kept
        self._origin_ns, self._asked_ns = 0, 0

    @property
    def head(self) -> int:
        """Grid index of the last knot computed."""
        return self._index + len(self._knots) - 1

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves from the present knot on."""
        return all(rests(knot[1]) and rests(knot[2]) for knot in self._knots)

    @property
    def commanded(self) -> np.ndarray:
        """(n,) position of the present knot."""
        return self._knots[0][0][0].copy()

    @property
    def motion(self) -> Motion:
        """Position, velocity and acceleration, (n,) each, at the head."""
        q, v, a = self._safety.state
        return q[0], v[0], a[0]

    def start(self, position: np.ndarray, now_ns: int) -> None:
        """Begin at rest at a measured position (n,); the present knot gets grid index 0.

        Raises:
            LimitsError: The position is outside the limits or the workspace.
        """
        self._safety.reset(position)
        self._origin_ns, self._asked_ns, self._index = now_ns, now_ns, 0
        self._knots = deque([self._safety.snapshot()])

    def now(self, now_ns: int) -> int:
        """Forget knots that are over and return the grid index of the present one."""
        late_ns = now_ns - self._asked_ns - self._period_ns
        if self._waits and late_ns > self._period_ns // 2:  # less is jitter
            self._origin_ns += late_ns
        self._asked_ns = now_ns
        present = (now_ns - self._origin_ns) // self._period_ns
        while self._index < present:
            if len(self._knots) == 1:
                if self._safety.at_rest[0]:
                    self._index = present
                    break
                self._safety.step(None)  # what the receiver did meanwhile: it executed the stop
                self._knots.append(self._safety.snapshot())
            self._knots.popleft()
            self._index += 1
        return self._index

    def wanted(self) -> int:
        """How many knots are missing to the full lead."""
        return max(0, self._index + self._lead - self.head)

    def extend(self, target: Target | None, measured: np.ndarray | None = None) -> FilterStep:
        """Compute one more knot; see `SafetyFilter.step`."""
        step = self._safety.step(target, measured)
        self._knots.append(self._safety.snapshot())
        return step

    def cut(self, after: int = 1) -> None:
        """Drop all knots but the present one and the next ones.

        Args:
            after: How many of the next ones stay: the receiver is on its way to the first of them, and may be past
                it when the message comes.
        """
        while len(self._knots) > after + 1:
            self._knots.pop()
        self._safety.restore(self._knots[-1])

    def trajectory(self) -> Trajectory:
        """The message: from the present knot to rest."""
        tail = self._safety.stop_knots()
        q, v, a = (np.concatenate([*(knot[i] for knot in self._knots), tail[i][:, 0]]) for i in range(3))
        return Trajectory(
            self._safety.limits.names,
            self._origin_ns + self._index * self._period_ns,
            self._period_ns,
            q,
            v,
            a,
        )
