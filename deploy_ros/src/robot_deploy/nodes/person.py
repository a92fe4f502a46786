"""What a person, or a node for one, can ask of a policy node: services, and topics that stop.

Services (std_srvs/Trigger): ``~/start``, ``~/stop``, ``~/pause``, ``~/resume``, ``~/recover``, ``~/correct``,
``~/reset``; their answer says the state, or why not. Topics: the emergency stop and the dead man's switch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from robot_datasets.errors import UserError
from robot_deploy.deployment import DeploymentConfig
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.qos import COMMAND, LATCHED
from robot_deploy.supervision.states import Event, State

SERVICES: dict[str, Event] = {
    "start": Event.START,
    "stop": Event.STOP,
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "recover": Event.RECOVER,
    "correct": Event.CORRECT,
    "reset": Event.RESET,
}
_MOVES = (Event.START, Event.RESUME, Event.RECOVER, Event.CORRECT)


class PersonsCommands:
    """Serves and listens, and hands on what was asked."""

    def __init__(
        self,
        node: Node,
        command: Callable[[Event, str], State],
        may_start: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Create the services.

        Args:
            node: The node.
            command: Carries out an event; raises `UserError` where it is not possible.
            may_start: Raises `UserError` if the robot must not move now.
            on_error: Told what a callback raised.
        """
        self._node, self._command, self._may_start, self._on_error = node, command, may_start, on_error
        self._pressed = False
        self._deadman: tuple[float, float] | None = None  # lease [s], monotonic time it runs out [s]
        self._subscriptions: list[Any] = []
        self._services = [
            node.create_service(Trigger, f"~/{name}", guarded(node, self._service(event), on_error))
            for name, event in SERVICES.items()
        ]

    def listen(self, config: DeploymentConfig) -> None:
        """Subscribe to the topics of a deployment."""
        # A volatile reader hears every publisher, a transient-local one gets what was said before it came.
        for qos in (COMMAND, LATCHED):
            self._subscribe(config.emergency_stop, qos, self._emergency)
        if config.deadman is not None:
            self._deadman = (config.deadman.lease_ms * 1e-3, 0.0)
            self._subscribe(config.deadman.topic, COMMAND, self._held)

    def close(self) -> None:
        """Unsubscribe; the services stay."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._deadman = [], None

    @property
    def released(self) -> bool:
        """Whether the dead man's switch is not held."""
        return self._deadman is not None and time.monotonic() > self._deadman[1]

    def require_allowed(self) -> None:
        """Raise `UserError` while the emergency stop is pressed or the switch is not held."""
        if self._pressed:
            raise UserError("the emergency stop is pressed; release it first")
        if self.released:
            raise UserError("the dead man's switch is not held")

    def _subscribe(self, topic: str, qos: QoSProfile, callback: Callable[[Bool], None]) -> None:
        self._subscriptions.append(
            self._node.create_subscription(Bool, topic, guarded(self._node, callback, self._on_error), qos)
        )

    def _emergency(self, message: Bool) -> None:
        self._pressed = bool(message.data)
        if self._pressed:
            self._command(Event.FAULT, "emergency stop")

    def _held(self, message: Bool) -> None:
        if self._deadman is not None:
            lease = self._deadman[0]
            self._deadman = (lease, time.monotonic() + lease if message.data else 0.0)

    def _service(self, event: Event) -> Callable[[Any, Any], Any]:
        def serve(request: Any, response: Any) -> Any:
            del request
            try:
                if event in _MOVES or event is Event.RESET:
                    self.require_allowed()
                if event in (Event.START, Event.RESUME):
                    self._may_start()
                response.message = self._command(event, "").value
                response.success = True
            except UserError as error:
                response.success, response.message = False, str(error)
            return response

        serve.__qualname__ = f"service {event.value}"
        return serve
