"""Joint limits from a robot's URDF, read as data: no entities, no includes, no network, bounded size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from robot_deploy.motion.limits import LimitsError

MAX_BYTES = 32 * 1024 * 1024
"""Larger descriptions are refused [bytes]."""


@dataclass(frozen=True, kw_only=True)
class UrdfLimit:
    """What a URDF says about one joint; rad or m, and s. A continuous joint has infinite positions."""

    name: str
    kind: str
    lower: float
    upper: float
    velocity: float


def parse_urdf(text: str | bytes, *, where: str = "URDF") -> dict[str, UrdfLimit]:
    """Return the limits of all movable joints, by name.

    A document type is refused, whatever it holds: entities that grow without bound or read files need one.

    Raises:
        LimitsError: Not XML, too large, with a document type, or a movable joint without limits.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise LimitsError(f"{where}: {len(data)} bytes, expected at most {MAX_BYTES}")
    if b"\x00" in data or b"<!doctype" in data.lower():
        raise LimitsError(
            f"{where}: has a document type or is not UTF-8; expected plain URDF without entities"
        )
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise LimitsError(f"{where}: not XML ({error}); expected a URDF, after xacro") from error
    if root.tag != "robot":
        raise LimitsError(f"{where}: root element <{root.tag}>, expected <robot>")
    limits: dict[str, UrdfLimit] = {}
    for joint in root.findall("joint"):
        name, kind = joint.get("name", ""), joint.get("type", "")
        if kind not in ("revolute", "prismatic", "continuous"):
            continue
        if not name or name in limits:
            raise LimitsError(f"{where}: joint name '{name}' is empty or used twice")
        limit = joint.find("limit")
        if limit is None:
            raise LimitsError(f"{where}: {kind} joint '{name}' has no <limit>")
        endless = kind == "continuous"
        limits[name] = UrdfLimit(
            name=name,
            kind=kind,
            lower=-math.inf if endless else _number(limit, "lower", "0", f"{where}: joint '{name}'"),
            upper=math.inf if endless else _number(limit, "upper", "0", f"{where}: joint '{name}'"),
            velocity=_number(limit, "velocity", None, f"{where}: joint '{name}'"),
        )
    return limits


def read_urdf(path: Path) -> dict[str, UrdfLimit]:
    """Return `parse_urdf` of a file.

    Raises:
        LimitsError: The file cannot be read, or see `parse_urdf`.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LimitsError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        return parse_urdf(path.read_bytes(), where=str(path))
    except OSError as error:
        raise LimitsError(f"{path}: {error.strerror}; expected a readable URDF file") from error


def select(limits: dict[str, UrdfLimit], names: Sequence[str], *, where: str = "URDF") -> list[UrdfLimit]:
    """Return the limits of some joints, in their order.

    Raises:
        LimitsError: A joint is not there.
    """
    missing = [name for name in names if name not in limits]
    if missing:
        raise LimitsError(f"{where}: no movable joint {missing}; it has {', '.join(limits) or 'none'}")
    return [limits[name] for name in names]


def _number(element: ElementTree.Element, key: str, default: str | None, where: str) -> float:
    text = element.get(key, default)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LimitsError(f"{where}: limit {key}={text!r}, expected a finite number")
    return value
