"""Joint velocities for drivers that publish positions alone.

The difference of two positions over that of their stamps, through a first-order low-pass: an encoder's step of 0.1 mrad
is 10 mrad/s in a difference over 10 ms, and 4 mrad/s after the filter. The price is a lag of 20 ms at 100
Hz: an arm that speeds up by 5 rad/s² is taken to be 0.1 rad/s slower than it is. A twin uses velocities to continue
measured joints until the next message, so that is 1 mrad there.
"""

from __future__ import annotations

import math

import numpy as np

TIME_CONSTANT_S = 0.02


class JointSpeeds:
    """Velocities of joints from one accepted message to the next."""

    def __init__(self, *, longest_s: float, fastest: float) -> None:
        """Have heard nothing.

        Args:
            longest_s: After a longer pause velocities begin at zero again [s].
            fastest: A difference that is faster is a jump and no motion: velocities begin at zero again [rad/s].
        """
        self._longest_s, self._fastest = longest_s, fastest
        self.forget()

    def forget(self) -> None:
        """Begin anew, after a jump of the clock."""
        self._before: tuple[int, np.ndarray, np.ndarray] | None = None

    def at(self, positions: np.ndarray, stamp_ns: int) -> np.ndarray:
        """Return velocities (n,) [rad/s] of a message; zero for the first one. Nothing is remembered.

        Args:
            positions: (n,) [rad], always of the same joints in the same order.
            stamp_ns: When they were true [ns].
        """
        rest = np.zeros(len(positions))
        if self._before is None:
            return rest
        before_ns, before, speeds = self._before
        span = (stamp_ns - before_ns) * 1e-9
        if not 0.0 < span <= self._longest_s:
            return rest
        with np.errstate(over="ignore", invalid="ignore"):  # hostile numbers are refused by who asks
            now = (positions - before) / span
        if not np.all(np.abs(now) <= self._fastest):
            return rest
        return speeds + (1.0 - math.exp(-span / TIME_CONSTANT_S)) * (now - speeds)

    def keep(self, positions: np.ndarray, velocities: np.ndarray, stamp_ns: int) -> None:
        """Remember an accepted message: positions (n,) [rad], and the velocities (n,) it was given [rad/s]."""
        self._before = (stamp_ns, positions, velocities)
