"""The rate of a LeRobot dataset, from three sources that often disagree: info.json, recorded times, videos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_datasets.errors import DatasetError

_TOLERANCE = 0.01
_UNITS = {1.0: "s", 1e3: "ms", 1e6: "us", 1e9: "ns"}
"""Counts per second of the units that times are recorded in."""


def choose_rate(
    declared: float, times: np.ndarray, video_rates: Sequence[float], warnings: list[str]
) -> float:
    """Return the declared rate unless the recorded times differ; then that of the times.

    Args:
        declared: What info.json says [Hz]; 0 if nothing.
        times: Recorded times of one episode, (T,); seconds, or another unit if the declared rate confirms it.
        video_rates: What the videos say [Hz].
        warnings: Takes the contradictions.

    Raises:
        DatasetError: There is neither a declared rate nor recorded times.
    """
    gaps = np.diff(times)
    typical = float(np.median(gaps)) if len(gaps) else 0.0
    recorded = 1 / typical if typical > 0 else 0.0
    if not declared and not recorded:
        raise DatasetError("the dataset tells no rate; give it in Hz with --option fps=30")
    for rate in video_rates:
        if declared and rate and not _close(rate, declared):
            warnings.append(f"info.json declares {declared:g} Hz, a video runs at {rate:g} Hz")
    if not recorded:
        if len(gaps):
            warnings.append("the column timestamp does not advance; the declared rate is used")
        return declared
    for counts, unit in _UNITS.items():
        if declared and _close(recorded * counts, declared):
            if unit != "s":
                warnings.append(f"the column timestamp is in {unit}, expected s; the rate fits nevertheless")
            return declared
    close = [rate for rate in video_rates if _close(rate, recorded)]
    chosen = round((close or [recorded])[0], 3)
    warnings.append(
        f"info.json declares {declared:g} Hz, the recorded times are {recorded:.4g} Hz apart; "
        f"{chosen:g} Hz is used, choose another rate with --option fps"
    )
    return chosen


def _close(rate: float, other: float) -> bool:
    return abs(rate - other) <= _TOLERANCE * other
