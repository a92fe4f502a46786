"""Denoising networks and observation encoders; importing this package registers them all."""

from robot_policies.networks import mlp, transformer, unet1d
from robot_policies.networks.base import NetworkContext, networks

__all__ = ["NetworkContext", "mlp", "networks", "transformer", "unet1d"]
