"""A table-top scene: floor, table, light, cameras, and the physics options all own tasks share.

World frame: x away from the robot, y to its left, z up; the origin is the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.arms import VISUAL_GROUP, Actuation, Mount, add_arm

FLOOR = -0.8  # height of the floor [m]


def tabletop(
    mounts: Sequence[Mount],
    *,
    actuation: Actuation,
    visual: bool,
    table: tuple[float, float] = (0.8, 1.2),
) -> Any:
    """Return a new scene with arms at a table.

    Args:
        mounts: The arms.
        actuation: See `robot_sim.mujoco_tasks.arms.add_arm`.
        visual: Whether what is only seen is wanted.
        table: Size of the table along x and y [m].

    Returns:
        ``mujoco.MjSpec`` with geom ``table``, cameras ``agentview``, ``frontview``, ``sideview``, ``topview`` and
        one ``<prefix>eye_in_hand`` per arm, to be completed by the task.
    """
    scene = mujoco.MjSpec()
    scene.modelname = "tabletop"
    scene.compiler.degree = False
    scene.compiler.inertiagrouprange[:] = [0, 0]
    option = scene.option
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 20.0
    _light_and_sky(scene)
    world = scene.worldbody
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[3, 3, 0.1],
        pos=[0, 0, FLOOR],
        rgba=[0.55, 0.56, 0.58, 1],
    )
    half = np.array([table[0] / 2, table[1] / 2, 0.025])
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=half,
        pos=[0, 0, -half[2]],
        rgba=[0.87, 0.83, 0.76, 1],
        friction=[1.0, 0.005, 0.0001],
    )
    for mount in mounts:
        add_arm(scene, mount, actuation=actuation, visual=visual)
        if visual:
            _pedestal(world, mount)
    for name, eye, target in (
        ("agentview", (0.62, 0.0, 0.62), (-0.05, 0.0, 0.02)),
        ("frontview", (1.0, 0.0, 0.35), (0.0, 0.0, 0.1)),
        ("sideview", (0.0, 1.0, 0.45), (-0.1, 0.0, 0.05)),
        ("topview", (0.0, 0.0, 1.1), (0.0, 0.0, 0.0)),
    ):
        world.add_camera(name=name, pos=eye, quat=look_at(eye, target), fovy=50)
    return scene


def look_at(eye: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Return the orientation wxyz (4,) of a camera at `eye` that looks at `target`, the picture's top up (or +x)."""
    backward = np.asarray(eye, float) - np.asarray(target, float)
    backward /= np.linalg.norm(backward)
    up = np.array([1.0, 0.0, 0.0]) if abs(backward[2]) > 0.999 else np.array([0.0, 0.0, 1.0])
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(backward, right), backward], axis=1)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, matrix.ravel())
    return quaternion


def add_box(
    scene: Any,
    name: str,
    *,
    size: Sequence[float],
    rgba: Sequence[float],
    density: float = 500.0,
    friction: float = 1.0,
) -> Any:
    """Add a movable box with free joint ``<name>_joint`` and geom ``<name>``; return its body.

    Args:
        scene: ``mujoco.MjSpec``.
        name: Of body and geom.
        size: Half edges [m].
        rgba: Colour.
        density: [kg/m^3].
        friction: Sliding friction coefficient.
    """
    body = scene.worldbody.add_body(name=name, pos=[0.0, 0.0, float(size[2])])
    body.add_freejoint(name=f"{name}_joint")
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=list(size),
        rgba=list(rgba),
        density=density,
        friction=[friction, 0.005, 0.0001],
        condim=4,
        solref=[0.01, 1.0],
    )
    return body


def _light_and_sky(scene: Any) -> None:
    scene.visual.headlight.ambient[:] = 0.35
    scene.visual.headlight.diffuse[:] = 0.35
    scene.visual.headlight.specular[:] = 0.1
    scene.worldbody.add_light(
        name="ceiling",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.3, 0.4, 2.0],
        dir=[-0.2, -0.25, -1.0],
        diffuse=[0.55, 0.55, 0.55],
        specular=[0.2, 0.2, 0.2],
        castshadow=True,
    )
    scene.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.9, 0.92, 0.95],
        rgb2=[0.45, 0.5, 0.58],
        width=64,
        height=64,
    )


def _pedestal(world: Any, mount: Mount) -> None:
    x, y, top = mount.position
    half = (top - FLOOR) / 2
    world.add_geom(
        name=f"{mount.prefix}pedestal",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[0.1, half, 0],
        pos=[x, y, top - half],
        rgba=[0.3, 0.31, 0.33, 1],
        contype=0,
        conaffinity=0,
        group=VISUAL_GROUP,
    )
