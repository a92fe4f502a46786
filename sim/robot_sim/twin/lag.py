"""How far an arm is behind the twin that leads it, from the joints of both."""

from __future__ import annotations

from collections import deque

import numpy as np


class LagEstimator:
    """Finds the delay at which the twin's past joints agree best with the measured ones.

    Args:
        longest: Largest delay looked for [s].
        window: What is compared [s].
        least_motion: With less motion of the twin in the window the last estimate stands [rad].
    """

    def __init__(self, *, longest: float = 0.5, window: float = 1.0, least_motion: float = 0.02) -> None:
        self._longest_ns, self._window_ns = round(longest * 1e9), round(window * 1e9)
        self._least = least_motion
        self._twin: deque[tuple[int, np.ndarray]] = deque()
        self._arm: deque[tuple[int, np.ndarray]] = deque()
        self.lag_ns = 0

    def twin(self, time_ns: int, positions: np.ndarray) -> None:
        """Take the twin's joints (n,) [rad]."""
        self._twin.append((time_ns, positions))
        while self._twin[0][0] < time_ns - self._window_ns - self._longest_ns:
            self._twin.popleft()

    def arm(self, stamp_ns: int, positions: np.ndarray) -> None:
        """Take measured joints (n,) [rad]."""
        if not self._arm or stamp_ns > self._arm[-1][0]:
            self._arm.append((stamp_ns, positions))
        while self._arm[0][0] < stamp_ns - self._window_ns:
            self._arm.popleft()

    def update(self) -> int:
        """Look again; return the delay [ns]."""
        if len(self._twin) < 10 or len(self._arm) < 10:
            return self.lag_ns
        times = np.array([time for time, _ in self._twin], dtype=float)
        led = np.stack([positions for _, positions in self._twin])
        if np.ptp(led, axis=0).max() < self._least:
            return self.lag_ns
        stamps = np.array([stamp for stamp, _ in self._arm], dtype=float)
        measured = np.stack([positions for _, positions in self._arm])
        best = (np.inf, self.lag_ns)
        for lag_ns in range(0, self._longest_ns + 1, 10_000_000):
            there = stamps - lag_ns >= times[0]
            if there.sum() < 10:
                continue
            error = sum(
                np.square(np.interp(stamps[there] - lag_ns, times, led[:, i]) - measured[there, i]).mean()
                for i in range(led.shape[1])
            )
            best = min(best, (float(error), lag_ns))
        self.lag_ns = best[1]
        return self.lag_ns
