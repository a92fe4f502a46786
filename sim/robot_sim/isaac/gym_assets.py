"""The calls of Isaac Gym's ``gym`` about simulations and assets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_sim.isaac.asset import Asset, ForceSensor, primitive
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.mjcf import load_mjcf
from robot_sim.isaac.parameters import (
    ActuatorProperties,
    AssetOptions,
    DofType,
    ForceSensorProperties,
    PlaneParams,
    RigidShapeProperties,
    SimParams,
    SimType,
)
from robot_sim.isaac.shapes import copied_options, shape_arrays, shape_properties
from robot_sim.isaac.simulation import MAX_TIMESTEP, Simulation
from robot_sim.isaac.transforms import Transform
from robot_sim.isaac.urdf import load_urdf


class AssetCalls:
    """Calls about simulations and assets; names and arguments are Isaac Gym's.

    Attributes:
        max_timestep: Longest physics step [s] of simulations made from now on.
        threads: Threads of simulations made from now on; None uses all cores.
    """

    max_timestep: float = MAX_TIMESTEP
    threads: int | None = None

    # --- simulation -------------------------------------------------------------------------------------------

    def create_sim(
        self,
        compute_device: int = 0,
        graphics_device: int = 0,
        type: SimType = SimType.SIM_PHYSX,
        params: SimParams | None = None,
    ) -> Simulation:
        """Return a new simulation; it computes on the CPU and draws nothing.

        Raises:
            IsaacError: The parameters ask for tensors on a GPU.
        """
        del compute_device, graphics_device, type
        params = SimParams() if params is None else params
        if params.use_gpu_pipeline:
            raise IsaacError(
                "use_gpu_pipeline is True, and MuJoCo's tensors live on the CPU; set sim.use_gpu_pipeline=False and "
                "sim_device='cpu' (the learner may use a GPU: rl_device='cuda:0')"
            )
        return Simulation(params, max_timestep=self.max_timestep, threads=self.threads)

    def destroy_sim(self, sim: Simulation) -> None:
        """End a simulation."""
        sim.close()

    def add_ground(self, sim: Simulation, params: PlaneParams) -> None:
        """Add a ground plane."""
        sim.add_plane(params)

    def prepare_sim(self, sim: Simulation) -> bool:
        """Compile the environments."""
        sim.prepare()
        return True

    def get_sim_params(self, sim: Simulation) -> SimParams:
        """Return the parameters of a simulation."""
        return sim.params

    def set_sim_params(self, sim: Simulation, params: SimParams) -> None:
        """Set gravity, and before ``prepare_sim`` the rest."""
        sim.set_params(params)

    # --- assets -----------------------------------------------------------------------------------------------

    def load_asset(
        self, sim: Simulation, rootpath: str, filename: str, options: AssetOptions | None = None
    ) -> Asset:
        """Read a URDF or MJCF file.

        Raises:
            IsaacError: There is no such file, it is of another kind, or it cannot be simulated.
        """
        del sim
        root, options = Path(rootpath), copied_options(options)
        path = root / filename
        if not path.is_file():
            raise IsaacError(f"load_asset: there is no file {path}; check the asset root and the file name")
        if path.suffix == ".urdf":
            return load_urdf(path, root, options)
        if path.suffix in (".xml", ".mjcf"):
            return load_mjcf(path, options)
        raise IsaacError(
            f"load_asset: {path.name} is of no known kind; expected .urdf, .xml or .mjcf (USD: convert it)"
        )

    def create_box(
        self, sim: Simulation, width: float, height: float, depth: float, options: AssetOptions | None = None
    ) -> Asset:
        """Return a box of the sizes along x, y and z [m]."""
        del sim
        return primitive("box", [width / 2, height / 2, depth / 2], copied_options(options))

    def create_sphere(self, sim: Simulation, radius: float, options: AssetOptions | None = None) -> Asset:
        """Return a sphere."""
        del sim
        return primitive("sphere", [radius], copied_options(options))

    def create_capsule(
        self, sim: Simulation, radius: float, length: float, options: AssetOptions | None = None
    ) -> Asset:
        """Return a capsule along x; `length` is that of its cylinder."""
        del sim
        return primitive("capsule", [radius, length / 2], copied_options(options))

    def get_asset_dof_count(self, asset: Asset) -> int:
        """Return the number of degrees of freedom."""
        return asset.n_dofs

    def get_asset_dof_names(self, asset: Asset) -> list[str]:
        """Return the names of the degrees of freedom, in their order."""
        return list(asset.dof_names)

    def get_asset_dof_name(self, asset: Asset, index: int) -> str:
        """Return the name of a degree of freedom."""
        return asset.dof_names[index]

    def get_asset_dof_dict(self, asset: Asset) -> dict[str, int]:
        """Return name -> index of the degrees of freedom."""
        return {name: index for index, name in enumerate(asset.dof_names)}

    def find_asset_dof_index(self, asset: Asset, name: str) -> int:
        """Return the index of a degree of freedom."""
        return asset.dof_index(name)

    def get_asset_dof_type(self, asset: Asset, index: int) -> DofType:
        """Return whether a degree of freedom turns or slides."""
        return asset.dof_type(index)

    def get_asset_dof_properties(self, asset: Asset) -> np.ndarray:
        """Return a copy of the properties of the degrees of freedom."""
        return asset.dof_properties.copy()

    def get_asset_rigid_body_count(self, asset: Asset) -> int:
        """Return the number of rigid bodies."""
        return asset.n_bodies

    def get_asset_rigid_body_names(self, asset: Asset) -> list[str]:
        """Return the names of the rigid bodies, root first."""
        return list(asset.body_names)

    def get_asset_rigid_body_name(self, asset: Asset, index: int) -> str:
        """Return the name of a rigid body."""
        return asset.body_names[index]

    def get_asset_rigid_body_dict(self, asset: Asset) -> dict[str, int]:
        """Return name -> index of the rigid bodies."""
        return {name: index for index, name in enumerate(asset.body_names)}

    def find_asset_rigid_body_index(self, asset: Asset, name: str) -> int:
        """Return the index of a rigid body, -1 if there is none."""
        return asset.body_index(name)

    def get_asset_rigid_shape_count(self, asset: Asset) -> int:
        """Return the number of collision shapes."""
        return asset.n_shapes

    def get_asset_joint_count(self, asset: Asset) -> int:
        """Return the number of joints, fixed ones included."""
        return len(asset.joint_names)

    def get_asset_joint_names(self, asset: Asset) -> list[str]:
        """Return the names of the joints, fixed ones included."""
        return list(asset.joint_names)

    def get_asset_actuator_count(self, asset: Asset) -> int:
        """Return the number of actuators in the MJCF file."""
        return len(asset.actuators)

    def get_asset_actuator_properties(self, asset: Asset) -> list[ActuatorProperties]:
        """Return the actuators of the MJCF file."""
        return list(asset.actuators)

    def get_asset_rigid_shape_properties(self, asset: Asset) -> list[RigidShapeProperties]:
        """Return the contact properties of the collision shapes."""
        return shape_properties(asset, asset.shape_defaults, 0)

    def set_asset_rigid_shape_properties(self, asset: Asset, properties: list[RigidShapeProperties]) -> None:
        """Set friction and filters of the collision shapes of actors that are made from now on."""
        asset.shape_defaults = shape_arrays(asset, properties)

    def create_asset_force_sensor(
        self, asset: Asset, body: int, pose: Transform, properties: ForceSensorProperties | None = None
    ) -> int:
        """Put a force sensor on a body; it reports the wrench of contacts."""
        if not 0 <= body < asset.n_bodies:
            raise IsaacError(
                f"create_asset_force_sensor: body {body}; '{asset.name}' has 0 to {asset.n_bodies - 1}"
            )
        asset.force_sensors.append(ForceSensor(body, pose.copy(), properties or ForceSensorProperties()))
        return len(asset.force_sensors) - 1
