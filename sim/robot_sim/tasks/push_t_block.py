"""The T-shaped block of PushT in a MuJoCo scene: body, target, pose, and the parameters a twin may change."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.tasks.push_t_geometry import BAR, CENTRE, OUTLINE, STEM, coverage, turned
from robot_sim.vector.mujoco_names import ModelNames

BLOCK = "block"
JOINT = "block_joint"
GEOMS = ("block_bar", "block_stem")
HALF_HEIGHT = 0.02  # [m]
MASS = 0.3  # [kg]
FRICTION = 0.5  # sliding, between block and table
PUSHER_FRICTION = 0.3  # sliding, between block and pusher
CORNER_NAMES = tuple(f"corner{i}_{axis}" for i in range(len(OUTLINE)) for axis in "xy")
_SHARES = (36 / 63, 27 / 63)


def add_block(scene: Any, *, mass: float = MASS, friction: float = FRICTION) -> None:
    """Add the block, body frame at its centre of mass; it slides on geom ``table``, pushed by geom ``pusher``.

    Args:
        scene: ``mujoco.MjSpec`` with these two geoms.
        mass: [kg].
        friction: Sliding friction between block and table.
    """
    body = scene.worldbody.add_body(name=BLOCK, pos=[0, 0, HALF_HEIGHT])
    body.add_freejoint(name=JOINT)
    for name, box, share in zip(GEOMS, (BAR, STEM), _SHARES, strict=True):
        body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[box[2], box[3], HALF_HEIGHT],
            pos=[box[0] - CENTRE[0], box[1] - CENTRE[1], 0],
            rgba=[0.45, 0.52, 0.62, 1],
            mass=share * mass,
            condim=3,
        )
        # Pairs, so that the two frictions are independent numbers, as a twin wants them.
        for other, value in (("table", friction), ("pusher", PUSHER_FRICTION)):
            scene.add_pair(
                name=f"{name}_{other}", geomname1=name, geomname2=other, condim=3,
                friction=[value, value, 0.005, 0.0001, 0.0001],
            )  # fmt: skip


def add_target(scene: Any, place: np.ndarray, yaw: float, *, height: float = 0.0005) -> None:
    """Add what shows where the block shall be; it touches nothing.

    Args:
        scene: ``mujoco.MjSpec``.
        place: Origin of the target (2,) [m].
        yaw: Its angle [rad].
        height: Half thickness [m].
    """
    body = scene.worldbody.add_body(
        name="target", pos=[*place, 0.0], quat=[np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    )
    for name, box in zip(("bar", "stem"), (BAR, STEM), strict=True):
        body.add_geom(
            name=f"target_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[box[2], box[3], height],
            pos=[box[0], box[1], 0],
            rgba=[0.55, 0.85, 0.55, 1],
            contype=0,
            conaffinity=0,
        )


def set_block_parameters(model: Any, *, mass: float | None = None, friction: float | None = None) -> None:
    """Change a compiled model's block: mass [kg], sliding friction with the table; None keeps a value."""
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BLOCK)
    if mass is not None:
        factor = mass / float(model.body_mass[body])
        model.body_mass[body] *= factor
        model.body_inertia[body] *= factor
        mujoco.mj_setConst(model, mujoco.MjData(model))
    if friction is not None:
        for geom in GEOMS:
            pair = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_PAIR, f"{geom}_table")
            model.pair_friction[pair, :2] = friction


def block_parameters(model: Any) -> dict[str, float]:
    """Return mass [kg] and sliding friction with the table of a compiled model's block."""
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BLOCK)
    pair = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_PAIR, f"{GEOMS[0]}_table")
    return {"mass": float(model.body_mass[body]), "friction": float(model.pair_friction[pair, 0])}


def block_pose(sim: TaskSimulation) -> tuple[np.ndarray, np.ndarray]:
    """Return the block's origin (N, 2) [m] and angle (N,) [rad]."""
    body = sim.task.names.body(BLOCK)
    matrix = sim.physics.xmat[:, body]
    yaw = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
    return sim.physics.xpos[:, body, :2] - turned(CENTRE[None], yaw)[:, 0], yaw


def corners(sim: TaskSimulation) -> np.ndarray:
    """Return the corners of the block's outline, world frame (N, 16) [m]."""
    place, yaw = block_pose(sim)
    return (turned(OUTLINE, yaw) + place[:, None]).reshape(len(place), -1)


def covered(sim: TaskSimulation, target: np.ndarray) -> np.ndarray:
    """Return the share of the target (3,) that is covered, (N,)."""
    place, yaw = block_pose(sim)
    return coverage(place, yaw, np.tile(target[:2], (len(place), 1)), np.full(len(place), target[2]))


def place_block(names: ModelNames, qpos: np.ndarray, place: np.ndarray, yaw: float) -> None:
    """Write a pose of the block's origin (2,) [m] and angle [rad] into `qpos` (nq,)."""
    centre = place + turned(CENTRE[None], np.array([yaw]))[0, 0]
    qpos[names.qpos(JOINT)] = [*centre, HALF_HEIGHT, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
