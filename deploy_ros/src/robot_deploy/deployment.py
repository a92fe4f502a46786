"""One YAML per deployment: robot, cameras, topics, checkpoint and what else a policy node has to know.

Paths in the file are relative to its folder. Every key is checked; limits can only be tightened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError, from_mapping
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.observation.rings import SourceConfig
from robot_deploy.observation.window import FeatureSource
from robot_deploy.robots import RobotConfig, TargetConfig, load_robot, load_target
from robot_deploy.runtime_config import Mode, RuntimeConfig
from robot_deploy.urdf import read_urdf

PRESETS = Path(__file__).parent / "presets" / "deployments"
_FROM_HERE = ("mode", "features", "feedback", "sources", "command", "waits")


@dataclass(frozen=True, kw_only=True)
class KinematicsConfig:
    """A source computed from joints instead of received: where a tool is.

    Attributes:
        joints: Name of the source of joint positions; the arm's joints come first in it.
        arm: Arm of `robot_datasets.kinematics`.
        tool: The tool's point in the frame of the flange [m].
    """

    joints: str
    arm: str
    tool: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(SourceConfig):
    """A source and the topic it comes from.

    The message is given by the kind: ``state`` JointState, ``pose`` PoseStamped, ``image`` CompressedImage or, with
    ``transport: raw``, Image.

    Attributes:
        topic: Where it comes from; empty for one that is computed.
        value: Which numbers of a JointState are taken.
        kinematics: For a computed one: the source becomes x, y, z of a tool in the frame of the arm's base [m].
        transport: Images: ``compressed`` (JPEG or PNG), or ``raw`` (8 bits: rgb8, bgr8, rgba8, bgra8, mono8).
        resize: Images: scale to the policy's size, keeping proportions; otherwise another size is an error.
        max_bytes: Images: larger messages are refused [bytes].
    """

    topic: str = ""
    value: Literal["position", "velocity", "effort"] = "position"
    kinematics: KinematicsConfig | None = None
    transport: Literal["compressed", "raw"] = "compressed"
    resize: bool = False
    max_bytes: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.topic) == (self.kinematics is not None):
            raise ConfigError("a source needs either a topic or kinematics")
        if self.kinematics is not None and (self.kind != "state" or len(self.names) != 3):
            raise ConfigError("a source with kinematics is of kind 'state' with three names: x, y and z")
        if self.transport == "raw" and self.kind != "image":
            raise ConfigError(f"transport: only an image can be raw, this is a {self.kind}")
        if not 1024 <= self.max_bytes <= 64 * 1024 * 1024:
            raise ConfigError(f"max_bytes {self.max_bytes}; expected 1 KiB to 64 MiB")


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """Where the commands of some joints go.

    Attributes:
        target: Preset of `robot_deploy.robots`, or a YAML file.
        topic: Replaces the preset's topic.
        joints: Which joints, in the controller's order; empty for all.
        frame: Frame of reference of a twist.
    """

    target: str = "joint_trajectory"
    topic: str = ""
    joints: tuple[str, ...] = ()
    frame: str = ""

    def resolve(self) -> TargetConfig:
        """The target with its topic."""
        target = load_target(self.target)
        return replace(target, topic=self.topic) if self.topic else target


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Where the arm has to be before a policy may start: what it was trained to start from.

    Attributes:
        joints: Joint -> position [rad or m].
        tolerance: Largest distance of each [rad or m].
    """

    joints: Mapping[str, float]
    tolerance: float = 0.1


@dataclass(frozen=True, kw_only=True)
class DeadmanConfig:
    """A switch that has to be held: a topic of Bool that says true, again and again.

    Attributes:
        topic: Of std_msgs/Bool.
        lease_ms: How long one message counts [ms].
    """

    topic: str
    lease_ms: float = 200.0


@dataclass(frozen=True, kw_only=True)
class DeploymentConfig:
    """Everything a policy node is made from.

    Attributes:
        robot: Preset of `robot_deploy.robots`, or a YAML file.
        checkpoint: Checkpoint or run directory; empty if only the mode ``tracker`` is used.
        streams: Sources by name.
        features: Where each feature of the policy comes from.
        urdf: The robot's description after xacro; its limits are never exceeded.
        mode: ``dry_run``, ``shadow``, ``tracker`` or ``live``.
        targets: Controllers; every joint of the robot in exactly one of them.
        feedback: The source that holds the measured joint positions.
        action_joints: Joint -> component of the policy's action, where the names differ.
        instruction: What a language-conditioned policy is told.
        embodiment: Of a policy trained on several robots: this one.
        sampler: Replaces the policy's sampler, e.g. ``{type: ddim, steps: 5}``.
        seed: Of the policy's noise.
        device: Where the policy runs: ``cpu``, ``cuda``.
        threads: Of the inference; 0 leaves it to torch.
        start: Where the arm has to be; None for anywhere.
        emergency_stop: Topic of std_msgs/Bool; true stops and latches.
        deadman: A switch to be held; None for none.
        track: Topic of JointState that the modes ``tracker`` and a person's correction follow.
        runtime: Fields of `RuntimeConfig` that are not above.
    """

    robot: str
    streams: Mapping[str, StreamConfig]
    checkpoint: str = ""
    features: Mapping[str, tuple[FeatureSource, ...]] = field(default_factory=dict)
    urdf: str = ""
    mode: Mode = "dry_run"
    targets: tuple[TargetEntry, ...] = (TargetEntry(),)
    feedback: str = "joints"
    action_joints: Mapping[str, str] = field(default_factory=dict)
    instruction: str = ""
    embodiment: str | None = None
    sampler: Mapping[str, Any] | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    start: StartConfig | None = None
    emergency_stop: str = "/emergency_stop"
    deadman: DeadmanConfig | None = None
    track: str = "~/track"
    runtime: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.runtime:
            if key in _FROM_HERE:
                raise ConfigError(f"runtime.{key}: is set outside of 'runtime', or follows from it")
        for name, stream in self.streams.items():
            of = stream.kinematics
            if of is None:
                continue
            if of.joints not in self.streams or self.streams[of.joints].kind != "state":
                raise ConfigError(f"streams.{name}: {unknown_name('state', of.joints, self.streams)}")
        if not self.targets:
            raise ConfigError("targets: empty; name at least one controller")

    def runtime_config(self) -> RuntimeConfig:
        """The configuration of the runtime."""
        kinds = {entry.resolve().kind for entry in self.targets}
        if "servo_twist" in kinds and len(self.targets) > 1:
            raise ConfigError("targets: servo_twist commands the hand's velocity and stands alone")
        if "servo_twist" in kinds and not all(entry.frame for entry in self.targets):
            raise ConfigError(
                "targets: servo_twist needs 'frame', the frame of reference of the policy's velocities, e.g. the base"
            )
        values = dict(self.runtime) | {
            "sources": dict(self.streams),
            "features": dict(self.features),
            "feedback": self.feedback,
            "mode": self.mode,
            "command": "velocity" if "servo_twist" in kinds else "position",
            "waits": "joint_trajectory" not in kinds,
        }
        return from_mapping(RuntimeConfig, values, where="runtime")

    def robot_config(self) -> RobotConfig:
        """The robot."""
        return load_robot(self.robot)

    def limits(self) -> MotionLimits:
        """The robot's limits, within the URDF's if there is one."""
        return self.robot_config().limits(read_urdf(Path(self.urdf)) if self.urdf else None)

    def check_targets(self, joints: tuple[str, ...]) -> None:
        """Raise `ConfigError` unless every joint of the robot has exactly one controller."""
        named = [name for entry in self.targets for name in (entry.joints or joints)]
        for name in named:
            if name not in joints:
                raise ConfigError(f"targets: {unknown_name('joint', name, joints)}")
            if named.count(name) > 1:
                raise ConfigError(f"targets: joint '{name}' is commanded by more than one controller")
        missing = [name for name in joints if name not in named]
        if missing:
            raise ConfigError(
                f"targets: no controller for {', '.join(missing)}; add one, or leave the joints out"
            )


def deployment_presets() -> list[str]:
    """Names of the deployments that come with the package, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_deployment(name: str | Path, **changes: Any) -> DeploymentConfig:
    """Return a preset deployment by name, or the one in a YAML file.

    Args:
        name: Preset, or path of a ``.yaml`` file.
        changes: Fields to replace, e.g. ``mode="shadow"``.

    Raises:
        ConfigError: No such preset (with the nearest match), or the file is not valid.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in deployment_presets():
            raise ConfigError(unknown_name("deployment", name, deployment_presets()))
        path = PRESETS / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; expected a YAML file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(values).__name__}")
    for key in ("robot", "checkpoint", "urdf"):
        values[key] = _beside(path.parent, values.get(key, ""), key)
    for target in values.get("targets", []) if isinstance(values.get("targets"), list) else []:
        if isinstance(target, dict) and "target" in target:
            target["target"] = _beside(path.parent, target["target"], "target")
    return from_mapping(DeploymentConfig, {**values, **changes}, where=f"{path}:")


def _beside(folder: Path, text: Any, key: str) -> Any:
    """Paths are relative to the file that names them; names of presets stay as they are."""
    if not isinstance(text, str) or not text:
        return text
    is_file = key in ("checkpoint", "urdf") or Path(text).suffix in (".yaml", ".yml")
    return str(folder / Path(text).expanduser()) if is_file else text
