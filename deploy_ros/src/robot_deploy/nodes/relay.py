"""What nodes beside a policy node share: hearing its state, calling its services, and joints out of messages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.qos import LATCHED
from robot_deploy.supervision.states import State


class PolicyLink:
    """A policy node, seen from another node.

    Attributes:
        state: What it last said; None before that.
    """

    def __init__(
        self, node: Node, policy: str, on_error: Callable[[str], None], *, services: Collection[str] = ()
    ) -> None:
        """Listen and prepare the calls.

        Args:
            node: The node that looks.
            policy: Name of the policy node, e.g. ``/policy``.
            on_error: Told what a callback raised.
            services: What may be called: a service is found some time after it is looked for, so the first call
                would come too early if that began with it.
        """
        self._node, self._policy, self._on_error = node, policy, on_error
        self.state: State | None = None
        self._clients: dict[str, Any] = {
            service: node.create_client(Trigger, f"{policy}/{service}") for service in services
        }
        node.create_subscription(String, f"{policy}/state", guarded(node, self._hear, on_error), LATCHED)

    def call(self, service: str, done: Callable[[bool, str], None]) -> None:
        """Call one of the services of the policy node; `done` gets success and message, also if it is not there."""
        client = self._clients[service]
        if not client.service_is_ready():
            done(False, f"{self._policy}/{service} is not there; is the policy node running?")
            return

        def answered(future: Any) -> None:
            response = future.result()
            if response is not None:
                done(bool(response.success), str(response.message))

        client.call_async(Trigger.Request()).add_done_callback(guarded(self._node, answered, self._on_error))

    def _hear(self, message: String) -> None:
        try:
            self.state = State(message.data)
        except ValueError:
            self._node.get_logger().warning(
                f"the policy node says it is in state '{message.data}'; nobody knows that"
            )
