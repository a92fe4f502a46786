"""The node between a twin and a policy node in mode ``tracker`` (Real-is-Sim): the arm follows the twin's joints.

It checks the twin's messages and hands them on to the policy node's ``~/track``; the policy node's filter moves the
arm. ``~/hold`` (std_msgs/Bool, latched) tells the twin to wait while the arm lags, ``~/lag`` (std_msgs/Float64) by how
much it does. After a jump of the twin nothing is followed until ``~/accept_jump`` (std_srvs/Trigger) is called.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64
from std_srvs.srv import Trigger

from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import load_deployment
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import LATCHED, SENSOR
from robot_deploy.nodes.stamps import to_ns
from robot_deploy.tracking.pace import PaceConfig, TwinPace

PARAMETERS: dict[str, Any] = {
    "deployment": "",
    "policy": "/policy",
    "twin": "/twin/joint_states",
    "hold_above": 0.1,
    "go_below": 0.03,
    "max_jump": 0.2,
    "max_age_ms": 100.0,
}
ABOUT = {
    "deployment": "a preset or YAML file, the policy node's",
    "policy": "name of the policy node",
    "twin": "topic of the twin's JointState",
    "hold_above": "distance between twin and arm at which the twin shall wait [rad or m]",
    "go_below": "distance at which it may go on [rad or m]",
    "max_jump": "largest step between two messages of the twin [rad or m]",
    "max_age_ms": "older joint states are not used [ms]",
}
RANGES = {
    "hold_above": (0.001, 3.0),
    "go_below": (0.0005, 3.0),
    "max_jump": (0.001, 3.0),
    "max_age_ms": (10.0, 1000.0),
}


class TrackerNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "tracker", **options: Any) -> None:
        """Listen to twin and arm; the twin is told to hold until both are heard."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES)
        if not p["deployment"]:
            raise ConfigError("parameter 'deployment' is empty; give the policy node's preset or YAML file")
        config = load_deployment(p["deployment"])
        self._pace = TwinPace(
            config.robot_config().joints,
            PaceConfig(
                hold_above=p["hold_above"],
                go_below=p["go_below"],
                max_jump=p["max_jump"],
                max_age_ms=p["max_age_ms"],
            ),
        )
        track = config.track.replace("~", p["policy"], 1) if config.track.startswith("~") else config.track
        if self.resolve_topic_name(track) == self.resolve_topic_name(p["twin"]):
            raise ConfigError(
                f"'{track}' is what the policy node tracks and what the twin says; set 'track: ~/track'"
            )
        self._track = self.create_publisher(JointState, track, SENSOR)
        self._hold = self.create_publisher(Bool, "~/hold", LATCHED)
        self._lag = self.create_publisher(Float64, "~/lag", SENSOR)
        self._told: bool | None = None
        arm = config.streams[config.feedback].topic
        self.create_subscription(JointState, p["twin"], guarded(self, self._twin, self._failed), SENSOR)
        self.create_subscription(JointState, arm, guarded(self, self._arm, self._failed), SENSOR)
        self.create_service(Trigger, "~/accept_jump", guarded(self, self._accept, self._failed))
        self.create_timer(0.05, guarded(self, self._watch, self._failed))

    def close(self) -> None:
        """Tell the twin to wait; without targets the policy node brakes by itself."""
        self._hold.publish(Bool(data=True))

    def _twin(self, message: JointState) -> None:
        stamp_ns, now_ns = to_ns(message.header.stamp), time.monotonic_ns()
        jumped = self._pace.jumped
        if self._pace.twin(list(message.name), message.position, stamp_ns=stamp_ns, now_ns=now_ns):
            target = self._pace.target(now_ns)
            if target is not None:
                out = JointState(name=list(self._pace.names), position=target.tolist())
                out.header.stamp = message.header.stamp
                self._track.publish(out)
        if self._pace.jumped and not jumped:
            self.get_logger().error("the twin jumped; nothing is followed until ~/accept_jump is called")
        self._tell()

    def _arm(self, message: JointState) -> None:
        self._pace.arm(list(message.name), message.position, now_ns=time.monotonic_ns())
        self._tell()

    def _watch(self) -> None:
        self._pace.check(time.monotonic_ns())
        self._lag.publish(Float64(data=self._pace.lag))
        self._tell()

    def _tell(self) -> None:
        if self._pace.hold != self._told:
            self._told = self._pace.hold
            self._hold.publish(Bool(data=self._pace.hold))

    def _accept(self, request: Any, response: Any) -> Any:
        del request
        self._pace.accept_jump()
        response.success, response.message = True, f"the arm is {self._pace.lag:.3f} away from the twin"
        return response

    def _failed(self, reason: str) -> None:
        self.get_logger().error(reason)
        self._hold.publish(Bool(data=True))
        self._told = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(TrackerNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
