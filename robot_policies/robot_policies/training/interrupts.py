"""Stop requests: Ctrl-C and SIGTERM ask a run to save itself and end."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from robot_datasets.errors import UserError

logger = logging.getLogger(__name__)


class TrainingInterrupted(UserError):
    """A run was asked to stop, and has saved itself.

    Attributes:
        signum: The signal that asked.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


class StopRequest:
    """Context in which SIGINT and SIGTERM set `signum` instead of ending the process.

    A second signal acts as usual. Outside the main thread nothing is installed, as signals arrive there only.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        logger.warning("%s: saving a checkpoint, then stopping", signal.Signals(signum).name)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}
