"""A block with a square hole, for table-top scenes; it stays where an episode puts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.vector.mujoco_names import ModelNames

DEPTH = 0.04  # of the hole; the height of the block [m]
HALF_WIDTH = 0.045  # of the block [m]


def add_socket(scene: Any, name: str, *, hole: float, rgba: Sequence[float] = (0.35, 0.4, 0.5, 1.0)) -> None:
    """Add the block: body `name`, site `name` in the middle of the hole's rim, joints ``<name>_x``, ``_y``, ``_yaw``.

    Args:
        scene: ``mujoco.MjSpec``.
        name: Of body and site.
        hole: Half width of the hole [m].
        rgba: Colour.
    """
    body = scene.worldbody.add_body(name=name)
    for axis, kind, direction in (
        ("x", mujoco.mjtJoint.mjJNT_SLIDE, [1, 0, 0]),
        ("y", mujoco.mjtJoint.mjJNT_SLIDE, [0, 1, 0]),
        ("yaw", mujoco.mjtJoint.mjJNT_HINGE, [0, 0, 1]),
    ):
        body.add_joint(
            name=f"{name}_{axis}", type=kind, axis=direction, armature=100.0, frictionloss=500.0,
            damping=[1000.0, 0, 0],
        )  # fmt: skip
    half = (HALF_WIDTH - hole) / 2
    middle = hole + half
    for index, (place, size) in enumerate(
        (
            ((middle, 0), (half, HALF_WIDTH)),
            ((-middle, 0), (half, HALF_WIDTH)),
            ((0, middle), (hole, half)),
            ((0, -middle), (hole, half)),
        )
    ):
        body.add_geom(
            name=f"{name}_{index}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[*size, DEPTH / 2],
            pos=[*place, DEPTH / 2], rgba=list(rgba), density=1000.0, friction=[0.4, 0.005, 0.0001],
        )  # fmt: skip
    body.add_site(name=name, pos=[0, 0, DEPTH], size=[0.004, 0.004, 0.004], group=4)
    scene.add_exclude(bodyname1="world", bodyname2=name)


def put_socket(names: ModelNames, qpos: np.ndarray, name: str, place: Sequence[float], yaw: float) -> None:
    """Write where the block stands (2,) [m] and how it is turned [rad] into `qpos` (nq,)."""
    qpos[names.qpos(f"{name}_x", f"{name}_y", f"{name}_yaw")] = [*place, yaw]
