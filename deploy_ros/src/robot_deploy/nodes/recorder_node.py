"""The node that records: raw messages into a bag, in a process of its own, so that nobody else waits for the disk.

Services (std_srvs/Trigger): ``~/episode_start``, ``~/episode_success``, ``~/episode_failure``, ``~/episode_discard``;
they become stamped events in the bag, by which ``robot-policies convert`` cuts it. The recording runs from the node's
start to its end. Beside the bag lies ``map.yaml``, the topic map for the conversion.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import TimeReference
from std_srvs.srv import Trigger

from robot_datasets.errors import UserError
from robot_datasets.importers.rosbag2 import MAP
from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import DeploymentConfig, load_deployment
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.message_types import message_class
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import EVENTS
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.recording import contract
from robot_deploy.recording.bag_writer import BagWriter
from robot_deploy.recording.recorder import Recorder, RecorderLimits, RecorderState
from robot_deploy.recording.revision import checkpoint_spec, git_revision

PARAMETERS: dict[str, Any] = {
    "deployment": "",
    "checkpoint": "",
    "folder": "recordings",
    "topics": [""],
    "queue_mb": 64.0,
    "flush_s": 1.0,
    "min_free_mb": 500.0,
    "chunk_kib": 512,
    "compression": "none",
    "depth": 100,
}
ABOUT = {
    "deployment": "a preset or YAML file, see robot_deploy.deployment; empty records `topics` alone",
    "checkpoint": "checkpoint or run directory of the policy that acts; empty takes the deployment's",
    "folder": "where bags are put, each in a folder named after the time",
    "topics": "further topics: name:package/msg/Type",
    "queue_mb": "messages that may wait to be written; more is dropped and counted [MB]",
    "flush_s": "longest time that a message can be lost by a kill [s]",
    "min_free_mb": "the recording ends when the disk has less left [MB]",
    "chunk_kib": "size of a chunk [KiB]",
    "compression": "of chunks: none, lz4 or zstd",
    "depth": "messages that the middleware keeps for a subscription",
}
RANGES = {
    "queue_mb": (1.0, 4096.0),
    "flush_s": (0.01, 60.0),
    "min_free_mb": (0.0, 1e6),
    "chunk_kib": (16.0, 65536.0),
    "depth": (1.0, 10_000.0),
}
_OUTCOMES = ("start", "success", "failure", "discard")


class RecorderNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "recorder", **options: Any) -> None:
        """Begin to record."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES)
        deployment = _deployment(p["deployment"], p["checkpoint"])
        config = contract.RecordingConfig(
            topics=_further(p["topics"]),
            limits=RecorderLimits(queue_mb=p["queue_mb"], flush_s=p["flush_s"], min_free_mb=p["min_free_mb"]),
            chunk_kib=p["chunk_kib"],
            compression=_compression(p["compression"]),
        )
        topics = dict(config.topics) if deployment is None else contract.recorded_topics(deployment, config)
        if not topics:
            raise ConfigError("nothing to record; give parameter 'deployment' or 'topics'")
        classes = {topic: message_class(kind) for topic, kind in topics.items()}
        self.bag = self._open(Path(p["folder"]), p["deployment"], deployment, config, topics)
        self.recorder = Recorder(self.bag, config.limits)
        self._event = self.create_publisher(TimeReference, contract.EPISODE_TOPIC, EVENTS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        self.lost: Counter[str] = Counter()
        self._subscribed: dict[str, tuple[str, Any]] = {}  # topic -> the profile that its publishers offer
        self._classes, self._depth = classes, p["depth"]
        for topic in classes:
            self._subscribe(topic)
        for outcome in _OUTCOMES:
            self.create_service(
                Trigger, f"~/episode_{outcome}", guarded(self, self._mark(outcome), self._failed)
            )
        self.create_timer(0.5, guarded(self, self._watch, self._failed))
        self.get_logger().info(f"recording {len(topics)} topics into {self.bag.folder}")

    def close(self) -> None:
        """Write what waits and finish the bag."""
        status = self.recorder.close()
        self._map(by_episode=status.written.get(contract.EPISODE_TOPIC, 0) > 0)
        total, dropped = sum(status.written.values()), sum(status.dropped.values()) + sum(self.lost.values())
        text = f"{self.bag.folder}: {total} messages, {status.bytes / 1e6:.1f} MB, {dropped} lost; {status.state.value}"
        if dropped or status.state is not RecorderState.CLOSED:
            self.get_logger().error(f"{text} {status.reason} {dict(self.lost + Counter(status.dropped))}")
        else:
            self.get_logger().info(text)

    def _open(
        self,
        folder: Path,
        source: str,
        deployment: DeploymentConfig | None,
        config: contract.RecordingConfig,
        topics: dict[str, str],
    ) -> BagWriter:
        text, spec, sha256 = "", None, ""
        if deployment is not None:
            path = Path(source)
            text = path.read_text(encoding="utf-8") if path.is_file() else f"preset: {source}\n"
            spec, sha256 = checkpoint_spec(deployment.checkpoint)
        place = folder / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S_%f")
        bag = BagWriter(
            place,
            about=contract.about(text, checkpoint_sha256=sha256, revision=git_revision()),
            chunk_bytes=config.chunk_kib * 1024,
            compression=config.compression,
        )
        for topic, kind in topics.items():
            bag.add_topic(topic, kind)
        self._mapped = (place, deployment, spec)
        self._map(by_episode=True)
        return bag

    def _map(self, *, by_episode: bool) -> None:
        """Write the map for the conversion; at the end again, as one episode if nobody marked any."""
        place, deployment, spec = self._mapped
        if deployment is None or spec is None:
            if by_episode:
                self.get_logger().warning("no map.yaml: it needs a deployment and the checkpoint of a policy")
            return
        try:
            mapping = contract.topic_map(deployment, spec, by_episode=by_episode)
            contract.write_map(place / MAP, mapping)
        except (UserError, OSError, KeyError) as error:
            self.get_logger().warning(f"no {MAP}: {error}")

    def _subscribe(self, topic: str) -> None:
        """Take what is offered: reliable and latched if all publishers are, so that no more is missed than must be."""
        offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = bool(offers) and all(o.reliability is ReliabilityPolicy.RELIABLE for o in offers)
        latched = bool(offers) and all(o.durability is DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
        wanted = f"{reliable}{latched}"
        before = self._subscribed.get(topic)
        if before is not None and (before[0] == wanted or not offers):
            return
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self._depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        events = SubscriptionEventCallbacks(message_lost=lambda info: self._count_lost(topic, info))
        take = guarded(self, self._take(topic), self._failed)
        subscription = self.create_subscription(
            self._classes[topic], topic, take, profile, raw=True, event_callbacks=events
        )
        self._subscribed[topic] = (wanted, subscription)
        if before is not None:
            self.destroy_subscription(before[1])

    def _take(self, topic: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            self.recorder.offer(topic, data, log_ns=self.get_clock().now().nanoseconds)

        return take

    def _count_lost(self, topic: str, info: Any) -> None:
        self.lost[topic] += info.total_count_change

    def _mark(self, outcome: str) -> Callable[[Any, Any], Any]:
        def serve(request: Any, response: Any) -> Any:
            del request
            stamp = from_ns(self.get_clock().now().nanoseconds)
            message = TimeReference(source=outcome)
            message.header.stamp = message.time_ref = stamp
            self._event.publish(message)
            status = self.recorder.status()
            response.success, response.message = status.state is RecorderState.RECORDING, status.reason
            return response

        serve.__qualname__ = f"service episode_{outcome}"
        return serve

    def _watch(self) -> None:
        """Match subscriptions to publishers that came, and say how it goes."""
        for topic in self._classes:
            self._subscribe(topic)
        status = self.recorder.status()
        good = status.state is RecorderState.RECORDING
        lost = self.lost + Counter(status.dropped)
        said = DiagnosticStatus(
            name=self.get_name(),
            hardware_id="",
            level=DiagnosticStatus.ERROR
            if not good
            else DiagnosticStatus.WARN
            if lost
            else DiagnosticStatus.OK,
            message=status.reason or status.state.value,
        )
        values = {
            "bag": str(self.bag.folder),
            "MB": f"{status.bytes / 1e6:.1f}",
            "waiting MB": f"{status.waiting_bytes / 1e6:.2f}",
            "longest write [ms]": f"{1e3 * status.longest_write_s:.1f}",
            **{f"messages {topic}": str(count) for topic, count in status.written.items()},
            **{f"lost {topic}": str(count) for topic, count in lost.items()},
        }
        said.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array = DiagnosticArray()
        array.header.stamp = from_ns(self.get_clock().now().nanoseconds)
        array.status = [said]
        self._diagnostics.publish(array)
        if not good and not self.finished.is_set():
            self.get_logger().error(f"the recording has ended: {status.state.value}: {status.reason}")
            self.finished.set()

    def _failed(self, reason: str) -> None:
        self.get_logger().error(reason)


def _deployment(source: str, checkpoint: str) -> DeploymentConfig | None:
    changes = {"checkpoint": checkpoint} if checkpoint else {}
    return load_deployment(source, **changes) if source else None


def _further(entries: Sequence[str]) -> dict[str, str]:
    topics: dict[str, str] = {}
    for entry in entries:
        name, _, kind = entry.partition(":")
        if entry and not (name and kind):
            raise ConfigError(f"parameter 'topics': got '{entry}', expected name:package/msg/Type")
        if entry:
            topics[name] = kind
    return topics


def _compression(text: str) -> Any:
    if text not in ("none", "lz4", "zstd"):
        raise ConfigError(f"parameter 'compression': got '{text}', expected none, lz4 or zstd")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(RecorderNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
