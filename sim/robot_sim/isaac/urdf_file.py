"""What a URDF file says: links, joints and where they are.

MuJoCo reads URDF too, but rejects ``<inertial>`` without ``<inertia>``, melts the root link into the world and keeps
the file's order. Isaac Gym does none of that, and its tasks count on it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.transforms import Quat, Transform, Vec3

MESH_SUFFIXES = (".stl", ".obj", ".msh")
JOINT_TYPES = ("revolute", "continuous", "prismatic", "fixed")


@dataclass
class Collision:
    """One collision shape: kind, sizes as in the URDF, mesh file."""

    pose: Transform
    kind: str
    size: list[float]
    mesh: Path | None = None


@dataclass
class Link:
    """A link; `mass` and `inertia` (3, 3) about `com_pose` are None where the file does not say."""

    name: str
    collisions: list[Collision] = field(default_factory=list)
    mass: float | None = None
    inertia: np.ndarray | None = None
    com_pose: Transform = field(default_factory=Transform)


@dataclass
class Joint:
    """A joint between two links."""

    name: str
    kind: str
    parent: str
    child: str
    pose: Transform
    axis: np.ndarray
    lower: float | None
    upper: float | None
    effort: float
    velocity: float
    damping: float
    friction: float
    mimics: str | None
    keep: bool


@dataclass
class Urdf:
    """A parsed file.

    Attributes:
        name: Of the robot.
        root: Name of the root link.
        links: By name.
        children: Link -> joints to its children, sorted by name: that is Isaac Gym's order of links and degrees of
            freedom (FrankaCabinet expects ``drawer_top_joint``, third in its file, as the last of four).
    """

    name: str
    root: str
    links: dict[str, Link]
    children: dict[str, list[Joint]]


def read_urdf(path: Path, asset_root: Path) -> Urdf:
    """Read a URDF file.

    Args:
        path: The file.
        asset_root: Folder in which ``package://`` is looked for besides the file's own and those above it.

    Raises:
        IsaacError: It is no URDF, is no tree, or has a kind of joint or mesh that cannot be simulated.
    """
    try:
        robot = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise IsaacError(f"{path} is no well-formed XML: {error}; repair that line") from error
    if robot.tag != "robot":
        raise IsaacError(f"{path} starts with <{robot.tag}>; a URDF file starts with <robot>")
    try:
        links = {link.name: link for link in (_link(one, path, asset_root) for one in robot.findall("link"))}
        joints = [_joint(element, path) for element in robot.findall("joint")]
    except ValueError as error:  # of float()
        raise IsaacError(f"{path}: {error}; repair that number") from error
    for joint in joints:
        for end in (joint.parent, joint.child):
            if end not in links:
                raise IsaacError(
                    f"{path}: joint '{joint.name}' names link '{end}', which the file does not define"
                )
    return Urdf(robot.get("name") or path.stem, _root(links, joints, path), links, _tree(links, joints))


def _root(links: dict[str, Link], joints: list[Joint], path: Path) -> str:
    children = {joint.child for joint in joints}
    roots = [name for name in links if name not in children]
    if len(roots) != 1 or len(children) != len(joints):
        raise IsaacError(f"{path} has the root links {roots}; a URDF is a tree with exactly one root")
    return roots[0]


def _tree(links: dict[str, Link], joints: list[Joint]) -> dict[str, list[Joint]]:
    children: dict[str, list[Joint]] = {name: [] for name in links}
    for joint in sorted(joints, key=lambda joint: joint.name):
        children[joint.parent].append(joint)
    return children


def _link(element: ElementTree.Element, path: Path, asset_root: Path) -> Link:
    link = Link(element.get("name") or "")
    for collision in element.findall("collision"):
        shape = _shape(collision, path, asset_root)
        if shape is not None:
            link.collisions.append(shape)
    inertial = element.find("inertial")
    if inertial is None:
        return link
    link.com_pose = _pose(inertial.find("origin"))
    mass, inertia = inertial.find("mass"), inertial.find("inertia")
    if mass is not None:
        link.mass = float(mass.get("value", 0.0))
    if inertia is not None:
        xx, yy, zz, xy, xz, yz = (
            float(inertia.get(f"i{k}", 0.0)) for k in ("xx", "yy", "zz", "xy", "xz", "yz")
        )
        link.inertia = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return link


def _shape(collision: ElementTree.Element, path: Path, asset_root: Path) -> Collision | None:
    pose = _pose(collision.find("origin"))
    geometry = collision.find("geometry")
    for shape in geometry if geometry is not None else ():
        if shape.tag == "box":
            return Collision(pose, "box", _numbers(shape.get("size"), 3))
        if shape.tag == "sphere":
            return Collision(pose, "sphere", [float(shape.get("radius", 0.0))])
        if shape.tag in ("cylinder", "capsule"):
            return Collision(
                pose, shape.tag, [float(shape.get("radius", 0.0)), float(shape.get("length", 0.0))]
            )
        if shape.tag == "mesh":
            file = find_mesh(shape.get("filename") or "", path, asset_root)
            return Collision(pose, "mesh", _numbers(shape.get("scale", "1 1 1"), 3), file)
        raise IsaacError(
            f"{path}: collision shape <{shape.tag}>; expected box, sphere, cylinder, capsule or mesh"
        )
    return None


def find_mesh(name: str, path: Path, asset_root: Path) -> Path:
    """Return the file a URDF's mesh name means, ``package://`` included.

    Raises:
        IsaacError: There is no such file, or MuJoCo does not read its kind.
    """
    relative = name.split("://", 1)[-1]
    folders = [path.parent, asset_root, *path.parents]
    found = next((folder / relative for folder in folders if (folder / relative).is_file()), None)
    if found is None:
        raise IsaacError(
            f"{path} names the mesh {name}, which is not in {path.parent}, above it, or in {asset_root}"
        )
    if found.suffix.lower() not in MESH_SUFFIXES:
        raise IsaacError(
            f"{path} collides with {name}; MuJoCo reads {', '.join(MESH_SUFFIXES)}: convert the mesh"
        )
    return found.resolve()


def _joint(element: ElementTree.Element, path: Path) -> Joint:
    name, kind = element.get("name") or "", element.get("type") or ""
    if kind not in JOINT_TYPES:
        raise IsaacError(
            f"{path}: joint '{name}' is of type '{kind}'; expected one of {', '.join(JOINT_TYPES)}"
        )
    limit, dynamics, mimic = element.find("limit"), element.find("dynamics"), element.find("mimic")
    axis = element.find("axis")
    direction = np.array(_numbers(axis.get("xyz") if axis is not None else "1 0 0", 3))
    has_limits = kind in ("revolute", "prismatic") and limit is not None

    def of(part: ElementTree.Element | None, key: str) -> float:
        return 0.0 if part is None else float(part.get(key, 0.0))

    return Joint(
        name=name,
        kind=kind,
        parent=_end(element, "parent"),
        child=_end(element, "child"),
        pose=_pose(element.find("origin")),
        axis=direction / max(float(np.linalg.norm(direction)), 1e-12),
        lower=of(limit, "lower") if has_limits else None,
        upper=of(limit, "upper") if has_limits else None,
        effort=of(limit, "effort"),
        velocity=of(limit, "velocity"),
        damping=of(dynamics, "damping"),
        friction=of(dynamics, "friction"),
        mimics=mimic.get("joint") if mimic is not None else None,
        keep=element.get("dont_collapse", "false").lower() == "true",
    )


def _end(element: ElementTree.Element, which: str) -> str:
    end = element.find(which)
    return (end.get("link") or "") if end is not None else ""


def _pose(origin: ElementTree.Element | None) -> Transform:
    if origin is None:
        return Transform()
    rpy = _numbers(origin.get("rpy", "0 0 0"), 3)
    return Transform(Vec3(*_numbers(origin.get("xyz", "0 0 0"), 3)), Quat.from_euler_zyx(*rpy))


def _numbers(text: str | None, count: int) -> list[float]:
    numbers = [float(part) for part in (text or "").split()]
    if len(numbers) != count:
        raise IsaacError(f"a URDF holds '{text}' where {count} numbers are expected; repair that attribute")
    return numbers
