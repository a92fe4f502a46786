"""One clock for the simulated recordings of RoboMIND 1.x, whose arrays have different lengths and rates in one file.

The steps of an episode are the colour frames of its first camera. ``sim_time_seq`` gives their times if it has a whole
number of entries per frame, else their first and last. No array but the frames has times of its own, so where
its rows lie is an assumption, which the option ``alignment`` names:

``span``
    Every array covers the same time: its first and last rows belong to the first and last frames.
``start``
    Every array begins with the first frame and has the next whole number of rows per frame (the states of the
    simulated Franka: four); rows beyond the last frame are dropped.

Each step then takes one row of each array as it is, by the policy of `robot_datasets.resampling` that the option
``resampling`` names. Nothing is interpolated, and a step without a row nearby is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.resampling import resample

ALIGNMENTS = ("span", "start")
_FARTHEST_ROW = 1.5
_GAP = 1.5


@dataclass(frozen=True)
class CameraClock:
    """When the steps of an episode were.

    Attributes:
        times: (K,) time of each colour frame [s].
        measured: Whether the file told them; else they are counted at an assumed rate.
    """

    times: np.ndarray
    measured: bool

    @property
    def rate(self) -> float:
        """Mean rate [Hz]; 0 for a single frame."""
        span = float(self.times[-1] - self.times[0]) if len(self.times) else 0.0
        return (len(self.times) - 1) / span if span > 0 else 0.0

    @property
    def longest_gap(self) -> float:
        """Longest time between frames over the median one; 1 for an even clock."""
        steps = np.diff(self.times)
        median = float(np.median(steps)) if len(steps) else 0.0
        return float(steps.max()) / median if median > 0 else 1.0

    def rows(self, n_rows: int, alignment: str, resampling: str, name: str) -> np.ndarray:
        """Return which row of an array of `n_rows` belongs to each step, (K,) int64.

        Raises:
            EpisodeError: A step has no row nearby.
        """
        if n_rows < 1 or not len(self.times):
            raise EpisodeError(
                f"{name} has {n_rows} rows for {len(self.times)} frames; expected at least one each"
            )
        start, end = self.times[0], self.times[-1]
        period = (end - start) / max(1, len(self.times) - 1)
        if alignment == "span":
            times = np.linspace(start, end, n_rows)
        else:
            times = start + np.arange(n_rows) * period / max(1, round(n_rows / len(self.times)))
        rows, age = resample(times, np.arange(n_rows), self.times, policy=resampling)
        if len(self.times) > 1 and age.max() > _FARTHEST_ROW * period:
            raise EpisodeError(
                f"{name}: its {n_rows} rows end {age.max():.2f} s away from the last of {len(self.times)} frames with "
                f"alignment={alignment}; use --option alignment=span"
            )
        return rows


def camera_clock(n_frames: int, sim_time: np.ndarray | None, assumed_rate: float) -> CameraClock:
    """Return the clock of `n_frames` colour frames.

    Args:
        n_frames: Frames of the first camera.
        sim_time: ``sim_time_seq`` (M,) [s], if the file has it.
        assumed_rate: Rate [Hz] if the file does not tell the times.
    """
    times = None if sim_time is None else np.asarray(sim_time, dtype=np.float64).reshape(-1)
    if times is None or len(times) < 2 or not np.isfinite(times).all() or np.any(np.diff(times) < 0):
        return CameraClock(np.arange(n_frames) / assumed_rate, measured=False)
    if times[-1] <= times[0] or n_frames < 2:
        return CameraClock(np.arange(n_frames) / assumed_rate, measured=False)
    per_frame, rest = divmod(len(times), n_frames)
    if per_frame and not rest:
        return CameraClock(times[::per_frame], measured=True)
    return CameraClock(np.linspace(times[0], times[-1], n_frames), measured=True)


def clock_warnings(clock: CameraClock, fps: float) -> list[str]:
    """Say what is odd about a clock in a store of `fps`."""
    if not clock.measured:
        return [f"sim_time_seq is missing or does not advance; {fps:g} Hz is assumed"]
    warnings = []
    if clock.rate and abs(clock.rate / fps - 1) > 0.1:
        warnings.append(f"sim_time_seq: frames come at {clock.rate:.1f} Hz, the store's rate is {fps:g} Hz")
    if clock.longest_gap > _GAP:
        warnings.append(
            f"sim_time_seq: the longest time between two frames is {clock.longest_gap:.1f} times the median"
        )
    return warnings


def length_warnings_of(lengths: Mapping[str, int], typical: int, share: float) -> list[str]:
    """Compare the lengths of arrays that cover the same time.

    Args:
        lengths: Key -> rows.
        typical: Rows that they should have.
        share: By how much of it they may differ; two rows are always allowed.

    Returns:
        A warning if they are not all equal.

    Raises:
        EpisodeError: One is far off; it cannot cover the same time.
    """
    far = {key: n for key, n in lengths.items() if abs(n - typical) > max(2.0, share * typical)}
    if far:
        listed = ", ".join(f"{key} {n}" for key, n in sorted(far.items()))
        raise EpisodeError(
            f"arrays differ too much in length to cover the same time: {listed}, where {typical} are usual; "
            "copy the file again"
        )
    if set(lengths.values()) <= {typical}:
        return []
    odd = min((key for key, n in lengths.items() if n != typical), key=str)
    return [f"{odd}: {lengths[odd]} rows where {typical} are usual; brought to the clock of the frames"]
