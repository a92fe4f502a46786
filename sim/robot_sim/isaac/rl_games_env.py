"""Vectorised tasks under rl_games (``pip install rl-games``), which finds environments by registered names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_sim.isaac.errors import IsaacError

_VECENV_TYPE = "ROBOT_SIM"


def register_rl_games(name: str, create: Callable[..., Any]) -> None:
    """Make a task known to rl_games as the environment ``params.config.env_name``.

    Args:
        name: The name, for instance ``"rlgpu"``, which IsaacGymEnvs' training configurations use.
        create: Returns the task: a `VecTask`, a `MujocoVecTask`, or one of IsaacGymEnvs'.

    Raises:
        IsaacError: rl_games is not installed.
    """
    try:
        from rl_games.common import env_configurations, vecenv  # pyright: ignore[reportMissingImports]
        from rl_games.common.ivecenv import IVecEnv  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise IsaacError(f"rl_games does not import ({error}); pip install rl-games") from error

    class RlGamesEnv(IVecEnv):
        """What rl_games calls, answered by a vectorised task."""

        def __init__(self, config_name: str, num_actors: int, **kwargs: Any) -> None:
            del num_actors
            self.env = env_configurations.configurations[config_name]["env_creator"](**kwargs)

        def step(self, actions: Any) -> Any:
            return self.env.step(actions)

        def reset(self) -> Any:
            return self.env.reset()

        def reset_done(self) -> Any:
            return self.env.reset_done()

        def get_number_of_agents(self) -> int:
            return int(getattr(self.env, "num_agents", 1))

        def get_env_info(self) -> dict[str, Any]:
            info = {
                "action_space": self.env.action_space,
                "observation_space": self.env.observation_space,
                "agents": self.get_number_of_agents(),
            }
            if self.env.num_states > 0:
                info["state_space"] = self.env.state_space
            return info

        def set_train_info(self, env_frames: int, *args: Any, **kwargs: Any) -> None:
            self.env.set_train_info(env_frames, *args, **kwargs)

        def get_env_state(self) -> Any:
            return self.env.get_env_state()

        def set_env_state(self, env_state: Any) -> None:
            self.env.set_env_state(env_state)

    vecenv.register(_VECENV_TYPE, RlGamesEnv)
    env_configurations.register(name, {"vecenv_type": _VECENV_TYPE, "env_creator": create})
