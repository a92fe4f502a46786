"""A node that asks others: service calls with a timeout, lifecycle transitions, and what was said last on a topic.

For the demo, tests and benchmarks; everything waits by spinning this one node, so nothing runs in the background.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy import utilities
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from robot_datasets.errors import UserError
from robot_deploy.nodes.environment import prepare

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


class GraphClient:
    """Talks to the nodes of a graph; use it as a context.

    Attributes:
        node: The node, for publishers of one's own.
        last: Topic -> last message, for topics that were followed.
    """

    def __init__(self, name: str = "graph_client") -> None:
        """Make the node, in the domain that the environment names."""
        prepare()
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.last: dict[str, Any] = {}
        self._asked: dict[tuple[Any, str], Any] = {}

    def __enter__(self) -> GraphClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        utilities.try_shutdown(context=self._context)

    def follow(self, message: Any, topic: str, qos: QoSProfile) -> None:
        """Keep the last message of a topic in `last`."""

        def keep(said: Any) -> None:
            self.last[topic] = said

        self.node.create_subscription(message, topic, keep, qos)

    def wait(self, seconds: float) -> None:
        """Spin for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def wait_for(self, condition: Callable[[], bool], timeout: float, *, what: str) -> None:
        """Spin until a condition holds.

        Raises:
            UserError: It does not within `timeout` [s].
        """
        until = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > until:
                raise UserError(f"{what}: not within {timeout:g} s")
            self._executor.spin_once(timeout_sec=0.02)

    def call(self, kind: Any, service: str, request: Any, *, timeout: float = 10.0) -> Any:
        """Call a service and return its response.

        Raises:
            UserError: No such service, or no answer, within `timeout` [s].
        """
        client = self._asked.get((kind, service))
        if client is None:
            client = self._asked[(kind, service)] = self.node.create_client(kind, service)
        until = time.monotonic() + timeout
        self.wait_for(client.service_is_ready, timeout, what=f"service {service}")
        future = client.call_async(request)
        self.wait_for(future.done, max(until - time.monotonic(), 0.1), what=f"answer of {service}")
        return future.result()

    def trigger(self, service: str, *, timeout: float = 10.0) -> str:
        """Call a Trigger service and return its message.

        Raises:
            UserError: It did not succeed; the message is the service's.
        """
        response = self.call(Trigger, service, Trigger.Request(), timeout=timeout)
        if not response.success:
            raise UserError(f"{service}: {response.message}")
        return response.message

    def wait_for_node(self, node: str, timeout: float) -> None:
        """Wait until a lifecycle node answers.

        For seconds after a node was killed its services still seem to be there, and what is asked of them is lost; so
        the question is asked again and again.

        Raises:
            UserError: No answer within `timeout` [s].
        """
        until = time.monotonic() + timeout
        while True:
            try:
                self.call(GetState, f"{node}/get_state", GetState.Request(), timeout=2.0)
                return
            except UserError:
                if time.monotonic() > until:
                    raise

    def change(self, node: str, transition: str, *, timeout: float = 60.0) -> bool:
        """Ask a lifecycle node for one of `TRANSITIONS`; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        return bool(self.call(ChangeState, f"{node}/change_state", request, timeout=timeout).success)

    def lifecycle_state(self, node: str) -> str:
        """Label of a lifecycle node's state."""
        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label

    def set_parameter(self, node: str, name: str, value: Any) -> None:
        """Set a parameter of another node.

        Raises:
            UserError: It is refused.
        """
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, f"{node}/set_parameters", request).results[0]
        if not result.successful:
            raise UserError(f"{node}: parameter {name}: {result.reason}")
