"""From trajectories to the messages of controllers.

`joint_trajectory_controller` gets the whole motion, stop included: positions and velocities, which it joins by
the very cubics that were verified, on the time grid of the plan. A `forward_command_controller` gets the position
one period from now, MoveIt Servo the velocity of the hand then: of the motion between the knots, not of the next knot,
because ticks jitter, and taking whole knots would send one twice and leave the following one out.
"""

from __future__ import annotations

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
        self._entries: list[tuple[str, tuple[str, ...], Any, str]] = []
        self.topics: list[str] = []
        for entry in config.targets:
            target = entry.resolve()
            if target.kind == "servo_twist" and len(joints) != 6:
                raise ConfigError(
                    f"servo_twist wants six components (linear and angular x, y, z), the robot names {len(joints)}"
                )
            topic = target.topic if commands else f"~/shadow{target.topic}"
            publisher = node.create_publisher(MESSAGES[target.kind], topic, COMMAND)
            self._entries.append((target.kind, entry.joints or joints, publisher, entry.frame))
            self.topics.append(publisher.topic_name)
        self.watched = tuple(self.topics) if commands else ()
        # The first message of a type loads its converters, which takes tens of milliseconds: not while an arm moves.
        for kind, _, _, _ in self._entries:
            serialize_message(_example(kind))

    def close(self) -> None:
        """Destroy the publishers."""
        for _, _, publisher, _ in self._entries:
            self._node.destroy_publisher(publisher)
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
        for kind, names, publisher, frame in self._entries:
            part = trajectory if names == trajectory.names else trajectory.select(names)
            if kind == "joint_trajectory":
                publisher.publish(trajectory_message(part, begin_ns))
            elif kind == "forward_position":
                position, _, _ = part.at(now_ns + part.period_ns)
                publisher.publish(Float64MultiArray(data=position.tolist()))
            else:
                _, velocity, _ = part.at(now_ns + part.period_ns)
                publisher.publish(_twist(velocity, clock_ns, frame))


def _example(kind: str) -> Any:
    if kind == "joint_trajectory":
        rest = np.zeros((2, 1))
        return trajectory_message(Trajectory(("joint",), 0, 10_000_000, rest, rest, rest), 0)
    return MESSAGES[kind]()


def trajectory_message(trajectory: Trajectory, begin_ns: int) -> JointTrajectory:
    """Return a motion as a message whose first point is at `begin_ns` [ns], in the clock of the stamps."""
    message = JointTrajectory(joint_names=list(trajectory.names))
    message.header.stamp = from_ns(begin_ns)
    # Of the knots at rest at the end, two say it all: where rest begins, and the last one, which lies in the future.
    moving = np.flatnonzero((trajectory.velocities != 0.0).any(axis=1))
    rests = int(moving[-1]) + 1 if len(moving) else 0
    kept = np.unique([*range(min(rests, len(trajectory) - 1) + 1), len(trajectory) - 1])
    seconds, rest = np.divmod(kept * trajectory.period_ns, 1_000_000_000)
    message.points = [
        JointTrajectoryPoint(positions=q, velocities=v, time_from_start=Duration(sec=s, nanosec=n))
        for q, v, s, n in zip(
            trajectory.positions[kept].tolist(),
            trajectory.velocities[kept].tolist(),
            seconds.tolist(),
            rest.tolist(),
            strict=True,
        )
    ]
    return message


def _twist(velocity: np.ndarray, clock_ns: int, frame: str) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp, message.header.frame_id = from_ns(clock_ns), frame
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = (float(v) for v in velocity)
    return message
