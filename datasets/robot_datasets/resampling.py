"""Samples taken at their own times, brought to one clock: the only place where streams of different rates meet.

Times are float64 seconds, or int64 nanoseconds, on one time axis; samples and clock alike. Seconds since 1970 leave a
resolution of 0.2 us; subtract the start first. Nanoseconds are exact, so the same samples and steps give the same
values to the bit, whatever the axis begins with: what a robot saw is what its recording is converted to. Nothing is
extrapolated and nothing is made up: a clock step for which a stream has no sample that is recent enough is an error,
and `sample_age` tells beforehand which steps these are.

=================  ====================================================  =====================================
policy             value at clock time c                                 age
=================  ====================================================  =====================================
``latest_before``  of the last sample at or before c                     c minus its time
``nearest``        of the sample closest to c; the earlier of two        distance to it
``linear``         on the line between the samples around c              distance to the farther of the two
``slerp``          on the shortest arc between the unit quaternions      distance to the farther of the two
                   around c
=================  ====================================================  =====================================

``latest_before`` is what a robot sees at run time; the other three look ahead. An angle that wraps must be
unwrapped before it is interpolated.
"""

from __future__ import annotations

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name

LATEST_BEFORE, NEAREST, LINEAR, SLERP = "latest_before", "nearest", "linear", "slerp"
POLICIES = (LATEST_BEFORE, NEAREST, LINEAR, SLERP)
SELECTING = (LATEST_BEFORE, NEAREST)
"""Policies that take one sample as it is, and so suit images and labels."""

_SMALL_ANGLE = 1e-6


class ResamplingError(DatasetError):
    """A stream has no usable sample for some clock step, or its times are no times."""


def uniform_clock(start: float, end: float, rate: float) -> np.ndarray:
    """Return ``start + k / rate`` for k = 0, 1, ... up to `end`, which is included if it is hit.

    Args:
        start: First time [s].
        end: No time is later than this [s], but for rounding.
        rate: Steps per second [Hz].

    Returns:
        (K,) float64 [s]; rounding does not add up. Empty if `end` is before `start`.

    Raises:
        ResamplingError: `rate` is not positive, or a bound is not finite.
    """
    if not (np.isfinite(rate) and rate > 0 and np.isfinite(start) and np.isfinite(end)):
        raise ResamplingError(
            f"a clock from {start:g} s to {end:g} s at {rate:g} Hz; expected finite bounds and a positive rate"
        )
    n_steps = int(np.floor((end - start) * rate + 1e-6)) + 1
    return start + np.arange(max(0, n_steps)) / rate


def uniform_clock_ns(start: int, end: int, rate: float) -> np.ndarray:
    """`uniform_clock` in whole nanoseconds: (K,) int64 [ns], each step rounded for itself.

    Args:
        start: First time [ns].
        end: No time is later than this [ns].
        rate: Steps per second [Hz].

    Raises:
        ResamplingError: `rate` is not positive.
    """
    clock = start + step_times_ns(np.arange(len(uniform_clock(0.0, (end - start) * 1e-9, rate)) + 1), rate)
    return clock[clock <= end]


def step_times_ns(steps: np.ndarray, rate: float) -> np.ndarray:
    """Return when steps (K,) of a rate [Hz] are, relative to step 0: (K,) int64 [ns]."""
    return np.rint(np.asarray(steps) * (1e9 / rate)).astype(np.int64)


def latest_before(times: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Return the index of the last sample at or before each clock time.

    Args:
        times: (N,) non-decreasing sample times, float64 [s] or int64 [ns].
        clock: (K,) times asked for, in the same unit, in any order.

    Returns:
        (K,) int64; -1 where there is no sample yet. Of samples of equal time, the last.

    Raises:
        ResamplingError: A time is not finite, or `times` decrease.
    """
    times, clock = _checked(times, clock)
    return np.searchsorted(times, clock, side="right").astype(np.int64) - 1


def nearest(times: np.ndarray, clock: np.ndarray) -> np.ndarray:
    """Return the index of the sample closest to each clock time, the earlier one if two are equally close.

    Takes and raises the same as `latest_before`; -1 only if there is no sample at all.
    """
    times, clock = _checked(times, clock)
    if not len(times):
        return np.full(len(clock), -1, dtype=np.int64)
    before = np.maximum(np.searchsorted(times, clock, side="right") - 1, 0)
    after = np.minimum(before + 1, len(times) - 1)
    closer = np.abs(times[after] - clock) < np.abs(clock - times[before])
    return np.where(closer, after, before).astype(np.int64)


def sample_age(times: np.ndarray, clock: np.ndarray, policy: str) -> np.ndarray:
    """Return how far the samples behind each value lie from its clock time, by the table above.

    Args:
        times: (N,) non-decreasing sample times, float64 [s] or int64 [ns].
        clock: (K,) times asked for, in the same unit.
        policy: One of `POLICIES`.

    Returns:
        (K,) float64 [s], never negative; infinite where the policy has no sample to go by.
    """
    return _rows(*_checked(times, clock), policy)[3]


def seconds(times: np.ndarray) -> np.ndarray:
    """Return times or differences of times, int64 [ns] or float64 [s], in seconds."""
    return times * 1e-9 if times.dtype.kind == "i" else times


def resample(
    times: np.ndarray, values: np.ndarray, clock: np.ndarray, *, policy: str, max_age: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Bring samples to a clock.

    Args:
        times: (N,) non-decreasing sample times, float64 [s] or int64 [ns].
        values: (N, ...) samples; for ``slerp`` (N, ..., 4) quaternions in either order of components.
        clock: (K,) times asked for, in the same unit.
        policy: One of `POLICIES`.
        max_age: Largest age allowed [s]; see `sample_age`.

    Returns:
        (K, ...) values and their (K,) ages [s]. A clock time that is a sample's gives that sample to the bit.
        Values keep their dtype; interpolated integers become float64.

    Raises:
        ResamplingError: A clock step has no sample, or an older one than allowed; the message names the first.
        DatasetError: `values` do not fit `times` or the policy.
    """
    values = np.asarray(values)
    if len(values) != len(times):
        raise DatasetError(f"{len(values)} values for {len(times)} times; expected one time each")
    before, after, weight, age = _rows(*_checked(times, clock), policy)
    stale = np.flatnonzero(~np.isfinite(age) | (age > max_age))
    if len(stale):
        first = stale[0]
        found = f"is {age[first]:.3f} s away" if np.isfinite(age[first]) else "does not exist"
        raise ResamplingError(
            f"{len(stale)} of {len(clock)} clock steps have no usable sample; at step {first} "
            f"({float(seconds(np.asarray(clock))[first]):.3f} s) "
            f"the {policy} one {found}, expected within {max_age:g} s"
        )
    if policy in SELECTING:
        return values[before], age
    between = _slerp if policy == SLERP else _lerp
    return between(values[before], values[after], weight), age


def _checked(times: np.ndarray, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times, clock = np.asarray(times), np.asarray(clock)
    whole = times.dtype == np.int64 and clock.dtype == np.int64
    if not whole:
        times, clock = times.astype(np.float64), clock.astype(np.float64)
    if times.ndim != 1 or clock.ndim != 1:
        raise ResamplingError(f"times of shape {times.shape}, clock {clock.shape}; expected one axis each")
    if not whole and not (np.isfinite(times).all() and np.isfinite(clock).all()):
        raise ResamplingError("a sample or clock time is NaN or infinite; expected seconds")
    if np.any(times[1:] < times[:-1]):
        row = int(np.flatnonzero(times[1:] < times[:-1])[0]) + 1
        raise ResamplingError(f"sample {row} is earlier than the one before it; sort the samples by time")
    return times, clock


def _rows(
    times: np.ndarray, clock: np.ndarray, policy: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what each value is made of: the rows before and after, the weight of the later one, and the age."""
    if policy in SELECTING:
        rows = latest_before(times, clock) if policy == LATEST_BEFORE else nearest(times, clock)
        return rows, rows, np.zeros(len(clock)), _distance(times, rows, clock)
    before, after, weight = _neighbours(times, clock, policy)
    age = np.maximum(_distance(times, before, clock), _distance(times, after, clock))
    return before, after, weight, age


def _distance(times: np.ndarray, rows: np.ndarray, clock: np.ndarray) -> np.ndarray:
    if not len(times):
        return np.full(len(clock), np.inf)
    return np.where(rows >= 0, seconds(np.abs(clock - times[rows])), np.inf)


def _neighbours(
    times: np.ndarray, clock: np.ndarray, policy: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows around each clock time, -1 where there is none, and the weight of the later one."""
    if policy not in POLICIES:
        raise DatasetError(unknown_name("resampling policy", policy, POLICIES))
    before = np.searchsorted(times, clock, side="right").astype(np.int64) - 1
    exact = (before >= 0) & (times[before] == clock) if len(times) else np.zeros(len(clock), bool)
    after = np.where(exact, before, before + 1)
    outside = (before < 0) | (after >= len(times))
    before, after = np.where(outside, -1, before), np.where(outside, -1, after)
    inside = ~outside & ~exact
    weight = np.zeros(len(clock))
    start, end = times[before[inside]], times[after[inside]]
    weight[inside] = (clock[inside] - start) / (end - start)
    return before, after, weight


def _lerp(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    dtype = first.dtype if first.dtype.kind == "f" else np.float64
    if first.dtype.kind not in "fiu":
        raise DatasetError(f"{first.dtype} values cannot be interpolated; use latest_before or nearest")
    weight = weight.reshape(-1, *[1] * (first.ndim - 1))
    mixed = (1.0 - weight) * first + weight * second
    return np.where(weight == 0.0, first, mixed).astype(dtype)  # a sample at the clock time stays as it is


def _slerp(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if first.ndim < 2 or first.shape[-1] != 4 or first.dtype.kind != "f":
        raise DatasetError(
            f"slerp of {first.dtype} values of shape {first.shape[1:]}; expected quaternions (..., 4)"
        )
    a, b = _unit(first), _unit(second)
    dot = np.sum(a * b, axis=-1, keepdims=True)
    b = np.where(dot < 0, -b, b)  # q and -q are one rotation; take the shorter way
    angle = np.arccos(np.clip(np.abs(dot), 0.0, 1.0))
    weight = weight.reshape(-1, *[1] * (first.ndim - 1))
    small = angle < _SMALL_ANGLE
    sine = np.sin(np.where(small, 1.0, angle))
    of_a = np.where(small, 1.0 - weight, np.sin((1.0 - weight) * angle) / sine)
    of_b = np.where(small, weight, np.sin(weight * angle) / sine)
    return np.where(weight == 0.0, first, _unit(of_a * a + of_b * b)).astype(first.dtype)


def _unit(quaternions: np.ndarray) -> np.ndarray:
    values = quaternions.astype(np.float64)
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    if np.any(~(norm > 0)):
        raise DatasetError("a quaternion has length 0 or NaN; expected a rotation")
    return values / norm
