"""Quantiles of the last few thousand times, for diagnostics; and a trace of every tick, for benchmarks."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np


class Times:
    """The last values of a duration [ms]."""

    def __init__(self, capacity: int = 6000) -> None:
        """Keep the last `capacity`."""
        self._values: deque[float] = deque(maxlen=capacity)

    def add(self, value: float) -> None:
        """Take a value [ms]."""
        self._values.append(value)

    def quantiles(self) -> dict[str, float]:
        """``p50``, ``p99`` and ``max`` [ms]; empty without values."""
        if not self._values:
            return {}
        values = np.array(self._values)
        p50, p99 = np.percentile(values, [50, 99])
        return {"p50": float(p50), "p99": float(p99), "max": float(values.max())}


class Trace:
    """Rows of what happened, one JSON object per line; written by `flush`, never by who adds them."""

    def __init__(self, path: str | Path | None) -> None:
        """Write to `path`, or nowhere.

        Raises:
            OSError: The file cannot be made.
        """
        self._rows: deque[dict[str, Any]] = deque(maxlen=100_000)
        self._file = None if not path else Path(path).open("w", encoding="utf-8")  # noqa: SIM115  (open as long as the node)

    def add(self, **row: Any) -> None:
        """Take a row."""
        if self._file is not None:
            self._rows.append(row)

    def flush(self) -> None:
        """Write what has come."""
        if self._file is None:
            return
        while self._rows:
            self._file.write(json.dumps(self._rows.popleft()) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write and close."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
