"""The calls of Isaac Gym's ``gym`` that run a simulation and exchange tensors with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import CoordinateSpace
from robot_sim.isaac.simulation import Simulation
from robot_sim.isaac.tensors import TensorViews


class GymTensor:
    """What tensor calls take and return: a handle that ``gymtorch.wrap_tensor`` opens.

    Attributes:
        tensor: The ``torch.Tensor`` behind it; not a copy.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.tensor.shape)


def wrap_tensor(handle: GymTensor, offsets: Any = None, counts: Any = None) -> torch.Tensor:
    """Return the tensor of a handle; views of it share the memory that ``refresh_*`` writes.

    Raises:
        IsaacError: A part of it is asked for; slice the result.
    """
    if offsets is not None or counts is not None:
        raise IsaacError("wrap_tensor with offsets and counts; wrap the whole tensor and slice it")
    return handle.tensor


def unwrap_tensor(tensor: torch.Tensor) -> GymTensor:
    """Return a handle of a tensor.

    Raises:
        IsaacError: The tensor is not contiguous, so its rows are not where Isaac Gym would read them.
    """
    if not tensor.is_contiguous():
        raise IsaacError("unwrap_tensor of a tensor that is not contiguous; call .contiguous() first")
    return GymTensor(tensor)


class TensorCalls:
    """Calls that run a simulation; names and arguments are Isaac Gym's."""

    # --- running ----------------------------------------------------------------------------------------------

    def simulate(self, sim: Simulation) -> None:
        """Advance all environments by the simulation's ``dt``."""
        sim.simulate()

    def fetch_results(self, sim: Simulation, wait: bool) -> None:
        """Do nothing: results are there when ``simulate`` returns."""
        del sim, wait

    def get_frame_count(self, sim: Simulation) -> int:
        """Return how often ``simulate`` was called."""
        return sim.frame_count

    def get_sim_time(self, sim: Simulation) -> float:
        """Return the simulated time [s]."""
        return sim.frame_count * sim.params.dt

    # --- state tensors ----------------------------------------------------------------------------------------

    def acquire_dof_state_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*ndof, 2): positions [m or rad] and velocities."""
        return self._acquire(sim, "dof_state")

    def acquire_actor_root_state_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*actors, 13): position, quaternion xyzw, linear and angular velocity, environment's frame."""
        return self._acquire(sim, "root_state")

    def acquire_rigid_body_state_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*bodies, 13): position, quaternion xyzw, linear and angular velocity of the bodies' frames."""
        return self._acquire(sim, "rigid_body_state")

    def acquire_net_contact_force_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*bodies, 3): net contact force [N], environment's frame, in the current state."""
        return self._acquire(sim, "contact_force")

    def acquire_dof_force_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*ndof,): forces of the drives [N or N m]."""
        return self._acquire(sim, "dof_force")

    def acquire_force_sensor_tensor(self, sim: Simulation) -> GymTensor:
        """Return (N*sensors, 6): force [N] and torque [N m] of contacts on the sensors' bodies, sensors' frames."""
        return self._acquire(sim, "force_sensor")

    def acquire_jacobian_tensor(self, sim: Simulation, name: str) -> GymTensor:
        """Return (N, links, 6, ndof) of the actors of this name, linear rows first.

        A fixed root has no row; a floating one has, and six columns before those of the joints.
        """
        return self._acquire(sim, f"jacobian:{name}")

    def acquire_mass_matrix_tensor(self, sim: Simulation, name: str) -> GymTensor:
        """Return (N, ndof, ndof) of the actors of this name; a floating root's six rows come first."""
        return self._acquire(sim, f"mass_matrix:{name}")

    def refresh_dof_state_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "dof_state")

    def refresh_actor_root_state_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "root_state")

    def refresh_rigid_body_state_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "rigid_body_state")

    def refresh_net_contact_force_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "contact_force")

    def refresh_dof_force_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "dof_force")

    def refresh_force_sensor_tensor(self, sim: Simulation) -> bool:
        """Write the simulation's values into the acquired tensor."""
        return self._refresh(sim, "force_sensor")

    def refresh_jacobian_tensors(self, sim: Simulation) -> bool:
        """Write the simulation's values into all acquired Jacobians."""
        return self._refresh(sim, "jacobian:")

    def refresh_mass_matrix_tensors(self, sim: Simulation) -> bool:
        """Write the simulation's values into all acquired mass matrices."""
        return self._refresh(sim, "mass_matrix:")

    # --- setters ----------------------------------------------------------------------------------------------

    def set_dof_state_tensor(self, sim: Simulation, states: GymTensor) -> bool:
        """Set positions and velocities of all degrees of freedom."""
        self._of(sim).set_dof_state(states.tensor, None)
        return True

    def set_dof_state_tensor_indexed(
        self, sim: Simulation, states: GymTensor, indices: GymTensor, count: int
    ) -> bool:
        """Set positions and velocities of the degrees of freedom of actors; `states` are those of all."""
        self._of(sim).set_dof_state(states.tensor, _actors(indices, count))
        return True

    def set_actor_root_state_tensor(self, sim: Simulation, states: GymTensor) -> bool:
        """Set the root states of all actors."""
        self._of(sim).set_root_state(states.tensor, None)
        return True

    def set_actor_root_state_tensor_indexed(
        self, sim: Simulation, states: GymTensor, indices: GymTensor, count: int
    ) -> bool:
        """Set the root states of actors; `states` are those of all."""
        self._of(sim).set_root_state(states.tensor, _actors(indices, count))
        return True

    def set_dof_position_target_tensor(self, sim: Simulation, targets: GymTensor) -> bool:
        """Set the targets of all position drives."""
        self._of(sim).set_command("position_target", targets.tensor, None)
        return True

    def set_dof_position_target_tensor_indexed(
        self, sim: Simulation, targets: GymTensor, indices: GymTensor, count: int
    ) -> bool:
        """Set the targets of position drives of actors."""
        self._of(sim).set_command("position_target", targets.tensor, _actors(indices, count))
        return True

    def set_dof_velocity_target_tensor(self, sim: Simulation, targets: GymTensor) -> bool:
        """Set the target velocities of all velocity and position drives."""
        self._of(sim).set_command("velocity_target", targets.tensor, None)
        return True

    def set_dof_velocity_target_tensor_indexed(
        self, sim: Simulation, targets: GymTensor, indices: GymTensor, count: int
    ) -> bool:
        """Set the target velocities of drives of actors."""
        self._of(sim).set_command("velocity_target", targets.tensor, _actors(indices, count))
        return True

    def set_dof_actuation_force_tensor(self, sim: Simulation, forces: GymTensor) -> bool:
        """Set the efforts of all degrees of freedom in effort mode; they stay until set again."""
        self._of(sim).set_command("effort", forces.tensor, None)
        return True

    def set_dof_actuation_force_tensor_indexed(
        self, sim: Simulation, forces: GymTensor, indices: GymTensor, count: int
    ) -> bool:
        """Set the efforts of actors' degrees of freedom in effort mode."""
        self._of(sim).set_command("effort", forces.tensor, _actors(indices, count))
        return True

    def apply_rigid_body_force_tensors(
        self,
        sim: Simulation,
        forceTensor: GymTensor | None = None,
        torqueTensor: GymTensor | None = None,
        space: CoordinateSpace = CoordinateSpace.ENV_SPACE,
    ) -> bool:
        """Apply forces and torques (N*bodies, 3) at the centres of mass during the next ``simulate``."""
        local = space == CoordinateSpace.LOCAL_SPACE
        self._of(sim).apply_forces(_tensor(forceTensor), _tensor(torqueTensor), None, local=local)
        return True

    def apply_rigid_body_force_at_pos_tensors(
        self,
        sim: Simulation,
        forceTensor: GymTensor,
        posTensor: GymTensor,
        space: CoordinateSpace = CoordinateSpace.ENV_SPACE,
    ) -> bool:
        """Apply forces (N*bodies, 3) at points (N*bodies, 3) during the next ``simulate``."""
        if space == CoordinateSpace.LOCAL_SPACE:
            raise IsaacError(
                "apply_rigid_body_force_at_pos_tensors in LOCAL_SPACE; give forces and points in ENV_SPACE"
            )
        self._of(sim).apply_forces(forceTensor.tensor, None, posTensor.tensor, local=False)
        return True

    def _of(self, sim: Simulation) -> TensorViews:
        if sim.tensors is None:
            sim.tensors = TensorViews(sim)
        return sim.tensors

    def _acquire(self, sim: Simulation, name: str) -> GymTensor:
        return GymTensor(self._of(sim).acquire(name))

    def _refresh(self, sim: Simulation, prefix: str) -> bool:
        self._of(sim).refresh(prefix)
        return True


def _actors(indices: GymTensor, count: int) -> np.ndarray:
    if indices.tensor.dtype != torch.int32:
        raise IsaacError(
            f"actor indices of dtype {indices.tensor.dtype}; Isaac Gym reads them as int32: indices.to(torch.int32)"
        )
    return indices.tensor.detach().cpu().numpy().astype(np.int64).reshape(-1)[: int(count)]


def _tensor(handle: GymTensor | None) -> torch.Tensor | None:
    return None if handle is None else handle.tensor
