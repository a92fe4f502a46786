"""What ros2_controllers do with a command, as far as a node can notice.

After ``joint_trajectory_controller`` (ros2_controllers, jazzy): a message replaces the trajectory; between points
positions are joined by lines, with velocities by cubics, with accelerations by quintics; a trajectory that has
ended, whose times do not increase, whose joints are others, or that ends with a velocity is rejected. Neither NaN
nor limits are checked. ``forward_command_controller`` latches the last finite command of the right size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot_deploy.motion.tracking import Motion


class Controller(Protocol):
    """Follows commands for some joints.

    Attributes:
        joints: Joint names, in order.
    """

    joints: tuple[str, ...]

    def hold(self, position: np.ndarray) -> None:
        """Forget all commands and stay at a position (n,)."""
        ...

    def path(self, times_ns: np.ndarray) -> Motion:
        """Wanted positions, velocities and accelerations (T, n) at times (T,) in the clock of the stamps [ns]."""
        ...


@dataclass
class JointTrajectoryController:
    """See the module's docstring.

    Attributes:
        joints: Joint names, in order.
        rejected: Why messages were rejected, the last few.
    """

    joints: tuple[str, ...]

    def __post_init__(self) -> None:
        self.rejected: list[str] = []
        self.hold(np.zeros(len(self.joints)))

    def hold(self, position: np.ndarray) -> None:
        """Forget the trajectory and stay at a position (n,)."""
        self._last: Motion = (position.copy(), np.zeros_like(position), np.zeros_like(position))
        self._times = np.empty(0, dtype=np.int64)

    def take(
        self,
        names: tuple[str, ...],
        start_ns: int,
        times_ns: np.ndarray,
        positions: np.ndarray,
        velocities: np.ndarray | None,
        accelerations: np.ndarray | None,
        *,
        now_ns: int,
    ) -> bool:
        """Replace the trajectory; False if the message is rejected.

        Args:
            names: Joint names, in any order.
            start_ns: Stamp of the header; 0 means now [ns].
            times_ns: (K,) times from the start [ns].
            positions: (K, n).
            velocities: (K, n) or None.
            accelerations: (K, n) or None.
            now_ns: The clock of the stamps [ns].
        """
        start_ns = start_ns or now_ns
        reason = self._reason(names, start_ns, times_ns, positions, velocities, now_ns)
        if reason:
            self.rejected = [*self.rejected[-20:], reason]
            return False
        order = [names.index(joint) for joint in self.joints]
        self._last = self.at(now_ns)
        self._from_ns = now_ns
        self._times = start_ns + times_ns
        rest = np.zeros((len(times_ns), len(order)))
        self._knots = [
            rest if part is None else part[:, order] for part in (positions, velocities, accelerations)
        ]
        self._degree = 1 if velocities is None else 3 if accelerations is None else 5
        return True

    def _reason(
        self,
        names: tuple[str, ...],
        start_ns: int,
        times_ns: np.ndarray,
        positions: np.ndarray,
        velocities: np.ndarray | None,
        now_ns: int,
    ) -> str:
        if sorted(names) != sorted(self.joints):
            return f"joints {list(names)}"
        if len(times_ns) == 0 or positions.shape != (len(times_ns), len(names)):
            return "empty, or positions of the wrong size"
        if np.any(np.diff(times_ns) <= 0):
            return "times do not increase"
        if start_ns + int(times_ns[-1]) < now_ns:
            return "ends in the past"
        if velocities is not None and np.any(velocities[-1] != 0.0):
            return "velocity at the end is not zero"
        return ""

    def path(self, times_ns: np.ndarray) -> Motion:
        """Wanted motion (T, n) at times (T,) [ns]; before the first point, from where the arm was wanted before."""
        if len(self._times) == 0:
            return tuple(np.repeat(part[None], len(times_ns), axis=0) for part in self._last)  # type: ignore[return-value]
        index = np.searchsorted(self._times, times_ns, side="right") - 1
        last = len(self._times) - 1
        begin = np.where(index < 0, self._from_ns, self._times[index.clip(0, last)])
        end = self._times[(index + 1).clip(0, last)]
        left, right = index.clip(0, last), (index + 1).clip(0, last)
        first = index[:, None] < 0
        start = [
            np.where(first, part, knots[left]) for part, knots in zip(self._last, self._knots, strict=True)
        ]
        target = [knots[right] for knots in self._knots]
        over = (index >= last)[:, None]
        span = np.where(over[:, 0], 1, np.maximum(end - begin, 1)) * 1e-9
        share = np.clip((times_ns - begin) * 1e-9 / span, 0.0, 1.0)
        q, v, a = _joined(start, target, span[:, None], share[:, None], self._degree)
        rest = np.zeros_like(q)
        return np.where(over, target[0], q), np.where(over, rest, v), np.where(over, rest, a)

    def at(self, now_ns: int) -> Motion:
        """Wanted motion (n,) at a time [ns]."""
        q, v, a = self.path(np.array([now_ns]))
        return q[0], v[0], a[0]


def _joined(
    start: list[np.ndarray], end: list[np.ndarray], span: np.ndarray, x: np.ndarray, degree: int
) -> Motion:
    """Polynomials (T, n) of degree 1, 3 or 5 at shares `x` (T, 1) of their spans (T, 1) [s]."""
    d = end[0] - start[0]
    w0, w1 = start[1] * span, end[1] * span
    if degree == 1:
        return start[0] + x * d, d / span, np.zeros_like(d)
    if degree == 3:
        c2, c3 = 3.0 * d - 2.0 * w0 - w1, w0 + w1 - 2.0 * d
        return (
            start[0] + x * (w0 + x * (c2 + x * c3)),
            (w0 + x * (2.0 * c2 + 3.0 * x * c3)) / span,
            (2.0 * c2 + 6.0 * x * c3) / span**2,
        )
    b0, b1 = start[2] * span**2, end[2] * span**2
    c2 = 0.5 * b0
    c3 = 10.0 * d - 6.0 * w0 - 4.0 * w1 - 1.5 * b0 + 0.5 * b1
    c4 = -15.0 * d + 8.0 * w0 + 7.0 * w1 + 1.5 * b0 - b1
    c5 = 6.0 * d - 3.0 * (w0 + w1) + 0.5 * (b1 - b0)
    return (
        start[0] + x * (w0 + x * (c2 + x * (c3 + x * (c4 + x * c5)))),
        (w0 + x * (2.0 * c2 + x * (3.0 * c3 + x * (4.0 * c4 + x * 5.0 * c5)))) / span,
        (2.0 * c2 + x * (6.0 * c3 + x * (12.0 * c4 + x * 20.0 * c5))) / span**2,
    )


@dataclass
class ForwardController:
    """Latches positions; see the module's docstring. On silence it stays where the last command was, for ever.

    Attributes:
        joints: Joint names, in order.
        rejected: Why messages were rejected, the last few.
    """

    joints: tuple[str, ...]

    def __post_init__(self) -> None:
        self.rejected: list[str] = []
        self.hold(np.zeros(len(self.joints)))

    def hold(self, position: np.ndarray) -> None:
        """Stay at a position (n,)."""
        self._position = position.copy()

    def take(self, values: np.ndarray) -> bool:
        """Latch a command (n,); False if it is of another size or not finite."""
        if values.shape != self._position.shape or not np.isfinite(values).all():
            reason = f"{values.size} numbers, expected {self._position.size} finite ones"
            self.rejected = [*self.rejected[-20:], reason]
            return False
        self._position = values.copy()
        return True

    def path(self, times_ns: np.ndarray) -> Motion:
        """The latched position (T, n), at rest."""
        q = np.repeat(self._position[None], len(times_ns), axis=0)
        return q, np.zeros_like(q), np.zeros_like(q)
