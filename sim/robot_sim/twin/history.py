"""Where a twin's bodies were a short while ago, and what corrections did since: late observations need both."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from robot_sim.twin.geometry import rotation_between, turned

Pose = tuple[np.ndarray, np.ndarray]


class PoseHistory:
    """Poses of bodies by time, and the sum of what corrections moved them by.

    Args:
        keep_ns: How long they are kept [ns].
    """

    def __init__(self, keep_ns: int = 1_500_000_000) -> None:
        self._keep_ns = keep_ns
        self._entries: deque[tuple[int, dict[str, Pose], dict[str, np.ndarray]]] = deque()

    def clear(self) -> None:
        """Forget everything, e.g. after a teleport."""
        self._entries.clear()

    def append(self, time_ns: int, poses: Mapping[str, Pose], moved: Mapping[str, np.ndarray]) -> None:
        """Remember poses at a time, and by how much (6,) corrections moved the bodies since the last one."""
        before = self._entries[-1][2] if self._entries else {}
        total = {name: before.get(name, np.zeros(6)) + moved.get(name, 0.0) for name in poses}
        self._entries.append((time_ns, dict(poses), total))
        while len(self._entries) > 2 and self._entries[1][0] < time_ns - self._keep_ns:
            self._entries.popleft()

    def teleported(self, body: str, pose: Pose, moved: np.ndarray) -> None:
        """Say that a body was put somewhere (moved by (6,)) at the time of the newest entry."""
        time_ns, poses, total = self._entries[-1]
        self._entries[-1] = (
            time_ns,
            {**poses, body: pose},
            {**total, body: total[body] + moved},
        )

    def at(self, time_ns: int, body: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return position, quaternion and the correction since then (6,) at a time; None if it is not covered."""
        if not self._entries or time_ns < self._entries[0][0]:
            return None
        newest = self._entries[-1]
        later = newest
        for entry in reversed(self._entries):
            if entry[0] <= time_ns:
                break
            later = entry
        else:
            return None
        span = later[0] - entry[0]
        share = 0.0 if span <= 0 else min(1.0, (time_ns - entry[0]) / span)
        (p0, q0), (p1, q1) = entry[1][body], later[1][body]
        total = entry[2][body] + share * (later[2][body] - entry[2][body])
        position = p0 + share * (p1 - p0)
        quaternion = turned(q0, share * rotation_between(q0, q1)) if share else q0
        return position, quaternion, newest[2][body] - total
