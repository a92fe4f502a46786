"""What a recording is for: which topics it needs, what it says about itself, and how it becomes a dataset.

The contract is the deployment's own YAML, so nobody writes down twice what a topic means. It stands in every bag, and
`topic_map` turns it into the map that ``robot-policies convert`` reads: the same sources, resampled in the same way as
the observation window of the policy node, so the store holds what the node saw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from robot_datasets.features import IMAGE_PREFIX, Feature, is_image
from robot_datasets.importers.rosbag2_map import BY_MARKER
from robot_datasets.kinematics import get_arm
from robot_datasets.mapping import ConfigError
from robot_datasets.resampling import LATEST_BEFORE, LINEAR, SLERP
from robot_deploy import __version__
from robot_deploy.observation.window import FeatureSource
from robot_deploy.recording.bag_writer import CHUNK_BYTES, Compression
from robot_deploy.recording.recorder import RecorderLimits
from robot_policies.spec import PolicySpec

if TYPE_CHECKING:
    from robot_deploy.deployment import DeploymentConfig, StreamConfig

MESSAGE_OF_KIND = {
    "state": "sensor_msgs/msg/JointState",
    "pose": "geometry_msgs/msg/PoseStamped",
    "image": "sensor_msgs/msg/CompressedImage",
}
RAW_IMAGE = "sensor_msgs/msg/Image"
MESSAGE_OF_TARGET = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward_position": "std_msgs/msg/Float64MultiArray",
    "servo_twist": "geometry_msgs/msg/TwistStamped",
}
EVENT_TYPE = "sensor_msgs/msg/TimeReference"
"""Events are stamped texts: ``header.stamp`` says when, ``source`` what. No custom type is needed for that."""

SEGMENT_TOPIC, STATE_TOPIC = "/policy/segment", "/policy/state"
"""The policy node's texts: who moves the robot from now on (``policy``, ``recovery``, ``correction`` or "" for nobody),
and its state. They have no stamp; the time at which they were received counts."""
TEXT_TYPE = "std_msgs/msg/String"
EPISODE_TOPIC = "/recording/episode"
"""``start``, and ``success``, ``failure`` or ``discard`` at the end of an episode."""
WINDOW_TOPIC = "/recording/window"
"""One event per step of every window that the policy was given, for the parity check."""


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """How to record.

    Attributes:
        topics: Further topics and their types, beside those of the deployment.
        limits: Queue, flushing and disk.
        chunk_kib: A kill loses at most so much, and at most `limits.flush_s` of time [KiB].
        compression: Of chunks: ``none``, ``lz4`` or ``zstd``; JPEG does not get smaller.
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    limits: RecorderLimits = field(default_factory=RecorderLimits)
    chunk_kib: int = CHUNK_BYTES // 1024
    compression: Compression = "none"

    def __post_init__(self) -> None:
        if not 16 <= self.chunk_kib <= 65536:
            raise ConfigError(f"recording.chunk_kib {self.chunk_kib}; expected 16 to 65536")


def recorded_topics(deployment: DeploymentConfig, config: RecordingConfig) -> dict[str, str]:
    """Topic -> type of everything that belongs into a bag of this deployment."""
    topics = {
        stream.topic: RAW_IMAGE if stream.transport == "raw" else MESSAGE_OF_KIND[stream.kind]
        for stream in deployment.streams.values()
        if stream.topic
    }
    for entry in deployment.targets:
        target = entry.resolve()
        topics[target.topic] = MESSAGE_OF_TARGET[target.kind]
    topics[deployment.emergency_stop] = "std_msgs/msg/Bool"
    told = dict.fromkeys((SEGMENT_TOPIC, STATE_TOPIC), TEXT_TYPE)
    events = dict.fromkeys((EPISODE_TOPIC, WINDOW_TOPIC), EVENT_TYPE)
    return {**topics, **told, **events, **config.topics}


def about(contract: str, *, checkpoint_sha256: str = "", revision: str = "") -> dict[str, dict[str, str]]:
    """Records for the front of the file.

    Args:
        contract: Text of the deployment's YAML file.
        checkpoint_sha256: Which policy acted; "" if none.
        revision: Git commit of the software; "" outside a repository.
    """
    return {
        "robot_policies.contract": {"yaml": contract},
        "robot_policies.software": {
            "version": __version__,
            "git_commit": revision,
            "checkpoint_sha256": checkpoint_sha256,
        },
    }


def topic_map(
    deployment: DeploymentConfig, spec: PolicySpec, *, by_episode: bool = True, clock_topic: str = ""
) -> dict[str, Any]:
    """The map that turns a recording into an episode store.

    Args:
        deployment: The contract.
        spec: The policy's features and rate.
        by_episode: Cut the bag by `EPISODE_TOPIC`; otherwise it is one episode.
        clock_topic: Take the steps from the messages of a topic instead of a fixed rate, e.g. `WINDOW_TOPIC`.

    Returns:
        Mapping for YAML; see docs/datasets/rosbag2.md. The action is where the joints were one step later.

    Raises:
        ConfigError: A feature takes only some components of one that is computed.
    """
    features = {
        name: {"parts": [p for part in deployment.features[name] for p in _parts(deployment, part, name)]}
        for name in spec.observation
        if not is_image(name)
    }
    for name, entry in features.items():
        _label(entry["parts"], spec.observation[name])
    cameras = {
        name.removeprefix(IMAGE_PREFIX): _camera(deployment.streams[deployment.features[name][0].source])
        for name in spec.observation
        if is_image(name)
    }
    feedback = deployment.streams[deployment.feedback]
    components = spec.action.names or feedback.names
    joint_of = {component: joint for joint, component in deployment.action_joints.items()}
    action = _stream_part(feedback, [joint_of.get(name, name) for name in components])
    _label([action], spec.action)
    episodes = {
        "per": BY_MARKER,
        "topic": EPISODE_TOPIC,
        "field": "source",
        "start": ["start"],
        "stop": ["success", "failure"],
        "success": ["success"],
        "failure": ["failure"],
    }
    return {
        "robot": deployment.robot_config().robot,
        "time": "header",
        "clock": {"topic": clock_topic, "rate": float(spec.fps)}
        if clock_topic
        else {"rate": float(spec.fps)},
        "features": features,
        "action": {"parts": [action], "shift": 1, "meaning": "absolute position one step later"},
        **({"cameras": cameras} if cameras else {}),
        "segments_from": {"topic": SEGMENT_TOPIC, "field": "data", "time": "log"},
        **({"episodes": episodes} if by_episode else {}),
        **({"task": deployment.instruction} if deployment.instruction else {}),
    }


def write_map(path: Path, mapping: Mapping[str, Any]) -> None:
    """Write a topic map; the old file or the new one is there, never half of it."""
    staging = path.with_name(f".{path.name}.tmp")
    text = yaml.safe_dump(dict(mapping), sort_keys=False)
    staging.write_text(f"# Topic map of a recording, made from its deployment.\n{text}", encoding="utf-8")
    os.replace(staging, path)


def _parts(deployment: DeploymentConfig, part: FeatureSource, feature: str) -> list[dict[str, Any]]:
    stream = deployment.streams[part.source]
    if stream.kinematics is not None:
        return [_computed(deployment, part, feature)]
    if stream.kind == "pose":
        place = _common(stream) | {"field": "pose.position", "policy": LINEAR}
        turn = _common(stream) | {"field": "pose.orientation", "policy": SLERP}
        return [place, turn]
    return [_stream_part(stream, list(part.names or stream.names))]


def _computed(deployment: DeploymentConfig, part: FeatureSource, feature: str) -> dict[str, Any]:
    """The part of a source that no topic holds: the converter computes it from the same joints, as the node does."""
    stream = deployment.streams[part.source]
    assert stream.kinematics is not None
    if part.names and part.names != stream.names:
        raise ConfigError(
            f"features.{feature}: of '{part.source}', which is computed, take all components or none"
        )
    joints = deployment.streams[stream.kinematics.joints]
    arm = get_arm(stream.kinematics.arm)
    return {
        **_common(stream),
        "topic": joints.topic,
        "field": joints.value,
        "joints": list(joints.names[: len(arm.links)]),
        "names": list(stream.names),
        "kinematics": {"arm": arm.name, "tool": list(stream.kinematics.tool)},
        "policy": LINEAR,
    }


def _stream_part(stream: StreamConfig, joints: list[str]) -> dict[str, Any]:
    return _common(stream) | {"field": stream.value, "joints": joints, "policy": LINEAR}


def _camera(stream: StreamConfig) -> dict[str, Any]:
    return _common(stream) | {"policy": LATEST_BEFORE}


def _common(stream: StreamConfig) -> dict[str, Any]:
    return {
        "topic": stream.topic,
        "max_age": stream.max_gap_ms * 1e-3,
        **({"latency": stream.latency_ms * 1e-3} if stream.latency_ms else {}),
    }


def _label(parts: list[dict[str, Any]], feature: Feature) -> None:
    """Give parts the names and units of the policy's feature, which they make up in its order."""
    begin = 0
    for part in parts:
        place = part["policy"] != SLERP  # x, y, z of a pose, or of a tool
        size = 3 if "kinematics" in part else len(part.get("joints", ())) or (3 if place else 4)
        if feature.names:
            part["names"] = list(feature.names[begin : begin + size])
        if feature.units:
            units = feature.units if len(feature.units) > 1 else feature.units * feature.shape[0]
            part["units"] = list(units[begin : begin + size])
        begin += size
