"""A bounded queue and a thread in front of a bag: callbacks never wait for a disk.

What does not fit into the queue is dropped and counted, by topic; it is never dropped silently, and the queue never
grows without end. A disk that is nearly full ends the recording while there is room to close it well; one that is full
leaves a file that is read up to its last whole chunk.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from robot_deploy.recording.bag_writer import BagWriter

_WAIT_S = 0.05


class RecorderState(str, Enum):
    """What a recorder is doing."""

    RECORDING = "recording"
    CLOSED = "closed"
    DISK_FULL = "disk full"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class RecorderLimits:
    """Bounds of a recorder.

    Attributes:
        queue_mb: Bytes that may wait to be written [MB]; more is dropped and counted.
        flush_s: Longest time that a message stays outside a finished chunk [s].
        min_free_mb: The recording ends when the disk has less than this left [MB].
    """

    queue_mb: float = 64.0
    flush_s: float = 1.0
    min_free_mb: float = 500.0


@dataclass(frozen=True, kw_only=True)
class RecorderStatus:
    """A moment of a recording.

    Attributes:
        state: What it is doing.
        reason: Why it ended, if it failed; "" otherwise.
        written: Messages in the bag by topic.
        dropped: Messages that found no room in the queue, or came after the end, by topic.
        bytes: Size of the file.
        waiting_bytes: Bytes in the queue.
        longest_write_s: Longest time that one batch took to write [s].
    """

    state: RecorderState
    reason: str
    written: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    waiting_bytes: int = 0
    longest_write_s: float = 0.0


class Recorder:
    """Takes messages from any thread and writes them in its own."""

    def __init__(
        self,
        bag: BagWriter,
        limits: RecorderLimits | None = None,
        *,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            bag: A bag whose topics are declared; from now on only the recorder writes to it.
            limits: Bounds.
            free_bytes: How much room a folder's disk has; for tests.
        """
        self._bag, self._limits = bag, limits or RecorderLimits()
        self._free = free_bytes or _free_bytes
        self._lock = threading.Condition()
        self._queue: deque[tuple[str, bytes, int]] = deque()
        self._waiting = 0
        self._state, self._reason = RecorderState.RECORDING, ""
        self._dropped: Counter[str] = Counter()
        self._longest = 0.0
        self._asked_to_end = False
        self._checked = -1.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, topic: str, data: bytes, *, log_ns: int) -> bool:
        """Hand over a message; never blocks for longer than another `offer`.

        Args:
            topic: A declared topic.
            data: CDR bytes.
            log_ns: When it was received [ns since 1970].

        Returns:
            Whether it was taken; otherwise it is counted as dropped.
        """
        with self._lock:
            room = self._limits.queue_mb * 1e6 - self._waiting
            if self._state is not RecorderState.RECORDING or self._asked_to_end or len(data) > room:
                self._dropped[topic] += 1
                return False
            self._queue.append((topic, data, log_ns))
            self._waiting += len(data)
            self._lock.notify()
        return True

    def status(self) -> RecorderStatus:
        """Say how it goes."""
        with self._lock:
            return RecorderStatus(
                state=self._state,
                reason=self._reason,
                written=self._bag.counts,
                dropped=dict(self._dropped),
                bytes=self._bag.size,
                waiting_bytes=self._waiting,
                longest_write_s=self._longest,
            )

    def close(self, timeout_s: float = 30.0) -> RecorderStatus:
        """Write what waits, close the bag, and say how it went; twice is once."""
        with self._lock:
            self._asked_to_end = True
            self._lock.notify()
        self._thread.join(timeout_s)
        return self.status()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._bag.close()
            self._end(RecorderState.CLOSED, "")
        except OSError as error:
            self._bag.abandon()
            self._end(
                RecorderState.FAILED, f"{error.strerror or error}; the bag is whole up to its last chunk"
            )
        except Exception as error:
            self._bag.abandon()
            self._end(RecorderState.FAILED, f"{type(error).__name__}: {error}")
            raise

    def _turn(self) -> bool:
        """Write one batch; False when it is time to close the bag."""
        with self._lock:
            if not self._queue and not self._asked_to_end:
                self._lock.wait(_WAIT_S)
            batch, self._queue = self._queue, deque()
            ending = self._asked_to_end and not batch
        began = time.monotonic()
        taken = self._write(batch)
        since = self._bag.unflushed_since
        if since is not None and time.monotonic() - since > self._limits.flush_s:
            self._bag.flush()
        with self._lock:
            self._waiting -= taken
            self._longest = max(self._longest, time.monotonic() - began)
        return not ending and self._room_left()

    def _write(self, batch: deque[tuple[str, bytes, int]]) -> int:
        """Write a batch and return its bytes; what an error leaves of it goes back, to be counted as dropped."""
        taken = 0
        try:
            while batch:
                topic, data, log_ns = batch[0]
                self._bag.write(topic, data, log_ns=log_ns)
                taken += len(data)
                batch.popleft()
        finally:
            if batch:
                with self._lock:
                    self._queue.extendleft(reversed(batch))
        return taken

    def _room_left(self) -> bool:
        if time.monotonic() - self._checked < 1.0:
            return True
        self._checked = time.monotonic()
        free = self._free(self._bag.folder)
        if free >= self._limits.min_free_mb * 1e6:
            return True
        self._bag.close()
        self._end(
            RecorderState.DISK_FULL,
            f"{free / 1e6:.0f} MB left on the disk, min_free_mb is {self._limits.min_free_mb:g}; free some space",
        )
        return False

    def _end(self, state: RecorderState, reason: str) -> None:
        with self._lock:
            if self._state is RecorderState.RECORDING:
                self._state, self._reason = state, reason
            for topic, _, _ in self._queue:
                self._dropped[topic] += 1
            self._queue.clear()
            self._waiting = 0


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
