"""The buffers and the step of Isaac Gym's vectorised tasks, whatever simulates behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
import torch

from robot_sim.isaac.errors import IsaacError


class VectorTask(ABC):
    """N environments of one task, stepped together, with the interface of IsaacGymEnvs' ``VecTask``.

    ``step(actions)`` returns ``(obs_dict, rew_buf, reset_buf, extras)``. Environments whose `reset_buf` is set are
    reset by the task in the *next* ``post_physics_step``, before it observes, so the observation returned with a reset
    is the last one of the old episode, and the action given with it is not seen by the new one.

    Args:
        config: Tree like IsaacGymEnvs' task configurations: ``env.numEnvs``, ``env.numObservations``,
            ``env.numActions``, and optionally ``env.numStates``, ``env.controlFrequencyInv``,
            ``env.clipObservations``, ``env.clipActions``.
        rl_device: Device of the learner; what `step` returns is there.

    Attributes:
        cfg: `config`.
        obs_buf: Observations (N, num_obs) float32.
        states_buf: Privileged observations (N, num_states) float32.
        rew_buf: Rewards (N,) float32.
        reset_buf: Which episodes are over (N,) int64; 1 at the start.
        timeout_buf: Which of them were cut off by `max_episode_length` (N,).
        progress_buf: Steps of the episodes (N,) int64.
        randomize_buf: Steps since domain randomisation (N,) int64, for tasks that use it.
        extras: What `step` returns besides; ``time_outs`` (N,) is always there.
        max_episode_length: Steps after which an episode ends; set by the task.
    """

    max_episode_length: float = float("inf")

    def __init__(self, config: dict[str, Any], rl_device: str = "cpu") -> None:
        self.cfg = config
        env = _section(config, "env")
        self.device, self.rl_device = "cpu", rl_device
        self.num_environments = _size(env, "numEnvs", least=1)
        self.num_agents = int(env.get("numAgents", 1))
        self.num_observations = _size(env, "numObservations", least=1)
        self.num_states = int(env.get("numStates", 0))
        self.num_actions = _size(env, "numActions", least=1)
        self.control_freq_inv = int(env.get("controlFrequencyInv", 1))
        self.clip_obs = float(env.get("clipObservations", np.inf))
        self.clip_actions = float(env.get("clipActions", np.inf))
        self.obs_space = _box(self.num_observations, np.inf)
        self.state_space = _box(self.num_states, np.inf)
        self.act_space = _box(self.num_actions, 1.0)
        self.total_train_env_frames = 0
        self.control_steps = 0
        self.obs_dict: dict[str, torch.Tensor] = {}
        self.extras: dict[str, Any] = {}

    def allocate_buffers(self) -> None:
        """Create the buffers; `reset_buf` is 1, so that the first step starts every episode."""
        n = self.num_envs
        self.obs_buf = torch.zeros(n, self.num_obs)
        self.states_buf = torch.zeros(n, self.num_states)
        self.rew_buf = torch.zeros(n)
        self.reset_buf = torch.ones(n, dtype=torch.long)
        self.timeout_buf = torch.zeros(n, dtype=torch.long)
        self.progress_buf = torch.zeros(n, dtype=torch.long)
        self.randomize_buf = torch.zeros(n, dtype=torch.long)

    # --- what a task writes -----------------------------------------------------------------------------------

    @abstractmethod
    def pre_physics_step(self, actions: torch.Tensor) -> None:
        """Apply actions (N, num_actions), already clipped, to the simulation."""

    @abstractmethod
    def simulate(self) -> None:
        """Advance the simulation; called ``controlFrequencyInv`` times per step."""

    @abstractmethod
    def post_physics_step(self) -> None:
        """Count `progress_buf`, reset what `reset_buf` says, fill `obs_buf`, `rew_buf` and `reset_buf`."""

    @abstractmethod
    def reset_idx(self, env_ids: torch.Tensor) -> None:
        """Start new episodes in environments (n,) int64; their `reset_buf` and `progress_buf` become 0."""

    def timeouts(self) -> torch.Tensor:
        """Return which episodes that are over were cut off by their length (N,)."""
        return (self.progress_buf >= self.max_episode_length - 1) & (self.reset_buf != 0)

    # --- what a learner calls ---------------------------------------------------------------------------------

    def step(
        self, actions: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Carry out one action in every environment.

        Args:
            actions: (N, num_actions), clipped to +-``clipActions``.

        Returns:
            ``{"obs": (N, num_obs)}`` clipped to +-``clipObservations``, with ``"states"`` where there are any; rewards
            (N,); resets (N,) int64; extras.

        Raises:
            IsaacError: The actions have another shape or are not finite.
        """
        if tuple(actions.shape) != (self.num_envs, self.num_actions):
            raise IsaacError(
                f"actions of shape {tuple(actions.shape)}; expected (num_envs, num_actions) = "
                f"({self.num_envs}, {self.num_actions})"
            )
        actions = actions.detach().to(self.device)
        if not torch.isfinite(actions).all():
            raise IsaacError("actions hold NaN or infinity; the policy has diverged: lower its learning rate")
        self.pre_physics_step(torch.clamp(actions, -self.clip_actions, self.clip_actions))
        for _ in range(self.control_freq_inv):
            self.simulate()
        self.post_physics_step()
        self.control_steps += 1
        self.timeout_buf = self.timeouts()
        self.extras["time_outs"] = self.timeout_buf.to(self.rl_device)
        self._fill_observations()
        return self.obs_dict, self.rew_buf.to(self.rl_device), self.reset_buf.to(self.rl_device), self.extras

    def reset(self) -> dict[str, torch.Tensor]:
        """Return the observations as they are; resetting is `post_physics_step`'s business, in the first step."""
        self._fill_observations()
        return self.obs_dict

    def reset_done(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Reset the environments whose `reset_buf` is set; return observations and those environments."""
        done = self.reset_buf.nonzero(as_tuple=False).flatten()
        if len(done) > 0:
            self.reset_idx(done)
        self._fill_observations()
        return self.obs_dict, done

    def zero_actions(self) -> torch.Tensor:
        """Return actions of zero (N, num_actions) on the learner's device."""
        return torch.zeros(self.num_envs, self.num_actions, device=self.rl_device)

    def get_state(self) -> torch.Tensor:
        """Return the privileged observations (N, num_states), clipped."""
        return torch.clamp(self.states_buf, -self.clip_obs, self.clip_obs).to(self.rl_device)

    def set_train_info(self, env_frames: int, *args: Any, **kwargs: Any) -> None:
        """Learn from the learner how many frames it has seen."""
        del args, kwargs
        self.total_train_env_frames = env_frames

    def get_env_state(self) -> Any:
        """Return what a checkpoint should keep of the environment: nothing unless overridden."""
        return None

    def set_env_state(self, env_state: Any) -> None:
        """Take what `get_env_state` returned."""
        del env_state

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """Space of one environment's observation."""
        return self.obs_space

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """Space of one environment's action."""
        return self.act_space

    @property
    def num_envs(self) -> int:
        """Number of environments."""
        return self.num_environments

    @property
    def num_acts(self) -> int:
        """Length of an action."""
        return self.num_actions

    @property
    def num_obs(self) -> int:
        """Length of an observation."""
        return self.num_observations

    def _fill_observations(self) -> None:
        self.obs_dict["obs"] = torch.clamp(self.obs_buf, -self.clip_obs, self.clip_obs).to(self.rl_device)
        if self.num_states > 0:
            self.obs_dict["states"] = self.get_state()


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in config:
        raise IsaacError(
            f"the task's configuration has no section '{name}'; it has {', '.join(config) or 'nothing'}"
        )
    return config[name]


def _size(env: dict[str, Any], name: str, *, least: int) -> int:
    value = env.get(name)
    if not isinstance(value, int) or value < least:
        raise IsaacError(f"env.{name} is {value!r}; expected a whole number of at least {least}")
    return value


def _box(size: int, bound: float) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-bound, bound, (size,), np.float32)
