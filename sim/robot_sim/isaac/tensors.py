"""Tensors with Isaac Gym's layouts, on the CPU: what is acquired, refreshed and set.

An acquired tensor is one piece of memory: tasks keep views of it, ``refresh_*`` overwrites it with the simulation's
values and nothing else does. Setting takes a whole tensor, of which an indexed setter uses the rows of the actors it
is given. A set state is in the simulation at once, so the next refresh shows it; in Isaac Gym's GPU pipeline a
refresh before the next ``simulate`` still shows the old one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.simulation import Simulation
from robot_sim.rotations import quaternion_to_matrix, wxyz_to_xyzw, xyzw_to_wxyz
from robot_sim.vector.wrench import contact_wrench

#: Rows of the free joint: linear and angular velocity.
_ROOT_DOFS = 6


class TensorViews:
    """The tensors of a prepared simulation.

    Args:
        simulation: The simulation.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._tensors: dict[str, torch.Tensor] = {}
        self._read: dict[str, Callable[[], np.ndarray]] = {
            "dof_state": self._dof_state,
            "root_state": self._root_state,
            "rigid_body_state": self._rigid_body_state,
            "contact_force": self._contact_force,
            "dof_force": self._dof_force,
            "force_sensor": self._force_sensor,
        }

    def acquire(self, name: str) -> torch.Tensor:
        """Return the tensor of this name, filled; always the same memory.

        Args:
            name: ``dof_state`` (N*ndof, 2), ``root_state`` (N*actors, 13), ``rigid_body_state`` (N*bodies, 13),
                ``contact_force`` (N*bodies, 3), ``dof_force`` (N*ndof,), ``force_sensor`` (N*sensors, 6), or
                ``jacobian:ACTOR`` and ``mass_matrix:ACTOR`` for an actor by name.
        """
        if name not in self._tensors:
            if name not in self._read:
                self._read[name] = self._reader(name)
            self._tensors[name] = torch.from_numpy(self._read[name]().astype(np.float32))
        return self._tensors[name]

    def refresh(self, prefix: str) -> None:
        """Write the simulation's values into the acquired tensors whose names begin so."""
        for name, tensor in self._tensors.items():
            if name.startswith(prefix):
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(self._read[name]())))

    # --- setting ----------------------------------------------------------------------------------------------

    def set_dof_state(self, state: torch.Tensor, actors: np.ndarray | None) -> None:
        """Set positions and velocities of the degrees of freedom of actors, of all with None."""
        sim, layout = self._simulation, self._simulation.layout
        values = self._array(state, "set_dof_state_tensor", (sim.n_envs, layout.n_dofs, 2))
        mask = self._dof_mask(actors)
        rows = np.flatnonzero(mask.any(axis=1))
        qpos, qvel = sim.physics.qpos[rows].copy(), sim.physics.qvel[rows].copy()
        for joint, (p, v) in enumerate(zip(layout.dof_qpos, layout.dof_qvel, strict=True)):
            chosen = mask[rows, joint]
            qpos[chosen, p] = values[rows[chosen], joint, 0]
            qvel[chosen, v] = values[rows[chosen], joint, 1]
        sim.set_state(rows, qpos, qvel)

    def set_root_state(self, state: torch.Tensor, actors: np.ndarray | None) -> None:
        """Set poses and velocities of the roots of actors, of all with None; a fixed root takes the pose alone."""
        sim, layout = self._simulation, self._simulation.layout
        values = self._array(state, "set_actor_root_state_tensor", (sim.n_envs, layout.n_actors, 13))
        mask = self._actor_mask(actors)
        rows = np.flatnonzero(mask.any(axis=1))
        qpos, qvel = sim.physics.qpos[rows].copy(), sim.physics.qvel[rows].copy()
        for actor in range(layout.n_actors):
            chosen = mask[rows, actor]
            value = values[rows[chosen], actor]
            quaternion = xyzw_to_wxyz(value[:, 3:7])
            norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
            if (norm < 1e-6).any():
                raise IsaacError(
                    "set_actor_root_state_tensor: a quaternion of length 0; no rotation is (0, 0, 0, 1)"
                )
            quaternion = quaternion / norm
            if (mocap := layout.mocap[actor]) >= 0:
                sim.mocap_pos[rows[chosen], mocap] = value[:, :3]
                sim.mocap_quat[rows[chosen], mocap] = quaternion
                continue
            p, v = layout.free_qpos[actor], layout.free_qvel[actor]
            qpos[chosen, p : p + 7] = np.concatenate([value[:, :3], quaternion], axis=1)
            # Isaac Gym's angular velocity is in the world's frame, that of MuJoCo's free joint in the body's.
            angular = np.einsum("nji,nj->ni", quaternion_to_matrix(quaternion), value[:, 10:13])
            qvel[chosen, v : v + 6] = np.concatenate([value[:, 7:10], angular], axis=1)
        sim.set_state(rows, qpos, qvel)

    def set_command(self, name: str, command: torch.Tensor, actors: np.ndarray | None) -> None:
        """Set `position_target`, `velocity_target` or `effort` of the degrees of freedom of actors."""
        sim = self._simulation
        target: np.ndarray = getattr(sim, name)
        values = self._array(command, f"set_dof_{name}_tensor", target.shape)
        if not np.isfinite(values).all():
            raise IsaacError(f"a {name} tensor holds NaN or infinity; look at the actions")
        np.copyto(target, values, where=self._dof_mask(actors))

    def apply_forces(
        self,
        forces: torch.Tensor | None,
        torques: torch.Tensor | None,
        at: torch.Tensor | None,
        *,
        local: bool,
    ) -> None:
        """Apply forces [N] and torques [N m] to rigid bodies during the next ``simulate``.

        Args:
            forces: (N*bodies, 3), acting at the centres of mass, or `at`.
            torques: (N*bodies, 3).
            at: Points (N*bodies, 3) [m] in the environments' frame.
            local: Whether forces and torques are in the bodies' frames instead of the environment's.
        """
        sim, n_bodies = self._simulation, self._simulation.layout.n_bodies
        shape = (sim.n_envs, n_bodies, 3)
        force, torque = (
            np.zeros(shape) if value is None else self._array(value, "apply_rigid_body_force", shape)
            for value in (forces, torques)
        )
        rotation = sim.physics.xmat[:, 1:]
        if local:
            force, torque = (np.einsum("nbij,nbj->nbi", rotation, value) for value in (force, torque))
        if at is not None:
            offset = np.einsum("nbij,bj->nbi", rotation, sim.physics.model.body_ipos[1:])
            arm = self._array(at, "apply_rigid_body_force_at_pos", shape) - sim.physics.xpos[:, 1:] - offset
            torque = torque + np.cross(arm, force)
        if not (np.isfinite(force).all() and np.isfinite(torque).all()):
            raise IsaacError("a force tensor holds NaN or infinity; look at the actions")
        sim.apply_forces(np.concatenate([force, torque], axis=-1))

    # --- reading ----------------------------------------------------------------------------------------------

    def _dof_state(self) -> np.ndarray:
        physics, layout = self._simulation.physics, self._simulation.layout
        state = np.stack([physics.qpos[:, layout.dof_qpos], physics.qvel[:, layout.dof_qvel]], axis=-1)
        return state.reshape(-1, 2)

    def _root_state(self) -> np.ndarray:
        sim, layout = self._simulation, self._simulation.layout
        physics = sim.physics
        state = np.zeros((sim.n_envs, layout.n_actors, 13))
        for actor in range(layout.n_actors):
            if (mocap := layout.mocap[actor]) >= 0:
                state[:, actor, :3] = sim.mocap_pos[:, mocap]
                state[:, actor, 3:7] = wxyz_to_xyzw(sim.mocap_quat[:, mocap])
                continue
            p, v = layout.free_qpos[actor], layout.free_qvel[actor]
            quaternion = physics.qpos[:, p + 3 : p + 7]
            state[:, actor, :3] = physics.qpos[:, p : p + 3]
            state[:, actor, 3:7] = wxyz_to_xyzw(quaternion)
            state[:, actor, 7:10] = physics.qvel[:, v : v + 3]
            rotation = quaternion_to_matrix(quaternion)
            state[:, actor, 10:13] = np.einsum("nij,nj->ni", rotation, physics.qvel[:, v + 3 : v + 6])
        return state.reshape(-1, 13)

    def _rigid_body_state(self) -> np.ndarray:
        physics = self._simulation.physics
        parts = [physics.xpos, wxyz_to_xyzw(physics.xquat), physics.body_velocity]
        return np.concatenate(parts, axis=-1)[:, 1:].reshape(-1, 13)

    def _contact_force(self) -> np.ndarray:
        return self._simulation.physics.contact_force[:, 1:].reshape(-1, 3)

    def _dof_force(self) -> np.ndarray:
        sim = self._simulation
        return sim.physics.qfrc_actuator[:, sim.layout.dof_qvel].reshape(-1)

    def _force_sensor(self) -> np.ndarray:
        """Wrench on the sensors' bodies from contacts, at the sensors, in their frames or the world's."""
        sim, layout = self._simulation, self._simulation.layout
        physics = sim.physics
        out = np.zeros((sim.n_envs, len(layout.sensor_body), 6))
        if len(layout.sensor_body) == 0:
            return out.reshape(-1, 6)
        body = layout.sensor_body
        offset = np.array([tuple(pose.p) for pose in layout.sensor_pose])
        rotation = physics.xmat[:, body]
        point = physics.xpos[:, body] + np.einsum("nsij,sj->nsi", rotation, offset)
        wrench = contact_wrench(physics, body, point)
        frames = rotation @ np.array([pose.r.matrix() for pose in layout.sensor_pose])
        frames[:, layout.sensor_world] = np.eye(3)
        out[..., :3] = np.einsum("nsji,nsj->nsi", frames, wrench[..., :3])
        out[..., 3:] = np.einsum("nsji,nsj->nsi", frames, wrench[..., 3:])
        return out.reshape(-1, 6)

    def _reader(self, name: str) -> Callable[[], np.ndarray]:
        kind, _, actor = name.partition(":")
        names = [one.name for one in self._simulation.environments[0].actors]
        if actor not in names:
            raise IsaacError(
                f"acquire_{kind}_tensor: no actor is called '{actor}'; there are {', '.join(names)}"
            )
        number = names.index(actor)
        return (lambda: self._jacobian(number)) if kind == "jacobian" else (lambda: self._mass_matrix(number))

    def _jacobian(self, actor: int) -> np.ndarray:
        """(N, links, 6, dofs); a fixed root has no row, a floating one six columns before the others."""
        sim, layout = self._simulation, self._simulation.layout
        bodies = layout.bodies_of(actor)
        first = bodies.start + 1 + (1 if layout.mocap[actor] >= 0 else 0)
        jacobian = sim.physics.body_jacobians()[:, first : bodies.stop + 1]
        joints = jacobian[..., layout.dof_qvel[layout.dofs_of(actor)]]
        if layout.mocap[actor] >= 0:
            return joints
        root = jacobian[..., layout.free_qvel[actor] + np.arange(_ROOT_DOFS)]
        return np.concatenate([root @ self._world_velocities(actor)[:, None], joints], axis=-1)

    def _mass_matrix(self, actor: int) -> np.ndarray:
        """(N, dofs, dofs), six rows and columns of a floating root first."""
        sim, layout = self._simulation, self._simulation.layout
        dofs = layout.dof_qvel[layout.dofs_of(actor)]
        if layout.mocap[actor] >= 0:
            return sim.physics.mass_matrix[:, dofs[:, None], dofs]
        dofs = np.concatenate([layout.free_qvel[actor] + np.arange(_ROOT_DOFS), dofs])
        change = np.tile(np.eye(len(dofs)), (sim.n_envs, 1, 1))
        change[:, :_ROOT_DOFS, :_ROOT_DOFS] = self._world_velocities(actor)
        return change.swapaxes(1, 2) @ sim.physics.mass_matrix[:, dofs[:, None], dofs] @ change

    def _world_velocities(self, actor: int) -> np.ndarray:
        """(N, 6, 6): MuJoCo's velocity of a free joint from linear and angular velocity in the world's frame."""
        sim, p = self._simulation, self._simulation.layout.free_qpos[actor]
        change = np.tile(np.eye(_ROOT_DOFS), (sim.n_envs, 1, 1))
        rotation = quaternion_to_matrix(sim.physics.qpos[:, p + 3 : p + 7])
        change[:, 3:, 3:] = rotation.swapaxes(1, 2)
        return change

    # --- indices ----------------------------------------------------------------------------------------------

    def _array(self, tensor: torch.Tensor, call: str, shape: tuple[int, ...]) -> np.ndarray:
        if tensor.numel() != int(np.prod(shape)):
            raise IsaacError(
                f"{call}: a tensor of shape {tuple(tensor.shape)}; expected {shape} or as many values in that order "
                "(indexed setters, too, take the values of all actors)"
            )
        return tensor.detach().cpu().to(torch.float64).numpy().reshape(shape)

    def _actor_mask(self, actors: np.ndarray | None) -> np.ndarray:
        sim, layout = self._simulation, self._simulation.layout
        mask = np.zeros(sim.n_envs * layout.n_actors, dtype=bool)
        if actors is None:
            mask[:] = True
        else:
            if len(actors) and (actors.min() < 0 or actors.max() >= len(mask)):
                raise IsaacError(
                    f"actor indices {actors.min()} to {actors.max()}; there are {len(mask)} actors in the simulation, "
                    "and indexed setters take get_actor_index(..., DOMAIN_SIM)"
                )
            mask[actors] = True
        return mask.reshape(sim.n_envs, layout.n_actors)

    def _dof_mask(self, actors: np.ndarray | None) -> np.ndarray:
        layout = self._simulation.layout
        return np.repeat(self._actor_mask(actors), np.diff(layout.actor_dofs), axis=1)
