"""One running scene of a cell: an arm on torque motors, movable bodies, and the forces on them.

The twin and the surrogate are both built on this, each with its own parameters. Poses are those of the state itself,
never one physics step old.
"""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.registry import make_task
from robot_sim.twin.cell import Cell, ObjectCell
from robot_sim.twin.geometry import rotated, unrotated

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def cell_task(cell: Cell) -> MujocoTask:
    """Return the task whose scene the cell is.

    Raises:
        ConfigError: The task is not one of our own with a torque-driven arm, or lacks one of the objects.
    """
    task = _task(json.dumps(dict(cell.task), sort_keys=True))
    arm = getattr(task, "arm", None)
    if task is None or not isinstance(arm, MountedArm) or arm.actuation != "torque":
        raise ConfigError(f"task '{cell.task['name']}': a twin needs an own task with one torque-driven arm")
    if len(cell.robot.joints) != len(arm.mount.joints):
        raise ConfigError(
            f"robot.joints: {len(cell.robot.joints)} names, but the arm '{arm.mount.arm}' has "
            f"{len(arm.mount.joints)} joints"
        )
    bodies = [task.model.body(i).name for i in range(task.model.nbody)]
    for name in cell.objects:
        if name not in bodies:
            raise ConfigError(f"objects: {unknown_name('body', name, bodies)}")
    return task


@functools.lru_cache(maxsize=4)
def _task(chosen: str) -> MujocoTask | None:
    """Tasks hold no running state, and compiling one takes a second."""
    options = json.loads(chosen)
    env: Any = make_task(options.pop("name"), **options)
    try:
        return env.simulation.task if isinstance(env, MujocoTaskEnv) else None
    finally:
        env.close()


def set_object(model: Any, body: str, known: ObjectCell, table: str) -> None:
    """Give a compiled model's body its mass and its friction with the table; contact pairs count first."""
    index, ground = model.body(body).id, model.geom(table).id
    factor = known.mass / float(model.body_mass[index])
    model.body_mass[index] *= factor
    model.body_inertia[index] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))
    geoms = set(np.flatnonzero(model.geom_bodyid == index).tolist())
    pairs = [
        pair
        for pair in range(model.npair)
        if {int(model.pair_geom1[pair]), int(model.pair_geom2[pair])} & geoms
        and ground in (int(model.pair_geom1[pair]), int(model.pair_geom2[pair]))
    ]
    if pairs:
        model.pair_friction[pairs, :2] = known.friction
    else:
        model.geom_friction[sorted(geoms), 0] = known.friction


class CellScene:
    """See the module's docstring.

    Args:
        cell: What the scene is built from.
        timestep: Physics step [s].

    Attributes:
        cell: The cell.
        task: Whose scene it is.
        model: ``mujoco.MjModel``.
        data: Its state.
        bodies: Names of the objects.
    """

    def __init__(self, cell: Cell, *, timestep: float) -> None:
        self.cell, self.task = cell, cell_task(cell)
        self.arm: MountedArm = self.task.arm  # type: ignore[attr-defined]
        self.model: Any = copy.copy(self.task.model)
        self.model.opt.timestep = timestep
        self.data: Any = mujoco.MjData(self.model)
        self.bodies = tuple(cell.objects)
        mount, names = self.arm.mount, self.task.names
        self.qpos, self.qvel = names.qpos(*mount.joints), names.qvel(*mount.joints)
        self.motors = names.actuators(*mount.actuators)
        self._gripper = names.actuators(*mount.gripper_actuators)
        self._gripper_qpos = names.qpos(*mount.gripper_joints)
        self.arm_qpos, self.arm_dofs = _slice(self.qpos), _slice(self.qvel)
        self.arm_motors = _slice(self.motors)
        self.scratch = np.zeros(self.model.nv), np.zeros(self.model.nv)  # for products with the mass matrix
        self.strength = self.model.actuator_ctrlrange[self.motors, 1].copy()
        self._body = {name: self.model.body(name).id for name in self.bodies}
        self._address: dict[str, tuple[int, int]] = {}
        for name, body in self._body.items():
            joint = int(self.model.body_jntadr[body])
            if joint < 0 or self.model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
                raise ConfigError(f"objects: body '{name}' has no free joint; it cannot be moved")
            self._address[name] = int(self.model.jnt_qposadr[joint]), int(self.model.jnt_dofadr[joint])
            set_object(self.model, name, cell.objects[name], cell.table.geom)
        self.data.ctrl[self._gripper] = mount.gripper_model.closed
        self._size = mujoco.mj_stateSize(self.model, _STATE)
        mujoco.mj_forward(self.model, self.data)

    # --- bodies -----------------------------------------------------------------------------------------------

    def pose(self, body: str) -> tuple[np.ndarray, np.ndarray]:
        """Return position (3,) [m] and quaternion wxyz (4,) of a body frame, world frame."""
        start = self._start(body)
        return self.data.qpos[start : start + 3].copy(), self.data.qpos[start + 3 : start + 7].copy()

    def velocity(self, body: str) -> tuple[np.ndarray, np.ndarray]:
        """Return linear [m/s] and angular [rad/s] velocity of a body frame, (3,) each, world frame."""
        start = self._address[body][1]
        angular = rotated(self.data.qvel[start + 3 : start + 6], self.pose(body)[1])
        return self.data.qvel[start : start + 3].copy(), angular

    def set_velocity(self, body: str, linear: np.ndarray, angular: np.ndarray) -> None:
        """Set linear [m/s] and angular [rad/s] velocity of a body frame, (3,) each, world frame."""
        start = self._address[body][1]
        self.data.qvel[start : start + 3] = linear
        self.data.qvel[start + 3 : start + 6] = unrotated(angular, self.pose(body)[1])

    def mass(self, body: str) -> float:
        """Return a body's mass [kg]."""
        return float(self.model.body_mass[self._body[body]])

    def inertia(self, body: str) -> np.ndarray:
        """Return a body's principal moments of inertia (3,) [kg m²]."""
        return self.model.body_inertia[self._body[body]].copy()

    def place(self, body: str, position: np.ndarray, quaternion: np.ndarray) -> None:
        """Put a body somewhere, at rest: a teleport, for starts and lost bodies only."""
        start, speed = self._start(body), self._address[body][1]
        self.data.qpos[start : start + 7] = [*position, *quaternion]
        self.data.qvel[speed : speed + 6] = 0.0

    def apply_wrench(self, body: str, force: np.ndarray, torque: np.ndarray) -> None:
        """Add a force [N] and a torque [N m] at a body's centre of mass, world frame, to the next physics step."""
        row = self.data.xfrc_applied[self._body[body]]
        row[:3] += force
        row[3:] += torque

    def depths(self, body: str) -> list[float]:
        """Return how deep other things than the table are in a body, one number per contact, in the last step [m]."""
        ground, found = self.model.geom(self.cell.table.geom).id, []
        for contact in self.data.contact[: self.data.ncon]:
            geoms = int(contact.geom1), int(contact.geom2)
            mine = [int(self.model.geom_bodyid[geom]) == self._body[body] for geom in geoms]
            if any(mine) and not all(mine) and ground not in geoms:
                found.append(-float(contact.dist))
        return found

    # --- arm --------------------------------------------------------------------------------------------------

    @property
    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [rad] and velocities [rad/s] of the arm, (n,) each."""
        return self.data.qpos[self.arm_qpos].copy(), self.data.qvel[self.arm_dofs].copy()

    @property
    def tool(self) -> np.ndarray:
        """Position of the tool centre point (3,) [m], of the last physics step."""
        return self.data.site_xpos[self.task.names.site(f"{self.arm.mount.prefix}tcp")].copy()

    def set_joints(self, positions: np.ndarray) -> None:
        """Put the arm somewhere (n,), at rest, gripper closed."""
        self.data.qpos[self.qpos], self.data.qvel[self.qvel] = positions, 0.0
        self.data.qpos[self._gripper_qpos] = self.arm.mount.gripper_model.closed
        self.refresh()

    def start(self, seed: int) -> None:
        """Put everything where the task's episode `seed` starts."""
        initial = self.task.sample(np.random.default_rng(seed))
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.ctrl[:] = initial.qpos, initial.ctrl
        self.refresh()

    # --- time -------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring what follows from the state up to date."""
        mujoco.mj_forward(self.model, self.data)

    def save(self) -> np.ndarray:
        """Return all that the future depends on, wrenches excepted."""
        state = np.empty(self._size)
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def restore(self, state: np.ndarray) -> None:
        """Go back to a saved state."""
        mujoco.mj_setState(self.model, self.data, state, _STATE)

    def _start(self, body: str) -> int:
        if body not in self._address:
            raise ConfigError(unknown_name("body", body, self._address))
        return self._address[body][0]


def _slice(addresses: np.ndarray) -> slice | np.ndarray:
    """Return addresses that follow each other as a slice, which reads several times faster."""
    steps = np.arange(addresses[0], addresses[0] + len(addresses))
    return slice(int(steps[0]), int(steps[-1]) + 1) if np.array_equal(steps, addresses) else addresses
