"""What can go wrong between a sensor and a subscriber: the drill asks the surrogate for it by name."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError

STATE_FAULTS = (
    "states_dropped",
    "states_nan",
    "states_frozen",
    "states_late",
    "states_reordered",
    "states_missing_joint",
    "states_zero_stamp",
)
IMAGE_FAULTS = ("images_dropped", "images_frozen", "images_black", "images_late")
FAULTS = ("none", *STATE_FAULTS, *IMAGE_FAULTS, "pose_dropped")
_LATE_NS = 400_000_000
_REORDERED = 8  # messages


@dataclass
class SensorFaults:
    """Applies the present fault to outgoing messages.

    Attributes:
        name: The present fault, out of `FAULTS`.
    """

    name: str = "none"
    _kept: Any = None
    _queue: deque[Any] = field(default_factory=deque)

    def choose(self, name: str) -> None:
        """Switch to a fault.

        Raises:
            ConfigError: There is no such fault.
        """
        if name not in FAULTS:
            raise ConfigError(unknown_name("fault", name, FAULTS))
        self.name, self._kept = name, None
        self._queue.clear()

    def states(self, message: Any) -> list[Any]:
        """Joint states to publish in place of `message`, which may be changed."""
        name = self.name
        if name == "states_dropped":
            return []
        if name == "states_nan":
            message.position = [float("nan")] * len(message.position)
        elif name == "states_missing_joint":
            message.name, message.position = message.name[1:], message.position[1:]
            message.velocity = message.velocity[1:]
        elif name == "states_zero_stamp":
            message.header.stamp.sec = message.header.stamp.nanosec = 0
        elif name == "states_frozen":
            self._kept = self._kept or list(message.position)
            message.position = self._kept
        elif name == "states_late":
            _shift(message.header.stamp, -_LATE_NS)
        elif name == "states_reordered":
            self._queue.append(message)
            if len(self._queue) < _REORDERED:
                return []
            batch = [self._queue.popleft() for _ in range(_REORDERED)]
            return batch[::-1]
        return [message]

    def image(self, data: bytes, black: bytes, camera: str) -> bytes | None:
        """Pixels of a camera's frame to publish in place of `data`, or None."""
        if self.name == "images_dropped":
            return None
        if self.name == "images_black":
            return black
        if self.name == "images_frozen":
            self._kept = self._kept or {}
            return self._kept.setdefault(camera, data)
        return data

    def image_stamp(self, stamp: Any) -> Any:
        """Stamp of a frame."""
        if self.name == "images_late":
            _shift(stamp, -_LATE_NS)
        return stamp


def _shift(stamp: Any, by_ns: int) -> None:
    total = stamp.sec * 1_000_000_000 + stamp.nanosec + by_ns
    stamp.sec, stamp.nanosec = divmod(total, 1_000_000_000)
