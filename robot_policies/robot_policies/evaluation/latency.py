"""How long a policy takes to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Percentiles of wall times.

    Attributes:
        n: Number of measurements.
        mean_ms: Mean [ms].
        p50_ms: Median [ms].
        p90_ms: 90th percentile [ms].
        p95_ms: 95th percentile [ms].
        p99_ms: 99th percentile [ms].
        max_ms: Largest [ms].
    """

    n: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    def to_dict(self) -> dict[str, float | int]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def summarise_latency(times_ms: Sequence[float] | np.ndarray) -> LatencySummary | None:
    """Summarise wall times [ms]; None if there are none."""
    times = np.asarray(times_ms, dtype=np.float64)
    if len(times) == 0:
        return None
    p50, p90, p95, p99 = (round(float(p), 3) for p in np.percentile(times, (50, 90, 95, 99)))
    return LatencySummary(
        n=len(times),
        mean_ms=round(float(times.mean()), 3),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=round(float(times.max()), 3),
    )
