"""Messages of a robot from arrays, and back: joint states, poses, trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from robot_deploy.nodes.stamps import to_ns
from robot_deploy.surrogate.controllers import JointTrajectoryController


def joint_message(
    names: Sequence[str], positions: np.ndarray, velocities: np.ndarray, stamp: Time
) -> JointState:
    """Return joint positions [rad] and velocities [rad/s], (n,) each, as a message."""
    message = JointState(name=list(names), position=positions.tolist(), velocity=velocities.tolist())
    message.header.stamp = stamp
    return message


def pose_message(position: np.ndarray, quaternion: np.ndarray, frame: str, stamp: Time) -> PoseStamped:
    """Return a position (3,) [m] and a quaternion wxyz (4,) as a message."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp, frame
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = (float(part) for part in position)
    q.w, q.x, q.y, q.z = (float(part) for part in quaternion)
    return message


def take_trajectory(controller: JointTrajectoryController, message: Any, *, now_ns: int) -> bool:
    """Give a JointTrajectory message to a surrogate's controller; False if there is none in it, or it is rejected.

    Args:
        controller: The controller.
        message: The message.
        now_ns: The clock of the stamps [ns].
    """
    points = message.points
    times = np.array([p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in points])
    positions, velocities, accelerations = (
        _column(points, part) for part in ("positions", "velocities", "accelerations")
    )
    if positions is None:
        return False
    return controller.take(
        tuple(message.joint_names), to_ns(message.header.stamp), times, positions, velocities, accelerations,
        now_ns=now_ns,
    )  # fmt: skip


def _column(points: Any, part: str) -> np.ndarray | None:
    """(K, n) numbers of a trajectory's points; None where the first has none."""
    if not points or not getattr(points[0], part):
        return None
    return np.array([getattr(point, part) for point in points], dtype=np.float64)
