"""Any own `MujocoTask` as a vectorised task of Isaac Gym's kind: ``tabletop_lift`` and its like under rl_games."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robot_datasets.errors import UserError
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.vector_task import VectorTask
from robot_sim.mujoco_tasks.simulation import MAX_SEED, TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.registry import make_task


class MujocoVecTask(VectorTask):
    """N environments of an own task.

    The observation is the task's low-dimensional features, one after the other in the order of its spec. An action of
    [-1, 1] spans the controller's range. An episode ends with success, with its last step, or when its physics
    diverges; ``extras`` has ``success`` (N,) and ``reward_terms``, name -> (N,). Episode k of environment i starts from
    seed ``cfg["seed"] + i + k * N``.

    Args:
        task: The task.
        num_envs: Number of environments.
        seed: First seed.
        rl_device: Device of the learner.
        threads: Threads of the physics; None uses all cores.
        backend: Who steps the physics: ``mujoco`` or ``warp``; tensors are on the CPU with both.
    """

    def __init__(
        self,
        task: MujocoTask,
        num_envs: int = 64,
        *,
        seed: int = 0,
        rl_device: str = "cpu",
        threads: int | None = None,
        backend: str = "mujoco",
    ) -> None:
        self.task = task
        self.simulation = TaskSimulation(task, num_envs, threads=threads, backend=backend)
        controller = self.simulation.controller
        self._low, self._high = np.asarray(controller.low), np.asarray(controller.high)
        if not (np.isfinite(self._low).all() and np.isfinite(self._high).all()):
            raise IsaacError(
                f"task '{task.spec.name}' has actions without bounds, which [-1, 1] cannot span; choose another control"
            )
        features = task.spec.observation
        self.observation_names = [
            f"{name}[{i}]" for name, feature in features.items() for i in range(int(np.prod(feature.shape)))
        ]
        config = {
            "name": task.spec.name,
            "physics_engine": "physx",
            "seed": seed,
            "env": {
                "numEnvs": num_envs,
                "numObservations": len(self.observation_names),
                "numActions": len(self._low),
                "episodeLength": task.spec.max_steps,
                "clipActions": 1.0,
            },
            "sim": {"dt": 1.0 / task.spec.fps, "substeps": task.n_substeps, "up_axis": "z"},
        }
        super().__init__(config, rl_device)
        self.max_episode_length = task.spec.max_steps
        self._seed, self._episode = seed, np.zeros(num_envs, dtype=np.int64)
        self._actions = np.zeros((num_envs, len(self._low)))
        self._cut_off = torch.zeros(num_envs, dtype=torch.bool)
        self.allocate_buffers()
        self.reset_idx(torch.arange(num_envs))
        self._observe()

    def reset_idx(self, env_ids: torch.Tensor) -> None:
        """Start the next episodes of environments."""
        rows = env_ids.cpu().numpy()
        seeds = (self._seed + rows + self._episode[rows] * self.num_envs) % MAX_SEED
        self.simulation.reset(rows, seeds)
        self._episode[rows] += 1
        self.progress_buf[env_ids] = 0
        self.reset_buf[env_ids] = 0

    def pre_physics_step(self, actions: torch.Tensor) -> None:
        """Scale actions to the controller's range."""
        fraction = (actions.numpy().astype(float) + 1.0) / 2.0
        self._actions = self._low + fraction * (self._high - self._low)

    def simulate(self) -> None:
        """Carry out the action for one control period."""
        self.simulation.step(self._actions)

    def post_physics_step(self) -> None:
        """Count, reset, observe, reward."""
        self.progress_buf += 1
        done = self.reset_buf.nonzero(as_tuple=False).flatten()
        if len(done) > 0:
            self.reset_idx(done)
        self._observe()
        outcome = self.simulation.outcome()
        self.rew_buf[:] = torch.from_numpy(np.asarray(outcome.reward, dtype=np.float32))
        over = outcome.success | outcome.diverged | outcome.truncated
        self.reset_buf[:] = torch.from_numpy(over.astype(np.int64))
        self._cut_off = torch.from_numpy(outcome.truncated & ~outcome.success & ~outcome.diverged)
        self.extras["success"] = torch.from_numpy(outcome.success.copy()).to(self.rl_device)
        self.extras["reward_terms"] = {
            name: torch.from_numpy(np.asarray(term, dtype=np.float32)) for name, term in outcome.terms.items()
        }

    def timeouts(self) -> torch.Tensor:
        """Return which episodes ended with their last step and without success (N,)."""
        return self._cut_off

    def close(self) -> None:
        """End the simulation's threads."""
        self.simulation.close()

    def _observe(self) -> None:
        values = self.simulation.observe()
        flat = [np.asarray(value, dtype=np.float32).reshape(self.num_envs, -1) for value in values.values()]
        self.obs_buf[:] = torch.from_numpy(np.concatenate(flat, axis=1))


def vec_task(
    name: str,
    num_envs: int = 64,
    *,
    seed: int = 0,
    rl_device: str = "cpu",
    backend: str = "mujoco",
    **options: Any,
) -> MujocoVecTask:
    """Return an own task by name.

    Args:
        name: As in `robot_sim.registry`.
        num_envs: Number of environments.
        seed: First seed.
        rl_device: Device of the learner.
        backend: Who steps the physics: ``mujoco`` or ``warp``.
        options: Passed to the task's ``make_task``.

    Raises:
        UserError: Unknown task, or one that is no `MujocoTask`; a backend that is not there.
    """
    env = make_task(name, **options)
    simulation = getattr(env, "simulation", None)
    task = getattr(simulation, "task", None)
    if not isinstance(task, MujocoTask):
        raise UserError(
            f"task '{name}' comes from another library; only own MuJoCo tasks (tabletop_*) are vectorised"
        )
    return MujocoVecTask(task, num_envs, seed=seed, rl_device=rl_device, backend=backend)
