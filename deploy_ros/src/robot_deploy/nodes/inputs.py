"""From sensor messages to the runtime's samples: nothing is decoded, nothing blocks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from robot_datasets.errors import DatasetError
from robot_datasets.kinematics import get_arm
from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import StreamConfig
from robot_deploy.motion.workspace import SerialTool
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.qos import SENSOR
from robot_deploy.nodes.stamps import to_ns
from robot_deploy.observation.raw_image import pack_raw
from robot_deploy.observation.rings import Reason

Take = Callable[..., Reason | None]


class Inputs:
    """Subscribes to the topics of all streams.

    Attributes:
        received: Messages by stream since the start.
        refused: Refused ones by stream and reason.
    """

    def __init__(
        self,
        node: Node,
        streams: Mapping[str, StreamConfig],
        take: Take,
        on_error: Callable[[str], None],
        *,
        clock_ns: Callable[[], int] | None = None,
    ) -> None:
        """Subscribe.

        Args:
            node: The node.
            streams: Streams by name.
            take: ``take(source, payload, stamp_ns=, clock_ns=, names=)``, e.g. a locked `Runtime.sample`.
            on_error: Told what a callback raised.
            clock_ns: The clock of the stamps [ns]; None takes the node's.

        Raises:
            ConfigError: A computed stream does not fit its arm.
        """
        self._node, self._take = node, take
        self._clock_ns = clock_ns or (lambda: node.get_clock().now().nanoseconds)
        self.received: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self._since = time.monotonic()
        self._computed = {
            name: (stream, _tool(name, stream, streams))
            for name, stream in streams.items()
            if stream.kinematics is not None
        }
        kinds: dict[str, tuple[Any, Callable[..., None]]] = {
            "state": (JointState, self._joints),
            "pose": (PoseStamped, self._pose),
            "image": (CompressedImage, self._image),
            "raw image": (Image, self._raw_image),
        }
        self._subscriptions: list[Any] = []
        for name, stream in streams.items():
            if not stream.topic:
                continue
            message, callback = kinds["raw image" if stream.transport == "raw" else stream.kind]
            self._subscriptions.append(
                node.create_subscription(
                    message,
                    stream.topic,
                    guarded(node, _bound(callback, name, stream), on_error),
                    SENSOR,
                    event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._mismatch(name, stream)),
                )
            )

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def rates(self) -> dict[str, float]:
        """Messages per second of each stream since the last call [Hz]."""
        now = time.monotonic()
        span, self._since = max(now - self._since, 1e-6), now
        rates = {name: count / span for name, count in self.received.items()}
        self.received.clear()
        return rates

    def _mismatch(self, name: str, stream: StreamConfig) -> Callable[[Any], None]:
        def tell(info: Any) -> None:
            self._node.get_logger().error(
                f"stream '{name}': a publisher on {stream.topic} has an incompatible quality of service "
                f"({info.last_policy_kind}); nothing will come from it"
            )

        return tell

    def _offer(self, name: str, payload: object, stamp_ns: int, names: tuple[str, ...] = ()) -> bool:
        self.received[name] += 1
        reason = self._take(name, payload, stamp_ns=stamp_ns, clock_ns=self._clock_ns(), names=names)
        if reason is not None:
            self.refused[(name, reason.value)] += 1
        return reason is None

    def _joints(self, name: str, stream: StreamConfig, message: JointState) -> None:
        values = np.array(getattr(message, stream.value), dtype=np.float64)
        names, stamp = tuple(message.name), to_ns(message.header.stamp)
        if not self._offer(name, values, stamp, names):
            return
        for computed, (config, tool) in self._computed.items():
            if config.kinematics is None or config.kinematics.joints != name:
                continue
            place = {joint: index for index, joint in enumerate(names)}
            joints = values[[place[joint] for joint in stream.names[: len(tool.reach())]]]
            self._offer(computed, tool.position(joints[None])[0], stamp, config.names)

    def _pose(self, name: str, stream: StreamConfig, message: PoseStamped) -> None:
        del stream
        p, q = message.pose.position, message.pose.orientation
        self._offer(name, np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w]), to_ns(message.header.stamp))

    def _image(self, name: str, stream: StreamConfig, message: CompressedImage) -> None:
        if not 0 < len(message.data) <= stream.max_bytes:
            self.received[name] += 1
            self.refused[(name, Reason.WRONG_SIZE.value)] += 1
            return
        self._offer(name, message.data.tobytes(), to_ns(message.header.stamp))

    def _raw_image(self, name: str, stream: StreamConfig, message: Image) -> None:
        try:
            frame = pack_raw(message)
        except DatasetError as error:
            self._node.get_logger().warning(f"stream '{name}': {error}", throttle_duration_sec=5.0)
            frame = b""
        if not message.data or not 0 < len(frame) <= stream.max_bytes:
            self.received[name] += 1
            self.refused[(name, Reason.WRONG_SIZE.value)] += 1
            return
        self._offer(name, frame, to_ns(message.header.stamp))


def _bound(callback: Callable[..., None], name: str, stream: StreamConfig) -> Callable[[Any], None]:
    def call(message: Any) -> None:
        callback(name, stream, message)

    call.__qualname__ = f"{callback.__qualname__}[{name}]"
    return call


def _tool(name: str, stream: StreamConfig, streams: Mapping[str, StreamConfig]) -> SerialTool:
    about = stream.kinematics
    assert about is not None
    arm = get_arm(about.arm)
    if len(streams[about.joints].names) < len(arm.links) or len(about.tool) != 3:
        raise ConfigError(
            f"streams.{name}: arm '{arm.name}' has {len(arm.links)} joints, '{about.joints}' names "
            f"{len(streams[about.joints].names)}; tool needs x, y and z"
        )
    x, y, z = about.tool
    return SerialTool(arm, (x, y, z))
