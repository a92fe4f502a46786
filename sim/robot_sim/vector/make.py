"""A vector environment of a registered task, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.randomization import Randomization
from robot_sim.registry import TaskError, make_task
from robot_sim.vector.vector_env import MujocoVectorEnv


def make_vector_env(
    name: str,
    num_envs: int,
    *,
    options: Mapping[str, object] | None = None,
    threads: int | None = None,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    randomization: Randomization | None = None,
    backend: str = "mujoco",
) -> MujocoVectorEnv:
    """Build N environments of one of our own MuJoCo tasks.

    Args:
        name: Registered name.
        num_envs: N.
        options: Options of the task, as for `robot_sim.registry.make_task`.
        threads: Threads of the physics; None uses all cores.
        autoreset_mode: See `robot_sim.vector.vector_env.MujocoVectorEnv`.
        randomization: What varies between episodes besides their initial states.
        backend: Who steps the physics: ``mujoco`` (threads of this computer) or ``warp`` (mujoco_warp on a GPU).

    Raises:
        TaskError: Unknown task or option, or a task of another simulator.
        UserError: The backend is unknown, not installed, or cannot step the task's model.
    """
    single: Any = make_task(name, **(options or {}))
    try:
        if not isinstance(single, MujocoTaskEnv):
            raise TaskError(
                f"task '{name}' is not one of our MuJoCo tasks, which are what is vectorised here; wrap "
                "robot_sim.registry.make_task in gymnasium.vector.SyncVectorEnv or AsyncVectorEnv"
            )
        task = single.simulation.task
    finally:
        single.close()
    return MujocoVectorEnv(
        task,
        num_envs,
        threads=threads,
        autoreset_mode=autoreset_mode,
        randomization=randomization,
        backend=backend,
    )
