"""Says what the policy was given, step by step, so that a recording can be held against it.

See `robot_deploy.recording.parity`: the recorder keeps these events, a store converted with them as its clock has a row
for each, and `compare` finds whether it holds what the node saw.
"""

from __future__ import annotations

from collections import deque

from rclpy.node import Node
from sensor_msgs.msg import TimeReference

from robot_deploy.nodes.qos import EVENTS
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.recording.contract import WINDOW_TOPIC
from robot_deploy.recording.parity import step_events
from robot_deploy.runtime_config import ChunkRequest

_WAITING = 256  # windows; an executor that is stuck for longer has other troubles


class WindowEvents:
    """Publishes `WINDOW_TOPIC` while somebody listens; checksums are made outside the command thread."""

    def __init__(self, node: Node) -> None:
        self._out = node.create_publisher(TimeReference, WINDOW_TOPIC, EVENTS)
        self._waiting: deque[ChunkRequest] = deque(maxlen=_WAITING)

    def keep(self, request: ChunkRequest) -> None:
        """Take a request in the command thread; its window is not changed any more."""
        self._waiting.append(request)

    def publish(self) -> None:
        """Say what waits, in the executor's thread."""
        heard = self._out.get_subscription_count() > 0
        while self._waiting:
            request = self._waiting.popleft()
            for time_ns, text in step_events(request.window) if heard else ():
                message = TimeReference(source=text)
                message.header.stamp = message.time_ref = from_ns(time_ns)
                self._out.publish(message)
