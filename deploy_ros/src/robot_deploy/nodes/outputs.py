"""From trajectories to the messages of controllers.

`joint_trajectory_controller` gets the whole motion, stop included: positions and velocities, which it joins by
the very cubics that were verified, on the time grid of the plan. A `forward_command_controller` gets the position
one period from now, MoveIt Servo the velocity of the hand then: of the motion between the knots, not of the next knot,
because ticks jitter, and taking whole knots would send one twice and leave the following one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import DeploymentConfig
from robot_deploy.motion.trajectory import Trajectory
from robot_deploy.nodes.qos import COMMAND
from robot_deploy.nodes.stamps import from_ns

MESSAGES: dict[str, Any] = {
    "joint_trajectory": JointTrajectory,
    "forward_position": Float64MultiArray,
    "servo_twist": TwistStamped,
}


@dataclass(frozen=True)
class _Entry:
    """A controller's kind, joints, publisher and frame; and the message of one that takes trajectories."""

    kind: str
    names: tuple[str, ...]
    publisher: Any
    frame: str
    message: TrajectoryMessage


class Outputs:
    """Publishers for every controller; in ``dry_run`` and ``shadow`` on topics that no controller reads.

    Attributes:
        topics: Where commands go.
        watched: Topics on which nobody else may publish; empty where nothing is commanded.
    """

    def __init__(self, node: Node, config: DeploymentConfig, joints: tuple[str, ...]) -> None:
        """Create the publishers.

        Args:
            node: The node.
            config: Its deployment.
            joints: The robot's joints.

        Raises:
            ConfigError: Joints without a controller, with two, or a twist that is none.
        """
        config.check_targets(joints)
        commands = config.mode in ("live", "tracker")
        self._node = node
        self._entries: list[_Entry] = []
        period_ns = round(1e9 / config.runtime_config().command_rate)
        self.topics: list[str] = []
        for entry in config.targets:
            target = entry.resolve()
            if target.kind == "servo_twist" and len(joints) != 6:
                raise ConfigError(
                    f"servo_twist wants six components (linear and angular x, y, z), the robot names {len(joints)}"
                )
            topic = target.topic if commands else f"~/shadow{target.topic}"
            publisher = node.create_publisher(MESSAGES[target.kind], topic, COMMAND)
            names = entry.joints or joints
            message = TrajectoryMessage(names, period_ns)
            self._entries.append(_Entry(target.kind, names, publisher, entry.frame, message))
            self.topics.append(publisher.topic_name)
        self.watched = tuple(self.topics) if commands else ()
        # The first message of a type loads its converters, which takes tens of milliseconds: not while an arm moves.
        for entry in self._entries:
            trajectory = entry.kind == "joint_trajectory"
            serialize_message(entry.message.example() if trajectory else MESSAGES[entry.kind]())

    def close(self) -> None:
        """Destroy the publishers."""
        for entry in self._entries:
            self._node.destroy_publisher(entry.publisher)
        self._entries = []

    def publishers(self) -> int:
        """How many publishers the busiest command topic has, this node included."""
        return max((self._node.count_publishers(topic) for topic in self.watched), default=1)

    def publish(self, trajectory: Trajectory, *, now_ns: int, clock_ns: int) -> None:
        """Send a motion.

        Args:
            trajectory: From now to rest, on monotonic time.
            now_ns: Monotonic time [ns].
            clock_ns: The clock of message stamps at the same moment [ns].
        """
        begin_ns = clock_ns + trajectory.start_ns - now_ns
        for entry in self._entries:
            part = trajectory if entry.names == trajectory.names else trajectory.select(entry.names)
            if entry.kind == "joint_trajectory":
                entry.publisher.publish(entry.message.filled(part, begin_ns))
            elif entry.kind == "forward_position":
                position, _, _ = part.at(now_ns + part.period_ns)
                entry.publisher.publish(Float64MultiArray(data=position.tolist()))
            else:
                _, velocity, _ = part.at(now_ns + part.period_ns)
                entry.publisher.publish(_twist(velocity, clock_ns, entry.frame))


class TrajectoryMessage:
    """A message that is filled again and again: making its some hundred objects takes longer than all the rest."""

    def __init__(self, names: tuple[str, ...], period_ns: int) -> None:
        """Make a message without points.

        Args:
            names: (n) joint names.
            period_ns: Time between knots [ns].
        """
        self._message = JointTrajectory(joint_names=list(names))
        self._period_ns = period_ns
        self._points: list[JointTrajectoryPoint] = []  # of knots 0, 1, ...
        self._places: list[tuple[np.ndarray, np.ndarray]] = []  # their positions and velocities, (n,) each
        self._end, self._end_place = self._point(0)

    def example(self) -> JointTrajectory:
        """Return a motion that stays where it is, as a message."""
        rest = np.zeros((2, len(self._message.joint_names)))
        names = tuple(self._message.joint_names)
        return self.filled(Trajectory(names, 0, self._period_ns, rest, rest, rest), 0)

    def filled(self, trajectory: Trajectory, begin_ns: int) -> JointTrajectory:
        """Return a motion as a message that is good until the next call.

        Args:
            trajectory: A motion of the joints of the message.
            begin_ns: Time of its first point in the clock of the stamps [ns].
        """
        self._message.header.stamp = from_ns(begin_ns)
        # Of the knots at rest at the end, two say it all: where rest begins, and the last one, in the future.
        moving = np.flatnonzero((trajectory.velocities != 0.0).any(axis=1))
        last = len(trajectory) - 1
        kept = min(int(moving[-1]) + 1 if len(moving) else 0, last) + 1
        while len(self._points) < kept:
            point, place = self._point(len(self._points))
            self._points.append(point)
            self._places.append(place)
        q, v = trajectory.positions, trajectory.velocities
        for k, place in enumerate(self._places[:kept]):
            place[0][:], place[1][:] = q[k], v[k]
        points = self._points[:kept]
        if kept <= last:
            self._end_place[0][:], self._end_place[1][:] = q[last], v[last]
            self._end.time_from_start = self._time(last)
            points.append(self._end)
        self._message.points = points
        return self._message

    def _point(self, knot: int) -> tuple[JointTrajectoryPoint, tuple[np.ndarray, np.ndarray]]:
        zeros = [0.0] * len(self._message.joint_names)
        point = JointTrajectoryPoint(positions=zeros, velocities=zeros, time_from_start=self._time(knot))
        return point, (
            np.frombuffer(point.positions),
            np.frombuffer(point.velocities),
        )  # writable: their memory

    def _time(self, knot: int) -> Duration:
        seconds, rest = divmod(knot * self._period_ns, 1_000_000_000)
        return Duration(sec=seconds, nanosec=rest)


def _twist(velocity: np.ndarray, clock_ns: int, frame: str) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp, message.header.frame_id = from_ns(clock_ns), frame
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = (float(v) for v in velocity)
    return message
