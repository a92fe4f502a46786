"""How fast a RoboMIND 2.0 recording ran, from the times of its frames, which are coarse and sometimes jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.episode import Segment

_UNITS = (1.0, 1e-3, 1e-6, 1e-9)
_SLOWEST, _FASTEST = 1.0, 250.0


@dataclass(frozen=True)
class FrameRate:
    """A measured rate.

    Attributes:
        rate: Frames per second [Hz].
        uncertainty: How far off it may be, relative, because the times are whole seconds.
        jumps: How often the times go backwards.
    """

    rate: float
    uncertainty: float
    jumps: int


def frame_rate(stamps: np.ndarray) -> FrameRate | None:
    """Measure the rate of frames.

    Times are whole seconds (real robots: most steps are 0, some 1) or milliseconds (simulated, with jumps backwards);
    the unit is the one that gives a rate from 1 to 250 Hz, which is never true of two. Whole seconds are
    counted from one change of the second to another, where the error is a frame and not a second.

    Args:
        stamps: (T,) times in an unknown unit.

    Returns:
        The rate, or None if the times do not tell it: fewer than two, not finite, or they do not advance.
    """
    times = np.asarray(stamps, dtype=np.float64).reshape(-1)
    if len(times) < 2 or not np.isfinite(times).all():
        return None
    steps = np.diff(times)
    jumps = int((steps < 0).sum())
    changes = np.flatnonzero(steps > 0)
    if not len(changes):
        return None
    if jumps == 0 and len(changes) > 1:
        frames = int(changes[-1] - changes[0])
        elapsed = float(times[changes[-1] + 1] - times[changes[0] + 1])
    else:  # leave out what jumps
        frames, elapsed = int((steps >= 0).sum()), float(steps[changes].sum())
    per_tick = frames / elapsed
    unit = next((u for u in _UNITS if _SLOWEST <= per_tick / u <= _FASTEST), None)
    if unit is None:
        return None
    coarse = len(changes) < len(steps) - jumps
    return FrameRate(
        per_tick / unit, 1.0 / frames if coarse and len(changes) > 1 else 1.0 / len(changes), jumps
    )


def median_rate(rates: Sequence[float]) -> float:
    """Return the median [Hz]: the whole number if it is within a thousandth of it, else rounded to 1 mHz.

    Of two in the middle it is the lower one, a rate that was measured: their mean might be far from both.
    """
    median = float(sorted(rates)[(len(rates) - 1) // 2])
    return float(round(median)) if abs(median - round(median)) < 1e-3 * median else round(median, 3)


def interventions(flags: np.ndarray, n_steps: int) -> list[Segment]:
    """Return the stretches in which a human took over, cut to the first `n_steps`."""
    active = np.asarray(flags).reshape(-1)[:n_steps].astype(bool)
    edges = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        Segment(int(a), int(b), "intervention", "a human takes over")
        for a, b in zip(starts, ends, strict=True)
    ]
