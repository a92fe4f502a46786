r"""EBT-Policy: descend a learned energy from noise to an action chunk.

Davies et al., "EBT-Policy: Energy Unlocks Emergent Physical Reasoning Capabilities", 2025 (arXiv 2510.27545).

With A a normalised chunk, O the encoded observations, E(a, O) a scalar and G = T_p A_dim dE/da its slope (E
is a mean over the chunk's T_p A_dim numbers, so G does not depend on how many there are), one step is

    b = a / rms(a) + s xi + mu v      rms over the row's own chunk, if `rescale`; xi standard normal, in
                                      training only
    d = eta exp(E(b, O)) G(b, O)      a larger energy takes a larger step; |d|_rms is limited to `max_step`
    v <- mu v - d,   a <- b - d       Nesterov's momentum: the slope is taken after the momentum

    training    a ~ N(0, I); n steps, n drawn per batch; s falls from 0.2 to 0.002 along half a cosine; eta
                is jittered per row.  loss = mean over the n steps of (a - A)^2, differentiated through the
                step and thus through G (a second derivative); a and v are constants to the step after.
    inference   a ~ N(0, I), steps without noise and jitter; a row stops after the step at which the rms of
                its own G is below `min_gradient`, whatever the other rows do.

There are no negatives and no partition function: E is shaped so that descending it ends at the
demonstration. The energy of the returned chunk comes with it, as a relative score of uncertainty: nothing
calibrates it across tasks. Time window: `robot_policies.spec.PolicySpec`.

The original code takes rms over the whole batch, averages only part of the weights, and lets exp(E) grow
without bound; here rms is per row, the trainer averages the whole policy, and the step is limited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError, Registry
from robot_policies.networks.energy import EnergyNetwork, energy_networks
from robot_policies.normalizer import Stats
from robot_policies.policies.base import NetworkPolicy, NetworkPolicyConfig
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput, draw_normal
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """Inference of an `EnergyPolicy`, ``{"type": "gradient", ...}``.

    Attributes:
        steps: Largest number of descent steps. Each costs about three forward passes.
        min_gradient: A row stops after the step at which the rms of its G is below this; 0 never stops early.
    """

    steps: int = 6
    min_gradient: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.min_gradient < 0:
            raise ConfigError(
                f"inference needs steps >= 1 and min_gradient >= 0, got {self.steps} and {self.min_gradient}"
            )


inferences: Registry[GradientConfig] = Registry("energy sampler")
inferences.register("gradient", GradientConfig)(lambda config: config)


@dataclass(frozen=True, kw_only=True)
class EnergyPolicyConfig(NetworkPolicyConfig):
    """Options of an `EnergyPolicy`; see the module docstring for the symbols.

    Attributes:
        inference: Default inference; a checkpoint accepts another one.
        min_train_steps: Smallest n.
        extra_train_steps: n is drawn from min_train_steps + {0, ..., extra_train_steps}.
        step_size: eta. The original's 1000 on the slope of a mean over 16 x 7 numbers is 9 here.
        step_jitter: In training eta is multiplied by U[1 / step_jitter, step_jitter], per row.
        max_step: Limit of |d|_rms, in normalised units; actions span 2.
        energy_limit: exp(E) is taken of E clamped to [-energy_limit, energy_limit].
        momentum: mu; 0.9 in the original.
        rescale: Divide by rms(a) before each step, as the original does; false leaves b = a + s xi + mu v.
            With it the minima of E are off the demonstrations, so G does not vanish and `min_gradient`
            never stops a row.
        noise: s at the first and, in the limit, at the last training step.
        supervise: Which training steps the loss averages: ``all`` or ``last``.
        sampler: Not used; accepted because every training configuration has one.
    """

    inference: Mapping[str, Any] = field(default_factory=lambda: {"type": "gradient"})
    min_train_steps: int = 6
    extra_train_steps: int = 4
    step_size: float = 9.0
    step_jitter: float = 1.5
    max_step: float = 2.0
    energy_limit: float = 3.0
    momentum: float = 0.0
    rescale: bool = False
    noise: tuple[float, ...] = (0.2, 0.002)
    supervise: Literal["all", "last"] = "all"
    sampler: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.min_train_steps < 1 or self.extra_train_steps < 0:
            raise ConfigError(
                "policy needs min_train_steps >= 1 and extra_train_steps >= 0, "
                f"got {self.min_train_steps} and {self.extra_train_steps}"
            )
        if min(self.step_size, self.max_step, self.energy_limit) <= 0 or self.step_jitter < 1:
            raise ConfigError(
                "policy needs step_size, max_step and energy_limit above 0 and step_jitter >= 1, got "
                f"{self.step_size}, {self.max_step}, {self.energy_limit} and {self.step_jitter}"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"policy.momentum must be in [0, 1), got {self.momentum}")
        if len(self.noise) != 2 or min(self.noise) < 0:
            raise ConfigError(f"policy.noise must be two numbers >= 0, first and last, got {self.noise}")


class Descent(NamedTuple):
    """State of the descent, one row per sample: chunk and velocity (B, T_p, A), energy and rms slope (B,)."""

    actions: Tensor
    velocity: Tensor
    energy: Tensor
    slope: Tensor


def rms(x: Tensor) -> Tensor:
    """Root mean square over the chunk: (B, T, A) -> (B, 1, 1)."""
    return x.square().mean(dim=(1, 2), keepdim=True).add(1e-12).sqrt()


class EnergyPolicy(NetworkPolicy):
    """An energy network and the descent that it was trained through."""

    network: EnergyNetwork
    registry = energy_networks

    def __init__(self, config: EnergyPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config
        self.inference = inferences.build(config.inference, where="policy.inference")

    def step(
        self,
        actions: Tensor,
        velocity: Tensor,
        memory: Tensor,
        *,
        noise: Tensor | float = 0.0,
        jitter: Tensor | float = 1.0,
        differentiable: bool = False,
    ) -> Descent:
        """One descent step; see the module docstring.

        Args:
            actions: a, (B, T_p, A) in normalised units; a constant to this step.
            velocity: v, likewise.
            memory: Encoded observations (B, T_o, W).
            noise: s xi, (B, T_p, A).
            jitter: Factor of eta, (B, 1, 1).
            differentiable: Keep the graph, so that a loss on the result trains the network.
        """
        config = self.config
        start, velocity = actions.detach(), velocity.detach()
        if config.rescale:
            start = start / rms(start)
        base = start + noise + config.momentum * velocity
        with torch.enable_grad():
            base = base.detach().requires_grad_()
            energy = self.network(base, memory)
            (slope,) = torch.autograd.grad(energy.sum(), base, create_graph=differentiable)
        slope = slope * slope[0].numel()
        urgency = energy.clamp(-config.energy_limit, config.energy_limit).exp()[:, None, None]
        d = config.step_size * jitter * urgency * slope
        d = d * (config.max_step / rms(d).clamp(min=config.max_step))
        state = Descent(base - d, config.momentum * velocity - d, energy, rms(slope).flatten())
        return state if differentiable else Descent(*(value.detach() for value in state))

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the loss of the unrolled descent; see the module docstring."""
        config, target = self.config, self.normalized_actions(batch)
        memory = self.network.encode(encoded)
        n = config.min_train_steps + int(torch.randint(config.extra_train_steps + 1, ()))
        actions, velocity = torch.randn_like(target), torch.zeros_like(target)
        errors, energies = [], []
        first, last = config.noise
        for i in range(n):
            sigma = last + (first - last) * (1 + math.cos(math.pi * i / n)) / 2
            jitter = torch.empty(len(target), 1, 1, device=target.device)
            state = self.step(
                actions,
                velocity,
                memory,
                noise=sigma * torch.randn_like(target),
                jitter=jitter.uniform_(1 / config.step_jitter, config.step_jitter),
                differentiable=config.supervise == "all" or i == n - 1,
            )
            actions, velocity = state.actions, state.velocity
            errors.append(self.mean_over_chunk((actions - target).square(), batch))
            energies.append(state.energy.detach().mean())
        loss = errors[-1] if config.supervise == "last" else torch.stack(errors).mean()
        terms = {"first": errors[0], "last": errors[-1], "energy": energies[-1]}
        return LossOutput(loss=loss, terms={name: value.detach() for name, value in terms.items()})

    def predict_encoded(
        self, encoded: Tensor, *, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        """Descend to a chunk; see `NetworkPolicy.predict_encoded`.

        `n_network_calls` counts the steps of the row that took most, and the final evaluation of the energy.
        """
        inference = self.inference if sampler is None else inferences.build(sampler, where="sampler")
        # The slope needs tensors that autograd may record, which those of inference mode are not.
        with torch.inference_mode(False), torch.no_grad():
            memory = self.network.encode(encoded.clone())
            start = draw_normal(self.chunk_shape(encoded), generator=generator, like=memory)
            chunk, calls = self._descend(start, memory, inference)
            if self.config.bounded_actions:
                chunk = chunk.clamp(-1, 1)
            return ActionChunk(
                actions=self.normalizer[ACTION].unnormalize(chunk),
                n_network_calls=calls + 1,
                energy=self.network(chunk, memory),
            )

    def _descend(self, actions: Tensor, memory: Tensor, inference: GradientConfig) -> tuple[Tensor, int]:
        """Descend from noise; rows that have stopped are neither moved nor computed any more."""
        actions, velocity = actions.clone(), torch.zeros_like(actions)
        moving = torch.arange(len(actions), device=actions.device)
        for i in range(inference.steps):
            state = self.step(actions[moving], velocity[moving], memory[moving])
            actions[moving], velocity[moving] = state.actions, state.velocity
            moving = moving[state.slope >= inference.min_gradient]
            if len(moving) == 0:
                return actions, i + 1
        return actions, inference.steps


@policies.register("energy", EnergyPolicyConfig)
def build_energy_policy(config: EnergyPolicyConfig, *, spec: PolicySpec, stats: Stats | None) -> EnergyPolicy:
    """Build an `EnergyPolicy`."""
    return EnergyPolicy(config, spec, stats)
