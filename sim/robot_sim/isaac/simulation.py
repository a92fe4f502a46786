"""The simulation behind ``gym.create_sim``: environments are described, then compiled once and stepped together."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import numpy as np

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import DofDriveMode, PlaneParams, SimParams
from robot_sim.isaac.scene import (
    Actor,
    Environment,
    Layout,
    apply_properties,
    compile_environment,
    pose_arrays,
)
from robot_sim.isaac.transforms import Transform, Vec3
from robot_sim.vector.physics import BatchedPhysics

logger = logging.getLogger(__name__)

#: Longest physics step [s] unless asked otherwise. Isaac Gym's tasks step PhysX at 1/60 to 1/120 s, at which MuJoCo's
#: contacts are too soft to hold an object; ``simulate`` takes as many steps as are needed.
MAX_TIMESTEP = 0.005


class Simulation:
    """N environments.

    Args:
        params: Time-step, substeps, gravity and `backend`: who steps the physics, ``mujoco`` or ``warp``.
        max_timestep: Longest physics step [s].
        threads: Threads of the physics; None uses all cores.

    Attributes:
        params: As given; `set_params` changes them.
        environments: In the order of their creation.
        position_target, velocity_target, effort: Commands of the degrees of freedom (N, ndof).
        mocap_pos, mocap_quat: Poses of fixed actors (N, nmocap, 3) and wxyz (N, nmocap, 4).
        frame_count: Calls of `simulate`.
        tensors: The tensors that were acquired, `robot_sim.isaac.tensors.TensorViews`; None before the first.
    """

    def __init__(
        self, params: SimParams, *, max_timestep: float = MAX_TIMESTEP, threads: int | None = None
    ) -> None:
        self.params = params
        self.environments: list[Environment] = []
        self.planes: list[PlaneParams] = []
        self.frame_count = 0
        self.tensors: Any = None
        self._max_timestep, self._threads = max_timestep, threads
        self._physics: BatchedPhysics | None = None
        self._layout: Layout | None = None
        self._forces: np.ndarray | None = None
        self._has_forces = False
        self._warned: set[int] = set()

    # --- describing -------------------------------------------------------------------------------------------

    def add_environment(self, lower: Vec3, upper: Vec3, per_row: int) -> Environment:
        """Add an environment; its origin in the grid is for pictures, states are in its own frame."""
        self._forbid_once_prepared("create_env")
        index, row_length = len(self.environments), max(1, int(per_row))
        size = upper - lower
        origin = Vec3((index % row_length) * size.x, (index // row_length) * size.y, 0.0)
        environment = Environment(index, origin)
        self.environments.append(environment)
        return environment

    def add_actor(self, environment: Environment, actor: Actor) -> int:
        """Add an actor and return its handle."""
        self._forbid_once_prepared("create_actor")
        environment.actors.append(actor)
        return len(environment.actors) - 1

    def add_plane(self, plane: PlaneParams) -> None:
        """Add a ground plane."""
        self._forbid_once_prepared("add_ground")
        self.planes.append(plane)

    # --- compiling --------------------------------------------------------------------------------------------

    @property
    def prepared(self) -> bool:
        """Whether the environments are compiled."""
        return self._physics is not None

    @property
    def physics(self) -> BatchedPhysics:
        """The states; compiles the environments when first needed."""
        if self._physics is None:
            self.prepare()
        assert self._physics is not None  # prepare() sets it or raises
        return self._physics

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        if self._layout is None:
            self.prepare()
        assert self._layout is not None
        return self._layout

    @property
    def n_envs(self) -> int:
        """Number of environments."""
        return len(self.environments)

    @property
    def n_steps(self) -> int:
        """Physics steps of one `simulate`."""
        substeps = max(1, int(self.params.substeps))
        return substeps * math.ceil(self.params.dt / substeps / self._max_timestep - 1e-9)

    @property
    def timestep(self) -> float:
        """Physics step [s]."""
        return self.params.dt / self.n_steps

    def prepare(self) -> None:
        """Compile the environments and put every actor where it was created.

        Raises:
            IsaacError: There is nothing to simulate, or environments consist of different actors.
        """
        if self._physics is not None:
            return
        if not self.environments or not self.environments[0].actors:
            raise IsaacError(
                "the simulation has no environment with an actor; call create_env and create_actor first"
            )
        self._check_alike()
        first = self.environments[0]
        model, self._layout = compile_environment(first, self.planes, self.params, self.timestep)
        apply_properties(model, self._layout, first, self.timestep)
        models = [model if env is first else self._model_for(env, model) for env in self.environments]
        self._physics = BatchedPhysics(models, threads=self._threads, backend=self.params.backend)
        self._read_drives()
        self._place_actors()

    def _check_alike(self) -> None:
        expected = [actor.asset for actor in self.environments[0].actors]
        for environment in self.environments:
            found = [actor.asset for actor in environment.actors]
            if len(found) != len(expected) or any(a is not b for a, b in zip(found, expected, strict=True)):
                names = [actor.asset.name for actor in environment.actors]
                raise IsaacError(
                    f"environment {environment.index} holds {names}, environment 0 "
                    f"{[asset.name for asset in expected]}; all environments of a simulation need the same assets in "
                    "the same order (poses and properties may differ)"
                )

    def _model_for(self, environment: Environment, shared: Any) -> Any:
        """Return the shared model, or a copy with the environment's own properties where they differ."""
        first = self.environments[0]
        if all(_same_properties(a, b) for a, b in zip(first.actors, environment.actors, strict=True)):
            return shared
        own = copy.copy(shared)
        apply_properties(own, self.layout, environment, self.timestep)
        return own

    def _read_drives(self) -> None:
        rows = np.array(
            [np.concatenate([actor.dof_properties for actor in env.actors]) for env in self.environments]
        )
        mode = rows["driveMode"]
        positions, velocities = mode == DofDriveMode.DOF_MODE_POS, mode == DofDriveMode.DOF_MODE_VEL
        self._stiffness = np.where(positions, rows["stiffness"], 0.0).astype(float)
        self._damping = np.where(positions | velocities, rows["damping"], 0.0).astype(float)
        self._takes_effort = (mode == DofDriveMode.DOF_MODE_EFFORT).astype(float)

    def _place_actors(self) -> None:
        physics, layout = self.physics, self.layout
        n, model = self.n_envs, physics.model
        qpos = np.tile(model.qpos0, (n, 1))
        start = np.zeros(layout.n_dofs)
        limited = model.jnt_limited[layout.dof_joint].astype(bool)
        ranges = model.jnt_range[layout.dof_joint]
        start[limited] = np.clip(0.0, ranges[limited, 0], ranges[limited, 1])
        qpos[:, layout.dof_qpos] = start
        self.mocap_pos, self.mocap_quat = np.zeros((n, model.nmocap, 3)), np.zeros((n, model.nmocap, 4))
        for row, environment in enumerate(self.environments):
            for number, actor in enumerate(environment.actors):
                position, quaternion = pose_arrays(actor.pose)
                if (mocap := layout.mocap[number]) >= 0:
                    self.mocap_pos[row, mocap], self.mocap_quat[row, mocap] = position, quaternion
                else:
                    address = layout.free_qpos[number]
                    qpos[row, address : address + 7] = np.concatenate([position, quaternion])
        self.position_target = np.tile(start, (n, 1))
        self.velocity_target, self.effort = np.zeros((2, n, layout.n_dofs))
        self.set_state(np.arange(n), qpos, np.zeros((n, model.nv)))

    # --- properties -------------------------------------------------------------------------------------------

    def update_properties(self, environment: Environment) -> None:
        """Apply properties of an environment's actors that were changed after `prepare`."""
        if self._physics is None:
            return
        models = self._physics.models
        row = environment.index
        if sum(model is models[row] for model in models) > 1:
            models[row] = copy.copy(models[row])
        apply_properties(models[row], self.layout, environment, self.timestep)
        self._read_drives()
        self._physics.touch(np.array([row]))

    def set_params(self, params: SimParams) -> None:
        """Take new gravity; time-step and substeps cannot change once environments are compiled."""
        changed = (params.dt, params.substeps) != (self.params.dt, self.params.substeps)
        if self._physics is not None:
            if changed:
                raise IsaacError(
                    "set_sim_params changes dt or substeps of a prepared simulation; set them before"
                )
            for model in self._physics.models:
                model.opt.gravity[:] = list(params.gravity)
            self._physics.touch()
        self.params = params

    # --- running ----------------------------------------------------------------------------------------------

    def set_state(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Set joint positions and velocities of environments (n, nq), (n, nv), and their fixed actors' poses."""
        physics = self.physics
        try:
            physics.set_state(rows, qpos=qpos, qvel=qvel)
        except ValueError as error:
            raise IsaacError(f"a state tensor was rejected: {error}; look for NaN in what is set") from error
        self._write_inputs(rows)
        self._warned.difference_update(np.asarray(rows).tolist())

    def apply_forces(self, forces: np.ndarray) -> None:
        """Add forces and torques at the bodies' centres of mass (N, nbody, 6), world frame, for the next `simulate`."""
        self._allow_forces()
        self._forces = forces if self._forces is None else self._forces + forces

    def simulate(self) -> None:
        """Advance all environments by ``params.dt``."""
        physics = self.physics
        self._write_inputs(slice(None))
        if self._forces is not None:
            physics.xfrc_applied[:, 1:] = self._forces
        physics.step(self.n_steps)
        if self._forces is not None:
            physics.xfrc_applied[:] = 0.0
            physics.touch()
            self._forces = None
        self.frame_count += 1
        self._report_divergence()

    def close(self) -> None:
        """End the threads."""
        if self._physics is not None:
            self._physics.close()

    def body_pose(self, environment: Environment, body: int) -> Transform:
        """Return the pose of a rigid body in the environment's frame, also before `prepare`."""
        if self._physics is not None:
            row = environment.index
            return Transform.from_arrays(
                self._physics.xpos[row, body + 1], self._physics.xquat[row, body + 1]
            )
        for actor in environment.actors:
            if body < actor.asset.n_bodies:
                return actor.pose * actor.asset.body_poses[body]
            body -= actor.asset.n_bodies
        raise IsaacError(f"environment {environment.index} has no rigid body {body} past its last")

    def _write_inputs(self, rows: np.ndarray | slice) -> None:
        physics = self.physics
        command = (
            self._stiffness[rows] * self.position_target[rows]
            + self._damping[rows] * self.velocity_target[rows]
            + self._takes_effort[rows] * self.effort[rows]
        )
        physics.ctrl[rows] = command
        if physics.model.nmocap:
            physics.mocap_pos[rows] = self.mocap_pos[rows]
            physics.mocap_quat[rows] = self.mocap_quat[rows]
        physics.touch(rows)

    def _allow_forces(self) -> None:
        """Make room for external forces, which cost time in every step, when they are first asked for."""
        old = self.physics
        if self._has_forces:
            return
        new = BatchedPhysics(
            old.models, threads=self._threads, external_forces=True, backend=self.params.backend
        )
        qpos, qvel = old.qpos.copy(), old.qvel.copy()
        old.close()
        self._physics, self._has_forces = new, True
        self.set_state(np.arange(self.n_envs), qpos, qvel)

    def _report_divergence(self) -> None:
        lost = set(np.flatnonzero(self.physics.diverged).tolist()) - self._warned
        if lost:
            logger.warning(
                "the simulation of environments %s became unstable; they stand still until their state is set",
                sorted(lost),
            )
            self._warned |= lost

    def _forbid_once_prepared(self, call: str) -> None:
        if self._physics is not None:
            raise IsaacError(
                f"{call} after prepare_sim (or a call that needs it); describe all environments first"
            )


def _same_properties(one: Actor, other: Actor) -> bool:
    if not np.array_equal(one.dof_properties, other.dof_properties):
        return False
    for a, b in ((one.shapes, other.shapes), (one.bodies, other.bodies)):
        if a.keys() != b.keys() or any(not np.array_equal(a[key], b[key]) for key in a):
            return False
    return True
