"""Cartpole on `VecTask`: a cart pushed along a rail keeps a pole upright.

The task of Barto, Sutton and Anderson (1983) with a continuous push, 60 Hz and 500 steps. It shows how a task is
written and is small enough to be learned in minutes on a laptop (``benchmarks/isaac_cartpole.py``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from robot_sim.isaac.gym_tensors import unwrap_tensor, wrap_tensor
from robot_sim.isaac.parameters import AssetOptions
from robot_sim.isaac.transforms import Transform, Vec3
from robot_sim.isaac.vec_task import VecTask

ASSETS = Path(__file__).parent / "assets"


def default_config(num_envs: int = 512) -> dict[str, Any]:
    """Return the configuration, shaped like those of IsaacGymEnvs."""
    return {
        "name": "Cartpole",
        "physics_engine": "physx",
        "env": {
            "numEnvs": num_envs,
            "envSpacing": 4.0,
            "maxEffort": 60.0,  # N at action 1
            "resetDist": 2.4,  # m from the middle
            "resetAngle": math.pi / 4,  # rad from upright
            "episodeLength": 500,
            "clipObservations": 5.0,
            "clipActions": 1.0,
        },
        "sim": {
            "dt": 1 / 60,
            "substeps": 2,
            "up_axis": "z",
            "gravity": [0.0, 0.0, -9.81],
            "use_gpu_pipeline": False,
        },
    }


class Cartpole(VecTask):
    """See the module's docstring.

    Observation (4): cart's position [m] and velocity [m/s], pole's angle from upright [rad] and velocity [rad/s].
    Action (1): push, in units of ``env.maxEffort``. Reward per step: 1 - angle² - 0.05 position² - 0.01 velocity², and
    -2 for the step in which cart or pole leave their bounds, which ends the episode.

    Args:
        cfg: See `default_config`.
        rl_device: Device of the learner.
        kwargs: As for `VecTask`.
    """

    def __init__(self, cfg: dict[str, Any], rl_device: str = "cpu", **kwargs: Any) -> None:
        env = cfg["env"]
        self.max_effort, self.max_episode_length = env["maxEffort"], env["episodeLength"]
        self.reset_distance, self.reset_angle = env["resetDist"], env["resetAngle"]
        env["numObservations"], env["numActions"] = 4, 1
        super().__init__(cfg, rl_device, **kwargs)
        self.dof_state = wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))
        self.states = self.dof_state.view(self.num_envs, self.num_dof, 2)
        self.efforts = torch.zeros(self.num_envs, self.num_dof)

    def create_sim(self) -> None:  # type: ignore[override]  # as IsaacGymEnvs' tasks do
        """Build the environments."""
        self.sim = super().create_sim(
            self.device_id, self.graphics_device_id, self.physics_engine, self.sim_params
        )  # type: ignore[assignment]
        options = AssetOptions()
        options.fix_base_link = True
        asset = self.gym.load_asset(self.sim, str(ASSETS), "cartpole.xml", options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        spacing = self.cfg["env"]["envSpacing"]
        lower, upper = Vec3(-spacing, -spacing, 0.0), Vec3(spacing, spacing, spacing)
        pose = Transform(p=Vec3(0.0, 0.0, 2.0))
        for number in range(self.num_envs):
            env = self.gym.create_env(self.sim, lower, upper, math.isqrt(self.num_envs))
            self.gym.create_actor(env, asset, pose, "cartpole", number, 1)

    def reset_idx(self, env_ids: torch.Tensor) -> None:
        """Start near the middle and upright, with small velocities."""
        self.states[env_ids] = 0.2 * (torch.rand(len(env_ids), self.num_dof, 2) - 0.5)
        indices = env_ids.to(torch.int32)
        self.gym.set_dof_state_tensor_indexed(
            self.sim, unwrap_tensor(self.dof_state), unwrap_tensor(indices), len(indices)
        )
        self.reset_buf[env_ids] = 0
        self.progress_buf[env_ids] = 0

    def pre_physics_step(self, actions: torch.Tensor) -> None:
        """Push the cart."""
        self.efforts[:, 0] = actions[:, 0] * self.max_effort
        self.gym.set_dof_actuation_force_tensor(self.sim, unwrap_tensor(self.efforts))

    def post_physics_step(self) -> None:
        """Count, reset, observe, reward."""
        self.progress_buf += 1
        done = self.reset_buf.nonzero(as_tuple=False).flatten()
        if len(done) > 0:
            self.reset_idx(done)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.obs_buf[:] = self.states.reshape(self.num_envs, -1)
        position, velocity, angle = self.obs_buf[:, 0], self.obs_buf[:, 1], self.obs_buf[:, 2]
        lost = (position.abs() > self.reset_distance) | (angle.abs() > self.reset_angle)
        reward = 1.0 - angle**2 - 0.05 * position**2 - 0.01 * velocity**2
        self.rew_buf[:] = torch.where(lost, -2.0, reward)
        self.reset_buf[:] = (lost | (self.progress_buf >= self.max_episode_length - 1)).long()
