"""Robots and what commands them: the presets, your own YAML, and a URDF, combined by intersection.

A preset never loosens what the URDF says, a YAML file of your own never what the preset says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from robot_datasets.errors import unknown_name
from robot_datasets.kinematics import get_arm
from robot_datasets.mapping import ConfigError, from_mapping
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.motion.workspace import SerialTool, Workspace
from robot_deploy.urdf import UrdfLimit, select

_PRESETS = Path(__file__).parent / "presets"
_ENDINGS = (".yaml", ".yml")
_FIELDS = ("lower", "upper", "velocity", "acceleration", "jerk")


@dataclass(frozen=True, kw_only=True)
class WorkspaceConfig:
    """The box of the tool's point, in the frame of the arm's base [m]; the lower z is the table."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    tool: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.lower) != 3 or len(self.upper) != 3 or len(self.tool) != 3:
            raise ConfigError("workspace: lower, upper and tool need x, y and z [m]")


@dataclass(frozen=True, kw_only=True)
class RobotConfig:
    """A robot's joints and limits, rad or m, and s; one number per joint in every list.

    Attributes:
        robot: Name.
        source: Where the numbers come from.
        joints: Joint names, as in its joint states.
        lower: Position limits; empty takes the URDF's.
        upper: Position limits; empty takes the URDF's.
        velocity: Velocity limits; empty takes the URDF's.
        acceleration: Acceleration limits; nothing else holds them.
        jerk: Jerk limits; nothing else holds them.
        kinematics: Arm of `robot_datasets.kinematics` for the workspace; its joints come first.
        workspace: Box of the tool, or none.
        position_margin: Distance kept from the position limits [rad or m], for all joints or one for each.
        velocity_scale: Share of the velocity limits that is used, in (0, 1].
    """

    robot: str
    source: str
    joints: tuple[str, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    velocity: tuple[float, ...] = ()
    acceleration: tuple[float, ...] = ()
    jerk: tuple[float, ...] = ()
    kinematics: str | None = None
    workspace: WorkspaceConfig | None = None
    position_margin: float | tuple[float, ...] = 0.1
    velocity_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in _FIELDS:
            numbers = getattr(self, name)
            if numbers and len(numbers) != len(self.joints):
                raise ConfigError(f"robot.{name}: {len(numbers)} numbers for {len(self.joints)} joints")
        margin = self.position_margin
        if isinstance(margin, (list, tuple)):
            object.__setattr__(self, "position_margin", tuple(margin))
        for number in (margin,) if isinstance(margin, (int, float)) else margin:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise ConfigError(f"robot.position_margin: {margin!r}; expected a number, or one per joint")
        if self.workspace is not None and self.kinematics is None:
            raise ConfigError(
                "robot.workspace: needs robot.kinematics, an arm whose forward kinematics are known"
            )

    def limits(self, urdf: Mapping[str, UrdfLimit] | None = None) -> MotionLimits:
        """Return the limits with margin and scales, never looser than the URDF's.

        Raises:
            LimitsError: A limit is given nowhere, or none is left.
        """
        if not self.joints:
            raise LimitsError(f"robot '{self.robot}' has no joints; name them in its YAML file")
        described = select(dict(urdf), self.joints) if urdf is not None else None
        arrays: dict[str, np.ndarray] = {}
        for name in _FIELDS:
            own = np.array(getattr(self, name), dtype=np.float64)
            theirs = None
            if described is not None and name in ("lower", "upper", "velocity"):
                theirs = np.array([getattr(limit, name) for limit in described])
            if not len(own) and theirs is None:
                hint = "give a URDF, or set" if name in ("lower", "upper", "velocity") else "set"
                raise LimitsError(
                    f"robot '{self.robot}': no {name} limits; {hint} robot.{name}, one number per joint"
                )
            tighter = np.maximum if name == "lower" else np.minimum
            arrays[name] = own if theirs is None else theirs if not len(own) else tighter(own, theirs)
        full = MotionLimits(names=self.joints, **arrays)
        return full.shrunk(self.position_margin).scaled(velocity=self.velocity_scale)

    def make_workspace(self) -> Workspace | None:
        """Return the workspace, or None.

        Raises:
            LimitsError: The box is empty.
        """
        if self.workspace is None or self.kinematics is None:
            return None
        arm = get_arm(self.kinematics)
        x, y, z = self.workspace.tool
        return Workspace(
            SerialTool(arm, (x, y, z)),
            joints=slice(0, len(arm.links)),
            lower=self.workspace.lower,
            upper=self.workspace.upper,
        )


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What the commands are sent to.

    Attributes:
        kind: Message: JointTrajectory, Float64MultiArray of positions, or TwistStamped.
        topic: Command topic.
        silence: What the receiver does when messages stop: ``stop`` (executes the stop in the last message),
            ``latch`` (keeps the last position), ``servo_timeout`` (MoveIt Servo's own timeout).
        controller_parameters: Parameters that the receiver must have.
    """

    kind: Literal["joint_trajectory", "forward_position", "servo_twist"]
    topic: str
    silence: Literal["stop", "latch", "servo_timeout"]
    controller_parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fitting = {"joint_trajectory": "stop", "forward_position": "latch", "servo_twist": "servo_timeout"}
        if self.silence != fitting[self.kind]:
            raise ConfigError(
                f"target.silence: '{self.silence}', but a {self.kind} receiver can only '{fitting[self.kind]}'"
            )


def preset_names(group: Literal["robots", "targets"]) -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in (_PRESETS / group).glob("*.yaml"))


def load_robot(name: str | Path) -> RobotConfig:
    """Return a preset robot by name, or the one in a YAML file.

    Raises:
        ConfigError: No such preset (with the nearest match), or the file is not valid.
    """
    return from_mapping(RobotConfig, _read("robots", name), where=f"{name}:")


def load_target(name: str | Path) -> TargetConfig:
    """Return a preset target by name, or the one in a YAML file.

    Raises:
        ConfigError: No such preset (with the nearest match), or the file is not valid.
    """
    return from_mapping(TargetConfig, _read("targets", name), where=f"{name}:")


def _read(group: Literal["robots", "targets"], name: str | Path) -> Mapping[str, Any]:
    path = Path(name)
    if path.suffix not in _ENDINGS:
        if str(name) not in preset_names(group):
            raise ConfigError(unknown_name(group[:-1], name, preset_names(group)))
        path = _PRESETS / group / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; expected a YAML file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values
