"""A judge of what an arm was told to do, every millisecond, that shares nothing with the node but the limits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.tracking import Motion

_SLACK = 1.0 + 1e-6
_STILL = 1e-6  # rad/s
_REMEMBERED = 100


@dataclass
class CommandAudit:
    """Watches the commanded motion of all joints.

    Jerk is the change of the commanded acceleration from one sample to the next, over the time between them; where
    a message replaces the motion within a sample, that is the honest figure, too.

    Attributes:
        limits: The robot's limits as published, without margin.
        hold_s: How long a position stands until the next one comes, where positions are latched: a step may be what
            the velocity limit allows in that time [s]. 0 where the commanded motion is continuous.
        violations: Samples beyond a limit, by kind; NaN counts as each of them.
        largest: Largest share of each limit that was commanded.
        moving_ns: Monotonic time of the last sample with a commanded speed, or at another position than before [ns].
        samples: Samples seen.
        when: Monotonic times [ns] and kinds of the first violations.
    """

    limits: MotionLimits
    hold_s: float = 0.0
    violations: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("position", "velocity", "acceleration", "jerk", "step"), 0)
    )
    largest: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("velocity", "acceleration", "jerk"), 0.0)
    )
    moving_ns: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        self._before: tuple[int, Motion] | None = None
        self.when: list[tuple[int, str]] = []

    def forget(self) -> None:
        """The arm was put somewhere else: the next sample is compared with nothing."""
        self._before = None

    def look(self, times_ns: np.ndarray, motion: Motion) -> None:
        """Take the commanded motion (T, n) at monotonic times (T,) that follow the ones before [ns]."""
        if len(times_ns) == 0:
            return
        q, v, a = motion
        limits, self._now_ns = self.limits, int(times_ns[-1])
        self.samples += len(times_ns)
        self._count("position", ~((q >= limits.lower) & (q <= limits.upper)))
        self._share("velocity", np.abs(v) / limits.velocity)
        self._share("acceleration", np.abs(a) / limits.acceleration)
        times = times_ns
        if self._before is not None:
            before_ns, before = self._before
            times = np.concatenate([[before_ns], times_ns])
            q, a = np.concatenate([before[0][None], q]), np.concatenate([before[2][None], a])
        span = (np.diff(times) * 1e-9)[:, None]
        self._share("jerk", np.abs(np.diff(a, axis=0)) / span / limits.jerk)
        step = np.abs(np.diff(q, axis=0))
        self._count("step", ~(step <= limits.velocity * (span + self.hold_s) * _SLACK + 1e-9))
        self._before = (int(times_ns[-1]), (motion[0][-1], motion[1][-1], motion[2][-1]))
        still = np.all(np.abs(v) <= _STILL, axis=1)
        if len(step):  # latched positions move without a commanded speed
            still[-len(step) :] &= np.all(step <= _STILL * span, axis=1)
        if not still.all():
            self.moving_ns = int(times_ns[np.flatnonzero(~still)[-1]])

    def _count(self, name: str, bad: np.ndarray) -> None:
        found = int(np.count_nonzero(bad))
        self.violations[name] += found
        if found and len(self.when) < _REMEMBERED:
            self.when.append((self._now_ns, name))

    def _share(self, name: str, share: np.ndarray) -> None:
        if not len(share):
            return
        self._count(name, ~(share <= _SLACK))
        largest = float(np.max(share))
        if not largest <= self.largest[name]:  # a NaN is remembered
            self.largest[name] = largest
