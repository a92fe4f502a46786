"""Rules about time: rate, jitter, gaps, order. They need stored timestamps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import EpisodeContext
from robot_datasets.checks.finding import Finding

TIME_FEATURES = ("timestamp", "observation.timestamp")
JITTER = 0.2
"""A step is off if its duration differs by more than this share from the median."""
JITTER_STEPS = 0.05
GAP = 3.0
RATE_ERROR = 0.02

_RESAMPLE = "resample the source to a fixed rate, or cut the episode there (robot-policies trim)"


def _durations(episode: EpisodeContext) -> tuple[str, np.ndarray]:
    """Return the time feature and the seconds between its steps, (T-1,); empty without one."""
    store = episode.parent.store
    for name in TIME_FEATURES:
        if name in store.spec.low_dim:
            times = store.column(name)[episode.start : episode.end].reshape(episode.n_steps, -1)[:, 0]
            return name, np.diff(times.astype(np.float64))
    return "", np.empty(0)


def time_order(episode: EpisodeContext) -> Iterator[Finding]:
    """Times that stand still or run backwards."""
    name, gaps = _durations(episode)
    bad = np.flatnonzero(gaps <= 0)
    if len(bad):
        yield Finding(
            code="time-order",
            severity="error",
            feature=name,
            number=len(bad),
            detail=f"time does not advance in {len(bad)} of {len(gaps)} steps, first at step {bad[0] + 1}",
            remedy="drop the repeated samples in the source, or drop the episode",
        )


def rate_jitter(episode: EpisodeContext) -> Iterator[Finding]:
    """Many steps that are shorter or longer than the others."""
    name, gaps = _durations(episode)
    if len(gaps) < 10 or (median := float(np.median(gaps))) <= 0:
        return
    off = float((np.abs(gaps - median) > JITTER * median).mean())
    if off > JITTER_STEPS:
        yield Finding(
            code="rate-jitter",
            severity="warning",
            feature=name,
            number=off,
            detail=f"{off:.0%} of the steps differ by more than {JITTER:.0%} from the median of {median * 1e3:.1f} ms",
            remedy=_RESAMPLE,
        )


def time_gap(episode: EpisodeContext) -> Iterator[Finding]:
    """Recording that stopped for a while."""
    name, gaps = _durations(episode)
    if len(gaps) < 10 or (median := float(np.median(gaps))) <= 0:
        return
    holes = np.flatnonzero(gaps > GAP * median)
    if len(holes):
        worst = int(np.argmax(gaps))
        yield Finding(
            code="time-gap",
            severity="warning",
            feature=name,
            number=float(gaps[worst]),
            detail=f"{len(holes)} gaps, the longest {gaps[worst]:.2f} s at step {worst + 1} (median {median:.3f} s)",
            remedy=_RESAMPLE,
        )


def rate_mismatch(episode: EpisodeContext) -> Iterator[Finding]:
    """A rate that is not the store's."""
    name, gaps = _durations(episode)
    if len(gaps) < 10 or (mean := float(gaps.mean())) <= 0:
        return
    error = abs(1 / mean - episode.fps) / episode.fps
    if error > RATE_ERROR:
        yield Finding(
            code="rate-mismatch",
            severity="warning",
            feature=name,
            number=1 / mean,
            detail=f"times tell {1 / mean:.2f} Hz, the store says {episode.fps:g} Hz",
            remedy="convert again with the true rate (--option fps=...)",
        )
