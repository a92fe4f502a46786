"""Helpers for tests and benchmarks of this package: limits of a known arm, hostile targets, a simulated arm.

Nothing here is used by the running system.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.safety_filter import FilterStep
from robot_deploy.motion.tracking import Motion, Target
from robot_deploy.motion.workspace import ToolModel


@dataclass
class LimitAudit:
    """An independent check of executed motion: the cubic of every period, at its ends and in between.

    It knows nothing of the filter but the jerks that it commanded.

    Attributes:
        limits: The limits as the user gave them.
        period: Command period [s].
        violations: Counts by name; a value exactly at its limit is none.
        largest: Largest share of each limit that was used.
    """

    limits: MotionLimits
    period: float
    tool: ToolModel | None = None
    box: tuple[np.ndarray, np.ndarray] | None = None
    violations: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("position", "velocity", "acceleration", "jerk", "workspace", "continuity"), 0
        )
    )
    largest: dict[str, float] = field(default_factory=dict)

    def check(self, before: Motion, step: FilterStep, *, points: int = 8) -> None:
        """Check one period: from `before`, (B, n) each, with the step's jerk."""
        q0, v0, a0 = before
        tool_points: list[np.ndarray] = []
        q, v, a = q0, v0, a0
        for share in np.arange(1, points + 1) / points:
            t = share * self.period
            q = q0 + t * (v0 + t * (0.5 * a0 + t * step.jerk / 6.0))
            v = v0 + t * (a0 + 0.5 * t * step.jerk)
            a = a0 + t * step.jerk
            self._count("position", q < self.limits.lower)
            self._count("position", q > self.limits.upper)
            self._use("velocity", np.abs(v) / self.limits.velocity)
            self._use("acceleration", np.abs(a) / self.limits.acceleration)
            tool_points.append(q)
        self._use("jerk", np.abs(step.jerk) / self.limits.jerk)
        # A stop ends exactly at rest; its last period may be that much rounding away from the cubic.
        off = np.abs(q - step.position) + np.abs(v - step.velocity) + np.abs(a - step.acceleration)
        self._count("continuity", ~(off < 1e-9))
        if self.tool is not None and self.box is not None:
            path = self.tool.position(np.concatenate(tool_points))
            self._count("workspace", (path < self.box[0]) | (path > self.box[1]))

    def _count(self, name: str, bad: np.ndarray) -> None:
        self.violations[name] += int(np.count_nonzero(bad))

    def _use(self, name: str, share: np.ndarray) -> None:
        self._count(name, ~(share <= 1.0))
        self.largest[name] = max(self.largest.get(name, 0.0), float(np.max(share)))


class HostileTargets:
    """Targets of the worst kinds, a new kind for each filter every few periods.

    Kinds: noise of any size, jumps from limit to limit in resonance, ramps into a limit, speeds against the
    direction of the position, huge and tiny numbers, NaN and infinity, targets that repeat or alternate, and
    quiet ones in between, so that the others also start from rest.
    """

    KINDS = 8

    def __init__(self, limits: MotionLimits, *, batch: int, seed: int, with_nan: bool = True) -> None:
        """Seed the generator."""
        self._limits, self._shape = limits, (batch, len(limits))
        self._random = np.random.default_rng(seed)
        self._with_nan = with_nan
        self._lower = np.where(np.isfinite(limits.lower), limits.lower, -3.0)
        self._upper = np.where(np.isfinite(limits.upper), limits.upper, 3.0)
        self._count = 0
        self._renew(np.ones(batch, dtype=bool))

    def _renew(self, which: np.ndarray) -> None:
        random, shape = self._random, self._shape
        fresh = {
            "kind": random.integers(0, self.KINDS, (shape[0], 1)),
            "goal": random.uniform(self._lower, self._upper, shape),
            "beat": random.integers(1, 60, (shape[0], 1)),
            "size": 10.0 ** random.uniform(-3.0, 3.0, (shape[0], 1)),
        }
        if not hasattr(self, "_now"):
            self._now = fresh
        for name, values in fresh.items():
            self._now[name] = np.where(which[:, None], values, self._now[name])

    def next(self, state: Motion) -> Target:
        """The next target, for filters whose state (B, n) is known to the adversary."""
        random, limits, shape = self._random, self._limits, self._shape
        self._count += 1
        self._renew(random.random(shape[0]) < 0.02)
        kind, goal, beat, size = (self._now[k] for k in ("kind", "goal", "beat", "size"))
        flip = np.where((self._count // beat) % 2 == 0, 1.0, -1.0)
        noise = random.normal(size=shape)
        far = np.where(flip > 0.0, self._upper, self._lower)
        position = np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4, kind == 5, kind == 6],
            [noise * size, far, state[0] + flip * size, goal, 1e300 * noise, far + 1e-9 * flip, state[0]],
            goal,
        )
        velocity = np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4, kind == 6],
            [
                noise * size,
                flip * limits.velocity,
                flip * limits.velocity * size,
                -np.sign(goal - state[0]) * limits.velocity,
                noise * 1e300,
                state[1] * 1.5,
            ],
            np.zeros(shape),
        )
        acceleration = np.where(
            kind <= 4, flip * limits.acceleration * random.choice([0.0, 1.0, 5.0], shape), 0.0
        )
        if self._with_nan:
            bad = random.random(shape) < 1e-4
            position = np.where(bad, random.choice([np.nan, np.inf, -np.inf], shape), position)
        return Target(position, velocity, acceleration)
