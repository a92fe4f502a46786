"""Isaac Gym's vectorised interface on MuJoCo: ``VecTask``, tensors, and a module ``isaacgym`` for code that imports it.

- `robot_sim.isaac.vec_task.VecTask`: base class for tasks written as in IsaacGymEnvs;
- `robot_sim.isaac.task_adapter.vec_task`: any own MuJoCo task behind that interface;
- `install_shim`: makes ``from isaacgym import gymapi, gymtorch, gymutil`` work in this process;
- `robot_sim.isaac.checkout`: runs IsaacGymEnvs' task files from a checkout of it;
- ``python -m robot_sim.isaac run SCRIPT``: runs a script with the shim.

``docs/simulation/isaac-gym.md`` lists what is supported and what differs.
"""

from robot_sim.isaac.shim import install_shim, uninstall_shim

__all__ = ["install_shim", "uninstall_shim"]
