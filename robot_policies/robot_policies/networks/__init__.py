"""Denoising networks and observation encoders; importing this package registers them all."""

from robot_policies.networks import energy_residual, mlp, transformer, unet1d
from robot_policies.networks.base import NetworkContext, networks

__all__ = ["NetworkContext", "energy_residual", "mlp", "networks", "transformer", "unet1d"]
