"""A flat mark on the table that touches nothing, for table-top scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.vector.mujoco_names import ModelNames


def add_mark(scene: Any, name: str, *, half: Sequence[float], rgba: Sequence[float]) -> None:
    """Add a mark: body and site `name`, slide joints ``<name>_x`` and ``<name>_y``.

    It moves only when an episode is drawn: nothing pushes it.

    Args:
        scene: ``mujoco.MjSpec``.
        name: Of body and site.
        half: Half sizes along x and y [m].
        rgba: Colour.
    """
    body = scene.worldbody.add_body(name=name, pos=[0.0, 0.0, 0.0])
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        body.add_joint(
            name=f"{name}_{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction, armature=10.0,
            damping=[100.0, 0, 0],
        )  # fmt: skip
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[half[0], half[1], 0.0005], rgba=list(rgba), contype=0,
        conaffinity=0, density=100.0,
    )  # fmt: skip
    body.add_site(name=name, size=[0.005, 0.005, 0.005], group=4)


def put_mark(names: ModelNames, qpos: np.ndarray, name: str, place: Sequence[float] | np.ndarray) -> None:
    """Write the place (2,) of a mark into `qpos` (nq,) [m]."""
    qpos[names.qpos(f"{name}_x", f"{name}_y")] = place
