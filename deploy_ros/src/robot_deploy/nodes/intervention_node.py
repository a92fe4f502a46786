"""The node through which a person steps in: buttons and a leader arm, turned into calls and targets of a policy node.

Buttons come as services (std_srvs/Trigger): ``~/take_over``, ``~/correct``, ``~/recover``, ``~/hand_back``,
``~/pause``, ``~/stop``; and, if `buttons` names them, from a pedal or gamepad (sensor_msgs/Joy). The leader arm's
joints become the policy node's ``~/track``. This node commands no robot: whatever it sends goes through the policy
node's filter.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_datasets.errors import UserError, unknown_name
from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import load_deployment
from robot_deploy.intervention.handover import HandoverConfig, LeaderHandover
from robot_deploy.intervention.session import BUTTONS, SERVICES, InterventionSession
from robot_deploy.motion.limits import LimitsError, in_order_of
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import LATCHED, SENSOR
from robot_deploy.nodes.relay import PolicyLink
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.supervision.states import HUMAN_STATES, State

PARAMETERS: dict[str, Any] = {
    "deployment": "",
    "policy": "/policy",
    "leader": "/leader/joint_states",
    "leader_prefix": "",
    "alignment": "slide",
    "speed": 0.3,
    "max_offset": 1.5,
    "max_age_ms": 100.0,
    "timeout_ms": 1000.0,
    "joy": "/joy",
    "buttons": [""],
}
ABOUT = {
    "deployment": "a preset or YAML file, the policy node's",
    "policy": "name of the policy node",
    "leader": "topic of the leader arm's JointState",
    "leader_prefix": "what the leader's joint names begin with, beyond the arm's",
    "alignment": "slide: to the leader's pose; relative: the leader's movements from where the arm is",
    "speed": "of sliding [rad/s or m/s]",
    "max_offset": "largest difference between leader and arm at which one may take over [rad or m]",
    "max_age_ms": "leader positions older than this are none [ms]",
    "timeout_ms": "longest time from a call to the state it leads to [ms]",
    "joy": "topic of sensor_msgs/Joy",
    "buttons": "what the buttons of the Joy do, in their order; empty for nothing",
}
RANGES = {
    "speed": (0.01, 2.0),
    "max_offset": (0.01, 7.0),
    "max_age_ms": (10.0, 1000.0),
    "timeout_ms": (100.0, 10_000.0),
}
_RATE = 100.0  # of targets [Hz]


class InterventionNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "intervention", **options: Any) -> None:
        """Listen to everybody and command nothing."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES)
        if not p["deployment"]:
            raise ConfigError("parameter 'deployment' is empty; give the policy node's preset or YAML file")
        config = load_deployment(p["deployment"])
        self._names = config.robot_config().joints
        self._prefix, self._joints_of = p["leader_prefix"], config.streams[config.feedback].topic
        self._handover = LeaderHandover(
            self._names,
            HandoverConfig(
                alignment=_alignment(p["alignment"]),
                speed=p["speed"],
                max_offset=p["max_offset"],
                max_age_ms=p["max_age_ms"],
            ),
        )
        self._session = InterventionSession(timeout_ms=p["timeout_ms"])
        self._told, self._arm, self._pressed = "", None, ()
        self._policy = PolicyLink(self, p["policy"], self._failed, services=SERVICES)
        track = config.track.replace("~", p["policy"], 1) if config.track.startswith("~") else config.track
        self._track = self.create_publisher(JointState, track, SENSOR)
        self._status = self.create_publisher(String, "~/status", LATCHED)
        self._listen(p)
        for button in BUTTONS:
            self.create_service(Trigger, f"~/{button}", guarded(self, self._service(button), self._failed))
        self.create_timer(1.0 / _RATE, guarded(self, self._turn, self._failed))

    def close(self) -> None:
        """Nothing to stop: without targets the policy node brakes by itself."""
        self._handover.release()

    def _listen(self, p: dict[str, Any]) -> None:
        self._buttons = tuple(p["buttons"]) if any(p["buttons"]) else ()
        for button in self._buttons:
            if button and button not in BUTTONS:
                raise ConfigError(f"parameter 'buttons': {unknown_name('button', button, BUTTONS)}")
        self.create_subscription(JointState, p["leader"], guarded(self, self._lead, self._failed), SENSOR)
        self.create_subscription(
            JointState, self._joints_of, guarded(self, self._measure, self._failed), SENSOR
        )
        if self._buttons:
            self.create_subscription(Joy, p["joy"], guarded(self, self._joy, self._failed), SENSOR)

    def _lead(self, message: JointState) -> None:
        positions = self._ordered(message, self._prefix)
        if positions is not None:
            self._handover.lead(positions, time.monotonic_ns())

    def _measure(self, message: JointState) -> None:
        self._arm = self._ordered(message, "")

    def _ordered(self, message: JointState, prefix: str) -> np.ndarray | None:
        """Positions in the robot's order; None if one is missing."""
        if len(message.position) != len(message.name):
            return None
        try:
            index = in_order_of(
                list(message.name), [prefix + name for name in self._names], what="joint state"
            )
        except LimitsError:
            return None
        return np.array([message.position[i] for i in index])

    def _joy(self, message: Joy) -> None:
        before, self._pressed = self._pressed, tuple(message.buttons)
        for number, button in enumerate(self._buttons):
            down = number < len(self._pressed) and self._pressed[number]
            if button and down and not (number < len(before) and before[number]):
                try:
                    self._press(button)
                except UserError as error:
                    self._tell(str(error))

    def _service(self, button: str) -> Callable[[Any, Any], Any]:
        def serve(request: Any, response: Any) -> Any:
            del request
            try:
                self._press(button)
                response.success, response.message = True, "under way"
            except UserError as error:
                response.success, response.message = False, str(error)
            return response

        serve.__qualname__ = f"service {button}"
        return serve

    def _press(self, button: str) -> None:
        if self._policy.state is None:
            raise UserError("the policy node has not been heard yet; is it running?")
        if button in ("take_over", "recover", "correct") and not self._handover.engaged:
            self._engage()  # refused before anything is paused
            self._handover.release()
        self._session.press(button, self._policy.state)

    def _engage(self) -> None:
        if self._arm is None:
            raise UserError("no joint state of the arm yet")
        self._handover.engage(self._arm, time.monotonic_ns())

    def _turn(self) -> None:
        state, now_ns = self._policy.state, time.monotonic_ns()
        if state is None:
            return
        service = self._session.advance(state, now_ns)
        if service is not None:
            self._call(service)
        if state not in (*HUMAN_STATES, State.PAUSED):
            self._handover.release()
        target = self._handover.target(now_ns) if state in HUMAN_STATES else None
        if target is not None:
            message = JointState(name=list(self._names), position=target.tolist())
            message.header.stamp = from_ns(self.get_clock().now().nanoseconds)
            self._track.publish(message)
        self._tell(self._session.problem or ("under way" if self._session.busy else state.value))

    def _call(self, service: str) -> None:
        if service in ("recover", "correct") and not self._handover.engaged:
            try:
                self._engage()
            except UserError as error:
                self._session.refused(str(error))
                return
        elif service in ("pause", "resume", "stop"):
            self._handover.release()

        def done(success: bool, message: str) -> None:
            instead = None if success else self._session.refused(message)
            if instead is not None:
                self._call(instead)

        self._policy.call(service, done)

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._status.publish(String(data=text))
            self.get_logger().info(text)

    def _failed(self, reason: str) -> None:
        self._handover.release()
        self._tell(reason)


def _alignment(text: str) -> Any:
    if text not in ("slide", "relative"):
        raise ConfigError(f"parameter 'alignment': got '{text}', expected slide or relative")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(InterventionNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
