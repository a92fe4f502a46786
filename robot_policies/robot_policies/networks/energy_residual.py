r"""An energy that is the distance of a chunk from its own correction: EBT-Policy in minutes on a CPU.

With F a residual MLP over chunk and observations (`robot_policies.networks.mlp.ResidualMlp`, the network of the
smallest Diffusion Policy):

    E(a, O) = mean over the chunk of (a - F(a, O))^2 / 2

A bowl around F, whose slope is a - F wherever F hardly depends on a: descent has a direction from the first training
step on, where a network with a scalar output has to learn that its output is a bowl at all. Salimans & Ho ("Should
EBMs model the energy or the score?", 2021) use such an energy for generation. F depends on a, so E is no quadratic
function: several demonstrations for one observation can each have a minimum. E is 0 where a chunk needs no correction.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robot_policies.networks.base import NetworkContext
from robot_policies.networks.energy import EnergyNetwork, energy_networks
from robot_policies.networks.mlp import MlpConfig, ResidualMlp


@dataclass(frozen=True, kw_only=True)
class EnergyResidualConfig(MlpConfig):
    """Sizes of the `ResidualMlp` that corrects a chunk."""


class EnergyResidual(EnergyNetwork):
    """See the module docstring; its memory is the observation itself."""

    def __init__(self, config: EnergyResidualConfig, context: NetworkContext) -> None:
        super().__init__()
        self.correct = ResidualMlp(config, context)

    def _encode(self, observation: Tensor) -> Tensor:
        return observation

    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor:
        # An energy knows no noise level: the network's denoising step is always 0.
        corrected = self.correct(actions, actions.new_zeros(len(actions)), memory)
        return (actions - corrected).square().mean(dim=(1, 2)) / 2


@energy_networks.register("energy_residual", EnergyResidualConfig)
def build_energy_residual(config: EnergyResidualConfig, *, context: NetworkContext) -> EnergyResidual:
    """Build an `EnergyResidual`."""
    return EnergyResidual(config, context)
