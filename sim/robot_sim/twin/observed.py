"""What a cell tells its twin: joints, poses of objects and pictures, each with the time it was true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_datasets.errors import UserError


class ObservationError(UserError):
    """An observation is not finite, of the wrong shape, or of something the cell does not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedJoints:
    """Measured joints of the arm, in the order of the cell's `robot.joints`.

    Attributes:
        positions: (n,) [rad].
        velocities: (n,) [rad/s].
    """

    positions: np.ndarray
    velocities: np.ndarray

    def __post_init__(self) -> None:
        _require("joint positions", self.positions, np.shape(self.velocities))
        _require("joint velocities", self.velocities, np.shape(self.positions))


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedPose:
    """Measured pose of an object's body frame, world frame.

    Attributes:
        position: (3,) [m].
        quaternion: (4,) wxyz, unit length.
        covariance: (6, 6) of position [m²] and rotation vector [rad²], both in the world frame.
    """

    position: np.ndarray
    quaternion: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        _require("an object's position", self.position, (3,))
        _require("an object's quaternion", self.quaternion, (4,))
        _require("an object's covariance", self.covariance, (6, 6))
        if abs(float(np.linalg.norm(self.quaternion)) - 1.0) > 1e-3:
            raise ObservationError(
                f"an object's quaternion has length {np.linalg.norm(self.quaternion):g}, expected 1 (wxyz)"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedState:
    """One message of a cell: any part may be missing.

    Attributes:
        stamp_ns: When all of it was true, monotonic clock of the cell [ns]; it arrives later than that.
        joints: The arm's, or None.
        objects: Name -> pose.
        images: Camera name -> (H, W, 3) uint8.
    """

    stamp_ns: int
    joints: ObservedJoints | None = None
    objects: Mapping[str, ObservedPose] = field(default_factory=dict)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


def _require(what: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != shape or not np.isfinite(values).all():
        raise ObservationError(
            f"{what}: got {np.array2string(np.asarray(values), threshold=8)}, expected {shape} finite numbers"
        )
