"""The cell file: one YAML that says what a physical cell is, for its twin.

Robot, table, objects, cameras, limits, rates, latencies and physical parameters. Reading is strict: an unknown key is
an error with the nearest match, a number out of range one with what was expected. `write_cell` is what calibration
ends with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError, from_mapping, to_mapping

_SHIPPED = Path(__file__).parent / "cells"
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class RobotCell:
    """The arm.

    Attributes:
        joints: Names on the wire, from the base to the hand, in the order of every joint array.
        limits: Name of the deployment's robot preset (`robot_deploy.robots`) whose motion limits bind the arm.
        stiffness: Of the tool's position controller, relative to its inertia [1/s²]; damping is critical.
        lower: Smallest joint positions of this cell [rad]; empty takes the model's.
        upper: Largest joint positions of this cell [rad]; empty takes the model's.
    """

    joints: tuple[str, ...]
    limits: str
    stiffness: float = 150.0
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.joints or len(set(self.joints)) != len(self.joints):
            raise ConfigError(f"robot.joints: {list(self.joints)}; expected at least one name, each once")
        _require_positive("robot.stiffness", self.stiffness)
        for name, bounds in (("lower", self.lower), ("upper", self.upper)):
            if bounds and len(bounds) != len(self.joints):
                raise ConfigError(f"robot.{name}: {len(bounds)} numbers for {len(self.joints)} joints")
            _require_finite(f"robot.{name}", bounds)


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """The table.

    Attributes:
        geom: Its geom in the scene.
        low: Smallest x and y of the field [m].
        high: Largest x and y of the field [m].
    """

    geom: str = "table"
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != 2 or len(self.high) != 2 or not all(np.array(self.low) < np.array(self.high)):
            raise ConfigError(
                f"table: low {list(self.low)}, high {list(self.high)}; expected x and y, low below high"
            )
        _require_finite("table", (*self.low, *self.high))


@dataclass(frozen=True, kw_only=True)
class ObjectCell:
    """A rigid body that is observed and corrected.

    Attributes:
        mass: [kg].
        friction: Sliding friction with the table.
        motion: ``planar``: it slides on the table, so that corrections act on x, y and yaw only; ``free``.
        lost_position: Error beyond which the body counts as lost [m].
        lost_angle: The same for its orientation [rad].
    """

    mass: float
    friction: float
    motion: Literal["planar", "free"] = "free"
    lost_position: float = 0.05
    lost_angle: float = 0.6

    def __post_init__(self) -> None:
        for name in ("mass", "friction", "lost_position", "lost_angle"):
            _require_positive(f"object {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class CameraCell:
    """A calibrated camera: pinhole, OpenCV axes (x right, y down, z along the view).

    Attributes:
        width: [px].
        height: [px].
        fx: Focal length [px].
        fy: Focal length [px].
        cx: Principal point [px].
        cy: Principal point [px].
        position: Of the camera in the world (3,) [m].
        quaternion: From camera axes to world axes, wxyz (4,).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: tuple[float, ...]
    quaternion: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("width", "height", "fx", "fy"):
            _require_positive(f"camera {name}", getattr(self, name))
        if len(self.position) != 3 or len(self.quaternion) != 4:
            raise ConfigError("camera: position needs three numbers, quaternion four (wxyz)")
        _require_finite("camera cx, cy, position", (self.cx, self.cy, *self.position))
        length = math.sqrt(sum(part * part for part in self.quaternion))
        _require(abs(length - 1.0) < 1e-3, "camera quaternion's length", length, "1")


@dataclass(frozen=True, kw_only=True)
class RatesCell:
    """Rates [Hz].

    Attributes:
        twin: Ticks of the twin.
        physics: Physics steps of the twin; a multiple of `twin`.
        objects: Observations of objects, as the cell sends them.
        policy: Control steps of policies.
    """

    twin: float = 60.0
    physics: float = 240.0
    objects: float = 30.0
    policy: float = 10.0

    def __post_init__(self) -> None:
        for name in ("twin", "physics", "objects", "policy"):
            _require(
                0 < getattr(self, name) <= 10_000,
                f"rates.{name}",
                getattr(self, name),
                "above 0, at most 10000",
            )
        steps = self.physics / self.twin
        _require(abs(steps - round(steps)) < 1e-9, "rates.physics", self.physics, "a multiple of rates.twin")


@dataclass(frozen=True, kw_only=True)
class LatencyCell:
    """Ages of what arrives [s].

    Attributes:
        objects: Between the moment a pose was true and its arrival.
        command: Between a command and the moment the arm begins to follow it.
    """

    objects: float = 0.0
    command: float = 0.0

    def __post_init__(self) -> None:
        for name in ("objects", "command"):
            _require(0 <= getattr(self, name) <= 1.0, f"latency.{name}", getattr(self, name), "0 to 1 s")


@dataclass(frozen=True, kw_only=True)
class NoiseCell:
    """Standard deviations of what is measured.

    Attributes:
        position: Of an object, per axis [m].
        angle: Of an object, per axis [rad].
        joint: Of a joint position [rad].
    """

    position: float = 0.001
    angle: float = 0.005
    joint: float = 0.0

    def __post_init__(self) -> None:
        _require_positive("noise.position", self.position)
        _require_positive("noise.angle", self.angle)
        _require(0 <= self.joint < math.inf, "noise.joint", self.joint, "a finite number, 0 or more")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything the twin knows of its cell before it sees it.

    Attributes:
        name: Of the cell.
        task: Own task (`robot_sim.registry`) that builds the scene, with its options.
        robot: The arm.
        table: The table.
        objects: Body name in the scene -> what is known of it.
        cameras: Name -> calibrated camera.
        rates: Rates.
        latency: Latencies.
        noise: Sensor noise.
        correction: ``{"type": ..., ...}``, see `robot_sim.twin.correction`.
        uncertainty: Parameter -> standard deviation, as calibration found it.
    """

    name: str
    task: Mapping[str, Any]
    robot: RobotCell
    table: TableCell
    objects: Mapping[str, ObjectCell]
    cameras: Mapping[str, CameraCell] = field(default_factory=dict)
    rates: RatesCell = field(default_factory=RatesCell)
    latency: LatencyCell = field(default_factory=LatencyCell)
    noise: NoiseCell = field(default_factory=NoiseCell)
    correction: Mapping[str, Any] = field(default_factory=lambda: {"type": "force"})
    uncertainty: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "name" not in self.task:
            raise ConfigError("task: missing 'name', an own task such as tabletop_push_t")
        if not self.objects:
            raise ConfigError("objects: none; a twin without objects has nothing to correct")

    @property
    def physics_steps(self) -> int:
        """Physics steps per tick."""
        return round(self.rates.physics / self.rates.twin)

    @property
    def tick_ns(self) -> int:
        """Length of a tick [ns]."""
        return round(1e9 / self.rates.twin)


def cell_names() -> list[str]:
    """Return the names of the cells that come along, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_cell(name: str | Path) -> Cell:
    """Read a cell that comes along by name, or the one in a YAML file.

    Raises:
        ConfigError: No such cell (with the nearest match), no YAML, or not a valid cell.
    """
    path = Path(name)
    if path.suffix not in _ENDINGS:
        if str(name) not in cell_names():
            raise ConfigError(f"{unknown_name('cell', name, cell_names())}; or give a YAML file")
        path = _SHIPPED / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; expected a YAML file") from error
    return from_mapping(Cell, values, where=f"{path.name}:")


def write_cell(cell: Cell, path: str | Path, *, comment: str) -> None:
    """Write a cell as YAML, at once or not at all.

    Args:
        cell: The cell.
        path: Where; an existing file is replaced.
        comment: First line, what the file is for.
    """
    target = Path(path)
    text = yaml.safe_dump(to_mapping(cell), sort_keys=False, default_flow_style=None, width=110)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(f"# {comment}\n{text}", encoding="utf-8")
    os.replace(partial, target)


def _require_positive(what: str, value: float) -> None:
    _require(0 < value < math.inf, what, value, "a finite number above 0")


def _require_finite(what: str, values: Sequence[float]) -> None:
    _require(all(map(math.isfinite, values)), what, list(values), "finite numbers")


def _require(good: bool, what: str, got: object, expected: str) -> None:
    if not good:
        raise ConfigError(f"{what}: got {got}, expected {expected}")
