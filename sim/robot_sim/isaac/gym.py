"""Isaac Gym's ``gym`` object on MuJoCo: every call that is supported, and errors that say what to do for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_sim.isaac.errors import UnsupportedCallError
from robot_sim.isaac.gym_actors import ActorCalls
from robot_sim.isaac.gym_assets import AssetCalls
from robot_sim.isaac.gym_properties import PropertyCalls
from robot_sim.isaac.gym_tensors import TensorCalls
from robot_sim.isaac.gym_viewer import SILENT_CALLS, ViewerCalls

_STATE_TENSORS = "use the tensor calls: acquire_*, refresh_* and set_*_tensor_indexed"
_CAMERAS = "take pictures with mujoco.Renderer from sim.physics.write_to(...)"

#: Beginnings of names of calls that are not supported -> what to do instead.
ALTERNATIVES: dict[str, str] = {
    "add_triangle_mesh": "use add_ground, or put the terrain into an MJCF asset as a height field (<hfield>)",
    "add_heightfield": "use add_ground, or put the terrain into an MJCF asset as a height field (<hfield>)",
    "create_rigid_body_attractor": "put an equality constraint (<connect> or <weld>) into an MJCF asset",
    "set_attractor": "put an equality constraint (<connect> or <weld>) into an MJCF asset",
    "create_tendon": "put tendons into an MJCF asset",
    "get_actor_tendon_properties": "put tendons into an MJCF asset",
    "set_actor_tendon_properties": "put tendons into an MJCF asset",
    "set_actor_scale": "scale the meshes and shapes in the asset's file",
    "get_actor_dof_states": _STATE_TENSORS,
    "set_actor_dof_states": _STATE_TENSORS,
    "get_actor_rigid_body_states": _STATE_TENSORS,
    "set_actor_rigid_body_states": _STATE_TENSORS,
    "get_env_rigid_": _STATE_TENSORS,
    "get_sim_rigid_body_states": _STATE_TENSORS,
    "set_actor_dof_position_targets": "use set_dof_position_target_tensor_indexed",
    "set_actor_dof_velocity_targets": "use set_dof_velocity_target_tensor_indexed",
    "apply_actor_dof_efforts": "use set_dof_actuation_force_tensor_indexed",
    "apply_body_force": "use apply_rigid_body_force_tensors",
    "set_rigid_linear_velocity": "use set_actor_root_state_tensor_indexed",
    "set_rigid_angular_velocity": "use set_actor_root_state_tensor_indexed",
    "set_rigid_transform": "use set_actor_root_state_tensor_indexed",
    "set_rigid_body_state_tensor": "set the states of roots and degrees of freedom instead",
    "create_camera_sensor": _CAMERAS,
    "get_camera_": _CAMERAS,
    "set_camera_": _CAMERAS,
    "attach_camera": _CAMERAS,
    "acquire_particle": "particles and soft bodies need another simulator; MuJoCo's <flexcomp> is the nearest",
    "create_texture": "textures are not drawn",
    "load_mjcf": "use load_asset",
    "load_urdf": "use load_asset",
    "load_usd": "convert the file to URDF or MJCF and use load_asset",
}


class Gym(AssetCalls, ActorCalls, PropertyCalls, TensorCalls, ViewerCalls):
    """The object that ``gymapi.acquire_gym`` returns.

    Calls that are not supported raise `UnsupportedCallError` when called, not when looked up: IsaacGymEnvs makes
    tables of calls that it may never use.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in SILENT_CALLS:
            return self.silent(name)

        def unsupported(*args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            remedy = next((text for start, text in ALTERNATIVES.items() if name.startswith(start)), None)
            remedy = remedy or "docs/simulation/isaac-gym.md lists the calls that are"
            raise UnsupportedCallError(f"gym.{name} is not supported on MuJoCo; {remedy}")

        unsupported.__name__ = name
        return unsupported


_gym: Gym | None = None


def acquire_gym(*args: Any) -> Gym:
    """Return the process's `Gym`, always the same one, as Isaac Gym does."""
    del args
    global _gym
    if _gym is None:
        _gym = Gym()
    return _gym
