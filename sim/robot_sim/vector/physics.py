"""N copies of one MuJoCo scene, stepped together.

::

    physics = BatchedPhysics(model, 64)
    physics.set_state(indices, qpos=qpos)      # (n, nq)
    physics.ctrl[:] = ...                      # (N, nu)
    physics.step(25)                           # 25 physics steps of every environment, on all threads
    physics.xpos[:, hand], physics.site_jacobian(site), physics.contact_force[:, finger]

Environments are rows of arrays, so a batch of any size, down to one, runs through the same code, and a row depends
on no other row, on the number of threads or on how often the batch was stepped before: the same state and controls
give the same next state, bit for bit.

Conventions are MuJoCo's: world frame, metres, radians, quaternions wxyz; the angular velocity of a free joint in
``qvel`` is in the body's frame. Everything a name of ``mjData`` is used for has that meaning here, with a leading N.

Who steps is a choice (`robot_sim.vector.backends`): MuJoCo's threads, of which the above is true, or `mujoco_warp` in
single precision; ``docs/simulation/vectorised.md`` says what differs.

Constraint forces are solved from a cold start at the first physics step of each `step`, as MuJoCo's rollout hands no
warm start back: a trajectory differs in the last digits from ``mj_step``'s, and a state is all there is to save.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.rotations import cross
from robot_sim.vector.backends import make_stepper
from robot_sim.vector.derived import DerivedQuantities
from robot_sim.vector.layout import STATE_SPEC, dof_moves_body, input_spec, split_inputs, write_state
from robot_sim.vector.stepper import Batch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhysicsSnapshot:
    """Full state of some environments; see `BatchedPhysics.save`."""

    state: np.ndarray
    inputs: np.ndarray
    diverged: np.ndarray


class BatchedPhysics:
    """See the module's docstring.

    Args:
        models: One ``mujoco.MjModel`` for all, or a list of N models that differ in parameters only.
        n_envs: Number of environments N; may be left out with a list of models.
        threads: Worker threads; None uses the cores this process may use, 0 steps on the calling thread.
        external_forces: Offer `qfrc_applied` and `xfrc_applied`, which cost a little time in every step.
        backend: Who steps: ``mujoco``, or ``warp`` (`robot_sim.vector.warp_stepper`), in single precision.

    Attributes:
        model: The first model; names, sizes and addresses are those of all.
        models: N models.
        n_envs: N.
        backend: As given.
        diverged: (N,) bool: the simulation of this environment became unstable in a `step`. It stands where it was
            before that, and stays there until `set_state` or `restore`.
    """

    def __init__(
        self,
        models: Any,
        n_envs: int | None = None,
        *,
        threads: int | None = None,
        external_forces: bool = False,
        backend: str = "mujoco",
    ) -> None:
        if mujoco.get_mju_user_warning() is None:  # else MuJoCo writes MUJOCO_LOG.TXT into the current folder
            mujoco.set_mju_user_warning(_log_warning)
        several = not isinstance(models, mujoco.MjModel)
        self.models: list[Any] = list(models) if several else [models] * (n_envs or 1)
        self.n_envs = len(self.models)
        if self.n_envs == 0 or n_envs not in (None, self.n_envs):
            raise ValueError(
                f"got {self.n_envs} models for {n_envs} environments; give one model or one for each"
            )
        self.model = model = self.models[0]
        self._input_spec = input_spec(model, external_forces)
        self._state = np.zeros((self.n_envs, mujoco.mj_stateSize(model, STATE_SPEC)))
        self._inputs = np.zeros((self.n_envs, mujoco.mj_stateSize(model, self._input_spec)))
        self._views = split_inputs(model, self._inputs, self._input_spec)
        self._derived = DerivedQuantities(self.models, self._state, self._inputs, self._input_spec)
        self.diverged = np.zeros(self.n_envs, dtype=bool)
        self.backend = backend
        batch = Batch(self.models, self._state, self._inputs, self._input_spec)
        self._stepper = make_stepper(backend, batch, threads=threads)
        self._default = self._default_state()
        self._ancestors = dof_moves_body(model)
        self.set_state(np.arange(self.n_envs))

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def time(self) -> np.ndarray:
        """Simulated time [s], (N,); read-only."""
        return _read_only(self._state[:, 0])

    @property
    def qpos(self) -> np.ndarray:
        """Joint positions (N, nq); read-only, set with `set_state`."""
        return _read_only(self._state[:, 1 : 1 + self.model.nq])

    @property
    def qvel(self) -> np.ndarray:
        """Joint velocities (N, nv); read-only, set with `set_state`."""
        start = 1 + self.model.nq
        return _read_only(self._state[:, start : start + self.model.nv])

    @property
    def ctrl(self) -> np.ndarray:
        """Actuator inputs (N, nu), to be written."""
        return self._views["ctrl"]

    @property
    def mocap_pos(self) -> np.ndarray:
        """Positions of mocap bodies (N, nmocap, 3), to be written before a step; call `touch` afterwards."""
        return self._input("mocap_pos")

    @property
    def mocap_quat(self) -> np.ndarray:
        """Orientations of mocap bodies (N, nmocap, 4) wxyz, to be written; call `touch` afterwards."""
        return self._input("mocap_quat")

    @property
    def qfrc_applied(self) -> np.ndarray:
        """Generalised forces from outside (N, nv), to be written; needs ``external_forces=True``."""
        return self._input("qfrc_applied")

    @property
    def xfrc_applied(self) -> np.ndarray:
        """Force and torque on each body at its centre of mass, world frame, (N, nbody, 6), to be written."""
        return self._input("xfrc_applied")

    @property
    def eq_active(self) -> np.ndarray:
        """Which equality constraints act (N, neq), 1.0 or 0.0, to be written."""
        return self._input("eq_active")

    def set_state(
        self,
        indices: np.ndarray | Sequence[int],
        *,
        qpos: np.ndarray | None = None,
        qvel: np.ndarray | None = None,
    ) -> None:
        """Put environments into the model's initial state, with other positions or velocities where given.

        Time returns to 0, activations, controls and external forces to their defaults.

        Args:
            indices: Environments, (n,).
            qpos: (n, nq) or (nq,).
            qvel: (n, nv) or (nv,).

        Raises:
            ValueError: A value is not finite, or of the wrong shape.
        """
        rows = np.asarray(indices, dtype=int)
        state, inputs = self._default
        self._state[rows], self._inputs[rows] = state, inputs
        start = 1
        for name, value, size in (("qpos", qpos, self.model.nq), ("qvel", qvel, self.model.nv)):
            if value is not None:
                if not np.isfinite(value).all():
                    raise ValueError(f"{name} of a state is not finite")
                self._state[rows, start : start + size] = np.broadcast_to(value, (len(rows), size))
            start += size
        self.diverged[rows] = False
        self._derived.invalidate(rows)

    def save(self, indices: np.ndarray | slice = slice(None)) -> PhysicsSnapshot:
        """Return a copy of all that the future of these environments depends on, model parameters excepted."""
        return PhysicsSnapshot(
            self._state[indices].copy(), self._inputs[indices].copy(), self.diverged[indices].copy()
        )

    def restore(self, snapshot: PhysicsSnapshot, indices: np.ndarray | slice = slice(None)) -> None:
        """Put a snapshot of as many environments back."""
        self._state[indices] = snapshot.state
        self._inputs[indices] = snapshot.inputs
        self.diverged[indices] = snapshot.diverged
        self._derived.invalidate(indices)

    def touch(self, indices: np.ndarray | slice = slice(None)) -> None:
        """Say that controls, mocap poses, forces or model parameters were written, before reading what follows."""
        self._derived.invalidate(indices)
        self._stepper.touch(indices)

    def packed(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return copies of an environment's state and inputs and the bits of these, for `layout.write_state`."""
        return self._state[row].copy(), self._inputs[row].copy(), self._input_spec

    def write_to(self, model: Any, data: Any, row: int) -> None:
        """Copy an environment's state into a ``mujoco.MjData``; see `robot_sim.vector.layout.write_state`."""
        write_state(model, data, self._state[row], self._inputs[row], self._input_spec)

    # --- stepping ---------------------------------------------------------------------------------------------

    def step(self, n_steps: int = 1, *, active: np.ndarray | None = None) -> None:
        """Advance by `n_steps` physics steps with the current inputs held.

        Args:
            n_steps: Physics steps.
            active: (N,) bool, environments to advance; None advances all.
        """
        moving = ~self.diverged if active is None else active & ~self.diverged
        rows = np.flatnonzero(moving)
        if len(rows) == 0 or n_steps == 0:
            return
        before = self._state[rows]
        final = self._stepper.step(rows, n_steps)
        # MuJoCo answers instability by starting over from its initial state, which shows in the clock.
        elapsed = n_steps * np.array([self.models[i].opt.timestep for i in rows])
        lost = np.abs(final[:, 0] - before[:, 0] - elapsed) > 0.5 * elapsed / n_steps
        lost |= ~np.isfinite(final).all(axis=1)
        self._state[rows] = np.where(lost[:, None], before, final)
        self.diverged[rows] = lost
        self._derived.invalidate(rows)

    def close(self) -> None:
        """End the threads."""
        self._stepper.close()

    # --- what follows from the state --------------------------------------------------------------------------

    @property
    def xpos(self) -> np.ndarray:
        """Positions of body frames [m], (N, nbody, 3)."""
        return self._derived.get("xpos")

    @property
    def xquat(self) -> np.ndarray:
        """Orientations of body frames, wxyz, (N, nbody, 4)."""
        return self._derived.get("xquat")

    @property
    def xmat(self) -> np.ndarray:
        """Rotation matrices of body frames (N, nbody, 3, 3)."""
        return _matrices(self._derived.get("xmat"))

    @property
    def site_xpos(self) -> np.ndarray:
        """Positions of sites [m], (N, nsite, 3)."""
        return self._derived.get("site_xpos")

    @property
    def site_xmat(self) -> np.ndarray:
        """Rotation matrices of sites (N, nsite, 3, 3)."""
        return _matrices(self._derived.get("site_xmat"))

    @property
    def geom_xpos(self) -> np.ndarray:
        """Positions of geoms [m], (N, ngeom, 3)."""
        return self._derived.get("geom_xpos")

    @property
    def geom_xmat(self) -> np.ndarray:
        """Rotation matrices of geoms (N, ngeom, 3, 3)."""
        return _matrices(self._derived.get("geom_xmat"))

    @property
    def body_velocity(self) -> np.ndarray:
        """Velocity of body frames in the world frame: linear [m/s] and angular [rad/s], (N, nbody, 6)."""
        velocity, position = self._derived.get("cvel"), self._derived.get("xpos")
        centre = self._derived.get("subtree_com")[:, self.model.body_rootid]
        angular = velocity[..., :3]
        linear = velocity[..., 3:] + cross(angular, position - centre)
        return np.concatenate([linear, angular], axis=-1)

    @property
    def mass_matrix(self) -> np.ndarray:
        """Joint-space inertia (N, nv, nv)."""
        return self._derived.get("M")

    @property
    def qfrc_bias(self) -> np.ndarray:
        """Coriolis, centrifugal and gravity forces (N, nv), not reduced by gravity compensation."""
        return self._derived.get("qfrc_bias")

    @property
    def contact_force(self) -> np.ndarray:
        """Net force on each body from contacts and other constraints between bodies, world frame [N], (N, nbody, 3).

        Forces applied through `xfrc_applied` are included, as in MuJoCo's ``cfrc_ext``.
        """
        return self._derived.get("cfrc_ext")[..., 3:]

    @property
    def sensordata(self) -> np.ndarray:
        """Sensor readings for the current state and inputs (N, nsensordata)."""
        return self._derived.get("sensordata")

    @property
    def qacc(self) -> np.ndarray:
        """Joint accelerations for the current state and inputs (N, nv)."""
        return self._derived.get("qacc")

    @property
    def qfrc_actuator(self) -> np.ndarray:
        """Forces of the actuators on the joints (N, nv)."""
        return self._derived.get("qfrc_actuator")

    def contacts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, per environment, the geoms in contact (ncon, 2) and their distances (ncon,) [m]."""
        return self._derived.contacts()

    def touching(
        self, geoms_a: Sequence[int] | np.ndarray, geoms_b: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Return whether any geom of one set touches any of the other, (N,) bool."""
        in_a, in_b = np.zeros((2, self.model.ngeom + 1), dtype=bool)  # flexes have geom -1: the last slot
        in_a[geoms_a], in_b[geoms_b] = True, True
        rows, pairs = self._derived.contact_pairs()
        first, second = pairs[:, 0], pairs[:, 1]
        touch = np.zeros(self.n_envs, dtype=bool)
        touch[rows[(in_a[first] & in_b[second]) | (in_b[first] & in_a[second])]] = True
        return touch

    def site_jacobian(self, site: int) -> np.ndarray:
        """Return d(linear, angular velocity of a site)/d(qvel), world frame, (N, 6, nv)."""
        return self.point_jacobian(int(self.model.site_bodyid[site]), self.site_xpos[:, site])

    def point_jacobian(self, body: int, point: np.ndarray) -> np.ndarray:
        """Return the Jacobian of a point that moves with a body.

        Args:
            body: Body id.
            point: Where the point is now, world frame [m], (N, 3).

        Returns:
            (N, 6, nv): linear rows, then angular rows, world frame.
        """
        axes, centre = self._derived.get("cdof"), self._derived.get("subtree_com")
        offset = point - centre[:, self.model.body_rootid[body]]
        angular = axes[..., :3] * self._ancestors[body][:, None]
        linear = axes[..., 3:] * self._ancestors[body][:, None] + cross(angular, offset[:, None])
        return np.concatenate([linear, angular], axis=-1).swapaxes(1, 2)

    def body_jacobians(self) -> np.ndarray:
        """Return the Jacobians of all body frames, (N, nbody, 6, nv), world frame, linear rows first."""
        axes, centre = self._derived.get("cdof"), self._derived.get("subtree_com")
        offset = self.xpos - centre[:, self.model.body_rootid]
        angular = axes[:, None, :, :3] * self._ancestors[None, :, :, None]
        linear = axes[:, None, :, 3:] * self._ancestors[None, :, :, None]
        linear = linear + cross(angular, offset[:, :, None])
        return np.concatenate([linear, angular], axis=-1).swapaxes(2, 3)

    def _input(self, name: str) -> np.ndarray:
        if name not in self._views:
            raise ValueError(
                f"this batch has no '{name}': forces need BatchedPhysics(..., external_forces=True), mocap and "
                "equality inputs a model that has them"
            )
        return self._views[name]

    def _default_state(self) -> tuple[np.ndarray, np.ndarray]:
        data = mujoco.MjData(self.model)
        mujoco.mj_resetData(self.model, data)
        state, inputs = np.empty(self._state.shape[1]), np.empty(self._inputs.shape[1])
        mujoco.mj_getState(self.model, data, state, STATE_SPEC)
        mujoco.mj_getState(self.model, data, inputs, self._input_spec)
        return state, inputs


def _log_warning(message: str) -> None:
    logger.debug("mujoco: %s", message)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _matrices(flat: np.ndarray) -> np.ndarray:
    return flat.reshape(*flat.shape[:-1], 3, 3)
