"""What every denoising network is built from and registered in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from robot_policies.configuration import Registry


@dataclass(frozen=True, kw_only=True)
class NetworkContext:
    """Sizes that a policy's spec dictates to its network.

    A network maps a noisy chunk (B, T_p, A), the denoising step (B,) and encoded observations
    (B, T_o, D) to (B, T_p, A).

    Attributes:
        action_dim: A.
        horizon: T_p [steps].
        obs_dim: D, width of one encoded observation.
        n_obs_steps: T_o [steps].
    """

    action_dim: int
    horizon: int
    obs_dim: int
    n_obs_steps: int


networks: Registry[nn.Module] = Registry("network")
