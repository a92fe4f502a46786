"""`VecTask`: write a task as IsaacGymEnvs does, against ``gym`` and its tensors, without installing anything of it.

::

    class Reach(VecTask):
        def __init__(self, cfg, rl_device="cpu"):
            cfg["env"]["numObservations"], cfg["env"]["numActions"] = 9, 3
            super().__init__(cfg, rl_device)
            self.dof_state = wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))

        def create_sim(self):
            self.sim = super().create_sim(self.device_id, self.graphics_device_id, self.physics_engine, self.sim_params)
            ...                                    # add_ground, load_asset, create_env, create_actor
        def reset_idx(self, env_ids): ...
        def pre_physics_step(self, actions): ...
        def post_physics_step(self): ...

`robot_sim.isaac.cartpole` is a complete example. A task file of IsaacGymEnvs brings its own ``VecTask`` and runs on
`robot_sim.isaac.shim` instead; `robot_sim.isaac.task_adapter` makes one of an own `MujocoTask`.
"""

from __future__ import annotations

from typing import Any

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.gym import acquire_gym
from robot_sim.isaac.parameters import SimParams, SimType, UpAxis
from robot_sim.isaac.simulation import Simulation
from robot_sim.isaac.transforms import Vec3
from robot_sim.isaac.vector_task import VectorTask


class VecTask(VectorTask):
    """See the module's docstring.

    Args:
        config: As for `VectorTask`, and ``sim``: dt, substeps, up_axis, gravity, backend.
        rl_device: Device of the learner.
        sim_device: ``"cpu"``.
        graphics_device_id: Ignored.
        headless: Ignored: there is no viewer.
        virtual_screen_capture: Must be False.
        force_render: Ignored.

    Attributes:
        gym: The ``gym`` object.
        sim: The simulation, which `create_sim` sets.
        sim_params: Parsed from ``config["sim"]``.
        dt: Time that one ``simulate`` advances [s].
    """

    sim: Simulation

    def __init__(
        self,
        config: dict[str, Any],
        rl_device: str = "cpu",
        sim_device: str = "cpu",
        graphics_device_id: int = -1,
        headless: bool = True,
        virtual_screen_capture: bool = False,
        force_render: bool = False,
    ) -> None:
        del force_render
        super().__init__(config, rl_device)
        if virtual_screen_capture:
            raise IsaacError(
                "virtual_screen_capture: there is no viewer to capture; draw states with mujoco.Renderer"
            )
        if config.get("task", {}).get("randomize"):
            raise IsaacError(
                "task.randomize is True; domain randomisation is that of IsaacGymEnvs' own VecTask: run the task on "
                "the shim, or set properties with gym.set_actor_*_properties in reset_idx"
            )
        self.device_type, _, number = sim_device.partition(":")
        self.device_id, self.graphics_device_id = int(number or 0), graphics_device_id
        self.headless, self.viewer = headless, None
        self.physics_engine = SimType.SIM_PHYSX
        self.sim_params = parse_sim_params(config.get("sim", {}))
        self.dt = self.sim_params.dt
        self.gym = acquire_gym()
        self.create_sim()
        self.gym.prepare_sim(self.sim)
        self.allocate_buffers()

    def create_sim(
        self,
        compute_device: int = 0,
        graphics_device: int = -1,
        physics_engine: SimType = SimType.SIM_PHYSX,
        sim_params: SimParams | None = None,
    ) -> Simulation | None:
        """Return a new simulation. A task overrides this without arguments, calls it, and adds environments."""
        return self.gym.create_sim(
            compute_device, graphics_device, physics_engine, sim_params or self.sim_params
        )

    def simulate(self) -> None:
        """Advance the simulation by `dt`."""
        self.gym.simulate(self.sim)

    def close(self) -> None:
        """End the simulation's threads."""
        self.gym.destroy_sim(self.sim)


def parse_sim_params(config: dict[str, Any]) -> SimParams:
    """Return simulation parameters of a configuration's ``sim`` section.

    Raises:
        IsaacError: The up axis is neither y nor z.
    """
    params = SimParams()
    axes = {"y": UpAxis.UP_AXIS_Y, "z": UpAxis.UP_AXIS_Z}
    axis = config.get("up_axis", "z")
    if axis not in axes:
        raise IsaacError(f"sim.up_axis is '{axis}'; expected 'y' or 'z'")
    params.up_axis = axes[axis]
    params.dt = float(config.get("dt", params.dt))
    params.substeps = int(config.get("substeps", params.substeps))
    params.use_gpu_pipeline = bool(config.get("use_gpu_pipeline", False))
    params.backend = str(config.get("backend", params.backend))
    default = [0.0, 0.0, -9.81] if axis == "z" else [0.0, -9.81, 0.0]
    params.gravity = Vec3(*config.get("gravity", default))
    for name, value in config.get("physx", {}).items():
        setattr(params.physx, name, value)
    return params
