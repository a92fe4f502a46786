"""A low cabinet with one drawer, for table-top scenes.

Cabinet frame: origin under the middle of its front, x into the cabinet, y to the left, z up. The
handle is a bar along y in front of it, at a height from which a hand that reaches down clears the cabinet's top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.vector.mujoco_names import ModelNames

CABINET, DRAWER, HANDLE, JOINT = "cabinet", "drawer", "handle", "drawer_joint"
WIDTH, DEPTH, HEIGHT = 0.1, 0.16, 0.1  # half width, depth, height [m]
WALL = 0.005  # half thickness [m]
BAR_HEIGHT = 0.085  # of the handle [m]
BAR_GAP = 0.085  # from the front to the middle of the bar [m]
BAR = (0.05, 0.008)  # half length and half thickness of the bar [m]
TRAVEL = 0.15  # [m]
_WOOD, _FRONT, _METAL = [0.62, 0.45, 0.3, 1], [0.75, 0.6, 0.42, 1], [0.25, 0.25, 0.28, 1]


def add_cabinet(scene: Any) -> None:
    """Add the cabinet: joints ``cabinet_x``, ``cabinet_y``, ``cabinet_yaw`` and ``drawer_joint``, site ``handle``.

    The first three place it when an episode is drawn. Their friction is that of a heavy thing: no arm moves it.
    """
    cabinet = scene.worldbody.add_body(name=CABINET)
    for name, kind, axis in (
        ("x", mujoco.mjtJoint.mjJNT_SLIDE, [1, 0, 0]),
        ("y", mujoco.mjtJoint.mjJNT_SLIDE, [0, 1, 0]),
        ("yaw", mujoco.mjtJoint.mjJNT_HINGE, [0, 0, 1]),
    ):
        cabinet.add_joint(
            name=f"cabinet_{name}",
            type=kind,
            axis=axis,
            armature=100.0,
            frictionloss=500.0,
            damping=[1000.0, 0, 0],
        )
    middle = DEPTH / 2
    for name, size, place in (
        ("top", (middle, WIDTH, WALL), (middle, 0, HEIGHT - WALL)),
        ("left", (middle, WALL, HEIGHT / 2), (middle, WIDTH - WALL, HEIGHT / 2)),
        ("right", (middle, WALL, HEIGHT / 2), (middle, WALL - WIDTH, HEIGHT / 2)),
        ("back", (WALL, WIDTH, HEIGHT / 2), (DEPTH - WALL, 0, HEIGHT / 2)),
    ):
        _box(cabinet, f"cabinet_{name}", size, place, _WOOD)
    drawer = cabinet.add_body(name=DRAWER)
    drawer.add_joint(
        name=JOINT, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[-1, 0, 0], range=[0, TRAVEL], limited=True,
        damping=[4.0, 0, 0], frictionloss=1.0, armature=0.2,
    )  # fmt: skip
    inner = WIDTH - 2.5 * WALL
    _box(drawer, "drawer_front", (WALL, WIDTH, HEIGHT / 2 - 0.002), (-WALL, 0, HEIGHT / 2), _FRONT)
    _box(drawer, "drawer_floor", (middle - 0.012, inner, 0.003), (middle - 0.008, 0, 0.008), _FRONT)
    for side in (1, -1):
        _box(
            drawer,
            f"drawer_side{side}",
            (middle - 0.012, 0.003, 0.025),
            (middle - 0.008, side * inner, 0.03),
            _FRONT,
        )
    handle = drawer.add_body(name=HANDLE, pos=[-BAR_GAP - 2 * WALL, 0, BAR_HEIGHT])
    _box(handle, "handle_bar", (BAR[1], BAR[0], BAR[1]), (0, 0, 0), _METAL, friction=1.5)
    for side in (1, -1):
        _box(
            handle,
            f"handle_post{side}",
            (BAR_GAP / 2, 0.005, 0.005),
            (BAR_GAP / 2, side * (BAR[0] - 0.005), 0),
            _METAL,
        )
    # x along the bar, z out of the drawer
    handle.add_site(name=HANDLE, quat=[0.5, -0.5, -0.5, 0.5], size=[0.004, 0.004, 0.004], group=4)
    scene.add_exclude(bodyname1=CABINET, bodyname2=DRAWER)
    scene.add_exclude(bodyname1="world", bodyname2=DRAWER)
    scene.add_exclude(bodyname1="world", bodyname2=CABINET)


def put_cabinet(
    names: ModelNames, qpos: np.ndarray, place: Sequence[float], yaw: float, *, opened: float
) -> None:
    """Write where the cabinet stands (2,) [m], how it is turned [rad] and how far it is open [m] into `qpos` (nq,)."""
    qpos[names.qpos("cabinet_x", "cabinet_y", "cabinet_yaw", JOINT)] = [*place, yaw, opened]


def _box(
    body: Any,
    name: str,
    half: Sequence[float],
    place: Sequence[float],
    rgba: Sequence[float],
    friction: float = 0.8,
) -> None:
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=list(half), pos=list(place), rgba=list(rgba), density=400.0,
        friction=[friction, 0.005, 0.0001], condim=4,
    )  # fmt: skip
