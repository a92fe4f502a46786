"""A simulated camera's topics, raw and compressed, as `image_transport` offers them: sent only to who listens."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from robot_datasets.image_codec import encode_frame
from robot_datasets.mapping import ConfigError
from robot_deploy.nodes.qos import EVENTS
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.surrogate.faults import SensorFaults

_ENCODINGS = ("jpeg", "png")


class CameraTopics:
    """Publishes ``/camera/NAME/image_raw`` (rgb8) and ``/camera/NAME/image_raw/compressed``.

    Attributes:
        names: The cameras.
    """

    def __init__(
        self, node: Node, names: tuple[str, ...], *, encoding: str, size: int, faults: SensorFaults
    ) -> None:
        """Create the publishers.

        Args:
            node: The node.
            names: The cameras.
            encoding: Of compressed images: ``jpeg``, or ``png``, which loses nothing.
            size: Side of the images [px].
            faults: Spoils what goes out.

        Raises:
            ConfigError: There is no such encoding.
        """
        if encoding not in _ENCODINGS:
            raise ConfigError(f"image_format: got '{encoding}', expected {' or '.join(_ENCODINGS)}")
        self.names, self._encoding, self._faults = names, encoding, faults
        topics = {name: f"/camera/{name}/image_raw" for name in names}
        self._raw = {name: node.create_publisher(Image, topic, EVENTS) for name, topic in topics.items()}
        self._compressed = {
            name: node.create_publisher(CompressedImage, f"{topic}/compressed", EVENTS)
            for name, topic in topics.items()
        }
        self._black = np.zeros((size, size, 3), dtype=np.uint8)

    def watched(self, name: str) -> bool:
        """Whether somebody listens to a camera."""
        publishers = (self._raw[name], self._compressed[name])
        return any(publisher.get_subscription_count() > 0 for publisher in publishers)

    def publish(self, name: str, pixels: np.ndarray, stamp_ns: int) -> None:
        """Send what a camera saw.

        Args:
            name: The camera.
            pixels: (H, W, 3) uint8 RGB.
            stamp_ns: When [ns].
        """
        shown = self._faults.image(pixels.tobytes(), self._black.tobytes(), name)
        if shown is None:
            return
        pixels = np.frombuffer(shown, np.uint8).reshape(pixels.shape)
        if self._raw[name].get_subscription_count() > 0:
            height, width, _ = pixels.shape
            raw = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            raw.data = shown
            self._send(self._raw[name], raw, name, stamp_ns)
        if self._compressed[name].get_subscription_count() > 0:
            compressed = CompressedImage(format=self._encoding)
            compressed.data = encode_frame(pixels, self._encoding)
            self._send(self._compressed[name], compressed, name, stamp_ns)

    def _send(self, publisher: Any, message: Any, name: str, stamp_ns: int) -> None:
        message.header.frame_id = name
        message.header.stamp = self._faults.image_stamp(from_ns(stamp_ns))
        publisher.publish(message)
