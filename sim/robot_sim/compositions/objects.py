"""The kinds of objects that compositions may put on the table."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.scene import add_box
from robot_sim.registry import TaskError
from robot_sim.tasks.cabinet import CABINET, add_cabinet, put_cabinet
from robot_sim.tasks.mark import add_mark, put_mark
from robot_sim.tasks.mjcf import attach_object
from robot_sim.tasks.socket import add_socket, put_socket
from robot_sim.vector.mujoco_names import ModelNames

COLORS = {
    "red": (0.8, 0.15, 0.12),
    "green": (0.15, 0.6, 0.25),
    "blue": (0.2, 0.35, 0.8),
    "yellow": (0.9, 0.75, 0.15),
    "orange": (0.9, 0.45, 0.1),
    "purple": (0.5, 0.25, 0.6),
    "white": (0.92, 0.92, 0.9),
    "grey": (0.5, 0.5, 0.52),
    "black": (0.12, 0.12, 0.13),
}
VESSEL_WALL = 0.004  # thickness of the walls of trays and cups [m]
_SIZE_SPREAD, _HUE_SPREAD = 0.08, 0.03  # how much variants differ


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """One object of a composition.

    Attributes:
        name: Of its body.
        kind: One of `KINDS`.
        half: Half sizes along x, y and z [m]; what is not round or hollow in one number is taken from these.
        color: One of `COLORS`.
        region: Low x, low y, high x, high y of where it may lie [m]; empty takes the layout's.
        yaw: Smallest and largest angle about z [deg].
        lying: Whether a box or cylinder lies on its side: it is turned by 90 degrees about its y axis.
        inside: Object on whose middle it lies, e.g. a ball in a cup.
        opened: How far a drawer is open [m].
        density: [kg/m^3].
        friction: Sliding friction.
        file: MJCF file of the kind ``mjcf``, whose first body it is.
    """

    name: str
    kind: str
    half: tuple[float, ...] = (0.02, 0.02, 0.02)
    color: str = "red"
    region: tuple[float, ...] = ()
    yaw: tuple[float, float] = (-180.0, 180.0)
    lying: bool = False
    inside: str = ""
    opened: float = 0.0
    density: float = 500.0
    friction: float = 1.0
    file: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f"object '{self.name}': {unknown_name('kind', self.kind, KINDS)}")
        if self.color not in COLORS:
            raise TaskError(f"object '{self.name}': {unknown_name('color', self.color, COLORS)}")
        if len(self.half) != 3 or min(self.half) <= 0:
            raise TaskError(f"object '{self.name}': half is {self.half}; expected three positive sizes [m]")
        if self.region and len(self.region) != 4:
            raise TaskError(
                f"object '{self.name}': region is {self.region}; expected low x, low y, high x, high y"
            )
        if (self.kind == "mjcf") != bool(self.file):
            raise TaskError(f"object '{self.name}': kind mjcf, and only that, has a file")

    @property
    def is_free(self) -> bool:
        """Whether it moves freely, with joint ``<name>_joint``."""
        return KINDS[self.kind].is_free

    @property
    def rest_height(self) -> float:
        """Height of its origin when it lies on the table [m]."""
        if not self.is_free:
            return 0.0
        return self.half[0] if self.lying else self.half[2]


def varied(
    spec: ObjectSpec, random: np.random.Generator | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return half sizes and colour rgba of an object; with a generator, of a variant of it."""
    red, green, blue = COLORS[spec.color]
    if random is None:
        return spec.half, (red, green, blue, 1.0)
    scale = 1.0 + random.uniform(-_SIZE_SPREAD, _SIZE_SPREAD, 3)
    if spec.kind in ("cylinder", "ball"):
        scale[1] = scale[0]
    half = tuple(float(size * factor) for size, factor in zip(spec.half, scale, strict=True))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = float(np.clip(light * random.uniform(0.85, 1.15), 0, 1))
    color = colorsys.hls_to_rgb((hue + random.uniform(-_HUE_SPREAD, _HUE_SPREAD)) % 1.0, light, saturation)
    return half, (*color, 1.0)


@dataclass(frozen=True)
class Kind:
    """How a kind of object is built and placed.

    Attributes:
        add: Adds it to a scene, given its spec, half sizes and colour.
        is_free: Whether it has a free joint.
        put: Writes its pose into ``qpos``, given place (2,) and angle; None for free ones.
    """

    add: Callable[[Any, ObjectSpec, tuple[float, ...], tuple[float, ...]], None]
    is_free: bool = True
    put: Callable[[ModelNames, np.ndarray, ObjectSpec, np.ndarray, float], None] | None = None


def _box(scene: Any, spec: ObjectSpec, half: tuple[float, ...], rgba: tuple[float, ...]) -> None:
    add_box(scene, spec.name, size=half, rgba=rgba, density=spec.density, friction=spec.friction)


def _round(kind: Any) -> Callable[[Any, ObjectSpec, tuple[float, ...], tuple[float, ...]], None]:
    def add(scene: Any, spec: ObjectSpec, half: tuple[float, ...], rgba: tuple[float, ...]) -> None:
        body = scene.worldbody.add_body(name=spec.name)
        body.add_freejoint(name=f"{spec.name}_joint")
        body.add_geom(
            name=spec.name, type=kind, size=[half[0], half[2], 0], rgba=list(rgba), density=spec.density,
            friction=[spec.friction, 0.005, 0.002], condim=6, solref=[0.01, 1.0],
        )  # fmt: skip

    return add


def _vessel(scene: Any, spec: ObjectSpec, half: tuple[float, ...], rgba: tuple[float, ...]) -> None:
    """A box without a lid, origin in its middle: a tray if it is low, a cup if it is high."""
    body = scene.worldbody.add_body(name=spec.name)
    body.add_freejoint(name=f"{spec.name}_joint")
    wall, (x, y, z) = VESSEL_WALL / 2, half
    body.add_site(name=f"{spec.name}_middle", pos=[0, 0, 2 * wall - z], size=[0.004] * 3, group=4)
    # The first geom tells skills the outer size; it touches nothing.
    body.add_geom(
        name=spec.name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[x, y, z], rgba=[0, 0, 0, 0], density=0.0,
        contype=0, conaffinity=0, group=4,
    )  # fmt: skip
    for side, size, place in (
        ("floor", (x, y, wall), (0, 0, wall - z)),
        ("front", (wall, y, z), (wall - x, 0, 0)),
        ("back", (wall, y, z), (x - wall, 0, 0)),
        ("left", (x, wall, z), (0, y - wall, 0)),
        ("right", (x, wall, z), (0, wall - y, 0)),
    ):
        body.add_geom(
            name=f"{spec.name}_{side}", type=mujoco.mjtGeom.mjGEOM_BOX, size=list(size), pos=list(place),
            rgba=list(rgba), density=spec.density, friction=[spec.friction, 0.005, 0.0001], condim=4,
            solref=[0.01, 1.0],
        )  # fmt: skip


def _button(scene: Any, spec: ObjectSpec, half: tuple[float, ...], rgba: tuple[float, ...]) -> None:
    body = scene.worldbody.add_body(name=spec.name)
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        body.add_joint(
            name=f"{spec.name}_{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction, armature=100.0,
            frictionloss=500.0, damping=[1000.0, 0, 0],
        )  # fmt: skip
    body.add_geom(
        name=f"{spec.name}_base", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.04, 0.04, 0.01], pos=[0, 0, 0.01],
        rgba=[0.3, 0.3, 0.32, 1], density=1000.0,
    )  # fmt: skip
    cap = body.add_body(name=f"{spec.name}_cap", pos=[0, 0, 0.035])
    cap.add_joint(
        name=f"{spec.name}_press", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], range=[0, 0.014], limited=True,
        stiffness=[60.0, 0, 0], damping=[4.0, 0, 0], armature=0.02,
    )  # fmt: skip
    cap.add_geom(
        name=f"{spec.name}_cap", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.022, 0.012, 0], rgba=list(rgba),
        density=300.0,
    )  # fmt: skip
    cap.add_site(name=spec.name, pos=[0, 0, 0.012], size=[0.004] * 3, group=4)
    scene.add_exclude(bodyname1=spec.name, bodyname2=f"{spec.name}_cap")
    scene.add_exclude(bodyname1="world", bodyname2=spec.name)


def _put_button(names: ModelNames, qpos: np.ndarray, spec: ObjectSpec, place: np.ndarray, yaw: float) -> None:
    del yaw
    qpos[names.qpos(f"{spec.name}_x", f"{spec.name}_y")] = place


def _put_cabinet(
    names: ModelNames, qpos: np.ndarray, spec: ObjectSpec, place: np.ndarray, yaw: float
) -> None:
    put_cabinet(names, qpos, (place[0], place[1]), yaw, opened=spec.opened)


KINDS: dict[str, Kind] = {
    "box": Kind(_box),
    "cylinder": Kind(_round(mujoco.mjtGeom.mjGEOM_CYLINDER)),
    "ball": Kind(_round(mujoco.mjtGeom.mjGEOM_SPHERE)),
    "vessel": Kind(_vessel),
    "mjcf": Kind(lambda scene, spec, half, rgba: attach_object(scene, spec.name, spec.file)),
    "mark": Kind(
        lambda scene, spec, half, rgba: add_mark(scene, spec.name, half=half[:2], rgba=rgba),
        is_free=False,
        put=lambda names, qpos, spec, place, yaw: put_mark(names, qpos, spec.name, place),
    ),
    "socket": Kind(
        lambda scene, spec, half, rgba: add_socket(scene, spec.name, hole=spec.half[0], rgba=rgba),
        is_free=False,
        put=lambda names, qpos, spec, place, yaw: put_socket(names, qpos, spec.name, place.tolist(), yaw),
    ),
    "cabinet": Kind(lambda scene, spec, half, rgba: add_cabinet(scene), is_free=False, put=_put_cabinet),
    "button": Kind(_button, is_free=False, put=_put_button),
}
#: Kinds whose body has a name of its own.
BODIES = {"cabinet": CABINET}
