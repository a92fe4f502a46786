"""What a cell says to its twin, judged before the twin hears it.

A message that is not whole, not finite, too old, out of order, from the future, of other joints or in another frame is
refused and counted by its reason. What is good waits until the twin's time has reached its stamp. Nothing is filled in
but the velocities of joints, which many drivers leave out: see `robot_deploy.tracking.joint_speeds`.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np

from robot_deploy.observation.rings import Reason, SampleRing, SourceConfig
from robot_deploy.tracking.joint_speeds import JointSpeeds
from robot_sim.twin.cell import Cell
from robot_sim.twin.observed import ObservedJoints, ObservedPose, ObservedState

JOINTS = "joints"
WRONG_FRAME = "another frame"
NO_ROTATION = "quaternion of another length than 1"
FAR_OFF = "out of any range"
_FARTHEST = 10.0  # m: no cell is larger
_FASTEST = 100.0  # rad and rad/s: no joint turns so far or so fast
_UNIT = 0.01
_WAITING = 1000  # messages; older ones go when nobody fetches them


class CellListener:
    """See the module's docstring; may be used from several threads.

    Attributes:
        received: Messages by source, `JOINTS` or the name of an object.
        refused: Refused ones by source and reason.
        derived: Joint states whose velocities were made of their positions.
    """

    def __init__(
        self, cell: Cell, *, frame: str, joint_age_ms: float = 100.0, pose_age_ms: float = 1000.0
    ) -> None:
        """Have heard nothing.

        Args:
            cell: The cell.
            frame: Frame that poses of objects are in: the world frame of the cell file.
            joint_age_ms: Older joint states are refused [ms].
            pose_age_ms: Older poses are refused [ms].
        """
        self._frame, self._names = frame.lstrip("/"), cell.robot.joints
        columns = (*self._names, *map(_speed, self._names))
        self._columns = frozenset(columns)
        sources = {JOINTS: SourceConfig(kind="state", names=columns, max_age_ms=joint_age_ms)}
        sources |= {body: SourceConfig(kind="pose", max_age_ms=pose_age_ms) for body in cell.objects}
        self._rings = {name: SampleRing(source) for name, source in sources.items()}
        spread = np.repeat([cell.noise.position, cell.noise.angle], 3) ** 2
        self._covariance = np.diag(spread)
        self._waiting: list[ObservedState] = []
        self._lock = threading.Lock()
        self.received: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.derived = 0
        self._speeds = JointSpeeds(longest_s=joint_age_ms * 1e-3, fastest=_FASTEST)

    def joints(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float],
        *,
        stamp_ns: int,
        now_ns: int,
    ) -> str:
        """Take a joint state.

        Args:
            names: In any order; more than the cell's may be there.
            positions: [rad].
            velocities: [rad/s]; empty if the driver tells none.
            stamp_ns: When it was true [ns].
            now_ns: The same clock now [ns].

        Returns:
            Why it was refused, or "".
        """
        alone = not len(velocities)
        if alone:
            velocities = self._derived(names, positions, stamp_ns)
        values = np.concatenate([np.asarray(positions, dtype=float), np.asarray(velocities, dtype=float)])
        columns = (*names, *map(_speed, names))
        pairs = zip(values, columns, strict=False)  # of another length they are refused below
        mine = [
            value for value, column in pairs if column in self._columns
        ]  # a base's wheel may turn further
        far = any(np.isfinite(value) and abs(value) > _FASTEST for value in mine)
        n = len(self._names)
        with self._lock:
            reason = FAR_OFF if far else self._add(JOINTS, values, stamp_ns, now_ns, columns)
            if not reason:
                good = np.asarray(self._rings[JOINTS].newest)
                joints = ObservedJoints(positions=good[:n], velocities=good[n:])
                self._speeds.keep(good[:n], good[n:], stamp_ns)
                self.derived += alone
                self._keep(ObservedState(stamp_ns=stamp_ns, joints=joints))
        return self._told(JOINTS, reason)

    def pose(self, body: str, pose: Sequence[float], *, frame: str, stamp_ns: int, now_ns: int) -> str:
        """Take the pose of an object.

        Args:
            body: Its name in the cell file.
            pose: (7,) x, y, z [m] and quaternion xyzw, as on the wire.
            frame: Frame it is in.
            stamp_ns: When it was true [ns].
            now_ns: The same clock now [ns].

        Returns:
            Why it was refused, or "".
        """
        values = np.asarray(pose, dtype=float)
        reason = "" if frame.lstrip("/") == self._frame else WRONG_FRAME
        if not reason and np.isfinite(values).all():
            length = math.hypot(*values[3:])
            if abs(length - 1.0) > _UNIT:
                reason = NO_ROTATION
            elif np.abs(values[:3]).max() > _FARTHEST:
                reason = FAR_OFF
            else:
                values = np.concatenate([values[:3], values[3:] / length])
        with self._lock:
            reason = reason or self._add(body, values, stamp_ns, now_ns, ())
            if not reason:
                observed = ObservedPose(
                    position=values[:3], quaternion=values[[6, 3, 4, 5]], covariance=self._covariance
                )
                self._keep(ObservedState(stamp_ns=stamp_ns, objects={body: observed}))
        return self._told(body, reason)

    def fetch(self, until_ns: int) -> list[ObservedState]:
        """Return what is stamped up to a time [ns] and was not fetched yet, in order of arrival."""
        with self._lock:
            ripe = [message for message in self._waiting if message.stamp_ns <= until_ns]
            self._waiting = [message for message in self._waiting if message.stamp_ns > until_ns]
        return ripe

    def forget(self) -> None:
        """Forget all messages, after a jump of the clock; the counts stay."""
        with self._lock:
            self._waiting = []
            for ring in self._rings.values():
                ring.clear()
            self._speeds.forget()

    def _derived(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> list[float]:
        """Velocities in the message's order; zero for joints that are not the cell's."""
        speeds = dict.fromkeys(names, 0.0)
        place = dict(zip(names, positions, strict=False))
        if all(name in place for name in self._names):
            mine = np.array([place[name] for name in self._names], dtype=float)
            with self._lock:
                found = self._speeds.at(mine, stamp_ns)
            speeds |= dict(zip(self._names, found.tolist(), strict=True))
        return [speeds[name] for name in names]

    def _add(
        self, source: str, values: np.ndarray, stamp_ns: int, now_ns: int, names: tuple[str, ...]
    ) -> str:
        ring = self._rings[source]
        if stamp_ns > 0 and now_ns - stamp_ns > ring.config.max_age_ms * 1e6:
            return Reason.STALE.value
        reason = ring.add(values, stamp_ns=stamp_ns, now_ns=now_ns, names=names)
        return "" if reason is None else reason.value

    def _keep(self, message: ObservedState) -> None:
        self._waiting = [*self._waiting, message][-_WAITING:]

    def _told(self, source: str, reason: str) -> str:
        self.received[source] += 1
        if reason:
            self.refused[(source, reason)] += 1
        return reason


def _speed(joint: str) -> str:
    return f"velocity of {joint}"
