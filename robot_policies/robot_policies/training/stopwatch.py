"""CPU and wall time of training proper."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Counts CPU time of the whole process (all threads) and wall time, with pauses.

    Args:
        cpu_seconds: CPU time already spent, by the run that is continued [s].
        wall_seconds: Wall time of the same [s].
    """

    def __init__(self, cpu_seconds: float = 0.0, wall_seconds: float = 0.0) -> None:
        self._cpu = cpu_seconds - time.process_time()
        self._wall = wall_seconds - time.monotonic()

    def read(self) -> tuple[float, float]:
        """CPU and wall seconds so far."""
        return self._cpu + time.process_time(), self._wall + time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside out."""
        cpu, wall = self.read()
        try:
            yield
        finally:
            self._cpu = cpu - time.process_time()
            self._wall = wall - time.monotonic()
