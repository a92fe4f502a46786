r"""Implicit behavior cloning (IBC): search the chunk of lowest energy.

Florence et al., "Implicit Behavioral Cloning", CoRL 2021 (arXiv 2109.00137). The historical baseline of
energy-based policies, here with the encoders and networks of EBT-Policy (`robot_policies.policies.energy`).

With A a normalised chunk, O the encoded observations, E(a, O) a scalar and negatives a_1..a_N, uniform in the
box of the actions (a component that never moves in the data has no width there, or it alone would tell the
negatives) and, if `refine` is set, moved to low energy by a Langevin chain (a constant to the loss):

    training    loss = -log( exp(-E(A)) / (exp(-E(A)) + sum_j exp(-E(a_j))) )                       InfoNCE
                       + penalty * mean_j max(0, max|dE/da_j| - margin)^2                       if refined

    Langevin    a <- clip(a - limit(h_k (dE/da / 2 + xi)))     h_k = h_K + (h_0 - h_K) (1 - k / K)^power
    DFO         draw N chunks again with probability exp(-E) / sum, add noise s xi, clip, s <- s * shrink

    inference   N uniform chunks, Langevin or DFO, then the one of lowest energy, which is returned with it

xi is standard normal, limit() bounds each component and clip() keeps to the box. The loss estimates a partition
function from few negatives, so it goes on falling while the actions get no better, and uniform negatives say
little in more than a few dimensions: the original predicts one step (``window.horizon`` equal to
``n_obs_steps``), not a chunk. Time window: `robot_policies.spec.PolicySpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError, Registry
from robot_policies.networks.energy import EnergyNetwork, energy_networks
from robot_policies.normalizer import Stats
from robot_policies.policies.base import NetworkPolicy, NetworkPolicyConfig
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput, draw_normal
from robot_policies.spec import PolicySpec

Energy = Callable[[Tensor], Tensor]
"""(B, N, T_p, A) chunks to (B, N) energies."""
DrawNormal = Callable[[], Tensor]
"""Standard normal noise (B, N, T_p, A)."""


class Search(Protocol):
    """Moves candidates (B, N, T_p, A) within [-box, box], (A,), to low energy; also returns its network calls."""

    @property
    def n_samples(self) -> int:
        """Candidates N per row."""
        ...

    def __call__(self, energy: Energy, start: Tensor, draw: DrawNormal, box: Tensor) -> tuple[Tensor, int]:
        """Run the search."""
        ...


@dataclass(frozen=True, kw_only=True)
class Langevin:
    """A Langevin chain, ``{"type": "langevin", ...}``; see the module docstring.

    Attributes:
        n_samples: Chains per row at inference.
        steps: K.
        first_step: h_0.
        last_step: h_K.
        power: Exponent of the schedule.
        limit: Largest move of a component in one step, in normalised units.
    """

    n_samples: int = 512
    steps: int = 100
    first_step: float = 0.1
    last_step: float = 1e-5
    power: float = 2.0
    limit: float = 0.1

    def __post_init__(self) -> None:
        if min(self.n_samples, self.steps) < 1 or self.limit <= 0:
            raise ConfigError(
                "langevin needs n_samples and steps >= 1 and limit above 0, "
                f"got {self.n_samples}, {self.steps} and {self.limit}"
            )

    def __call__(self, energy: Energy, start: Tensor, draw: DrawNormal, box: Tensor) -> tuple[Tensor, int]:
        """Run the chain; the result is detached."""
        x = start.detach()
        for k in range(self.steps):
            h = self.last_step + (self.first_step - self.last_step) * (1 - k / self.steps) ** self.power
            move = h * (slope(energy, x)[1] / 2 + draw())
            x = (x - move.clamp(-self.limit, self.limit)).clamp(-box, box)
        return x, self.steps


@dataclass(frozen=True, kw_only=True)
class DerivativeFree:
    """Derivative-free optimisation, ``{"type": "dfo", ...}``; see the module docstring.

    Attributes:
        n_samples: N.
        iterations: Times the candidates are drawn again.
        noise: s of the first iteration, in normalised units.
        shrink: Factor of s from one iteration to the next.
    """

    n_samples: int = 1024
    iterations: int = 5
    noise: float = 0.33
    shrink: float = 0.5

    def __post_init__(self) -> None:
        if min(self.n_samples, self.iterations) < 1 or self.noise <= 0:
            raise ConfigError(
                "dfo needs n_samples and iterations >= 1 and noise above 0, "
                f"got {self.n_samples}, {self.iterations} and {self.noise}"
            )

    def __call__(self, energy: Energy, start: Tensor, draw: DrawNormal, box: Tensor) -> tuple[Tensor, int]:
        """Run the search."""
        x = start
        for k in range(self.iterations):
            levels = torch.softmax(-energy(x), dim=1).cumsum(dim=1)
            # Inverse transform sampling, with uniform numbers from each row's own source of noise.
            uniform = (uniform_in_box(draw())[:, :, 0, 0] + 1) / 2
            chosen = torch.searchsorted(levels, uniform).clamp(max=x.shape[1] - 1)
            x = x.gather(1, chosen[:, :, None, None].expand_as(x))
            x = (x + self.noise * self.shrink**k * draw()).clamp(-box, box)
        return x, self.iterations


searches: Registry[Search] = Registry("search")
searches.register("langevin", Langevin)(lambda config: config)
searches.register("dfo", DerivativeFree)(lambda config: config)


@dataclass(frozen=True, kw_only=True)
class ImplicitPolicyConfig(NetworkPolicyConfig):
    """Options of an `ImplicitPolicy`; see the module docstring.

    Attributes:
        inference: Default search, by ``type``; a checkpoint accepts another one.
        n_negatives: N in training.
        refine: Langevin chain of the negatives; null leaves them uniform.
        penalty: Weight of the gradient penalty, used with `refine`.
        margin: Slope from which on it counts.
        boundary: How far the box of negatives and candidates goes beyond the data on either side, as a
            fraction of their range.
        sampler: Not used; accepted because every training configuration has one.
    """

    inference: Mapping[str, Any] = field(default_factory=lambda: {"type": "dfo"})
    n_negatives: int = 256
    refine: Langevin | None = None
    penalty: float = 1.0
    margin: float = 1.0
    boundary: float = 0.05
    sampler: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.n_negatives < 1 or self.boundary < 0:
            raise ConfigError(
                f"policy needs n_negatives >= 1 and boundary >= 0, got {self.n_negatives} and {self.boundary}"
            )
        if not self.bounded_actions:
            raise ConfigError(
                "an implicit policy searches the box [-1, 1]; set policy.normalization.action to min_max"
            )
        if self.mask_padding:
            raise ConfigError(
                "an energy is that of a whole chunk, so padding cannot be left out of it; "
                "set policy.mask_padding to false"
            )


def uniform_in_box(normal: Tensor) -> Tensor:
    """Standard normal numbers to uniform ones in [-1, 1], through the normal distribution function."""
    return torch.erf(normal / 2**0.5)


def slope(energy: Energy, x: Tensor, *, differentiable: bool = False) -> tuple[Tensor, Tensor]:
    """Energies (B, N) of constant chunks x and dE/dx (B, N, T_p, A)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        energies = energy(x)
        (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=differentiable)
    return energies, gradient


class ImplicitPolicy(NetworkPolicy):
    """An energy network trained against negatives, and a search for its minimum."""

    network: EnergyNetwork
    registry = energy_networks
    box: Tensor

    def __init__(self, config: ImplicitPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(config, spec, stats)
        self.config = config
        box = torch.full(spec.action.shape, 1 + 2 * config.boundary)
        if stats is not None:
            box[self.normalizer[ACTION].constant(stats[ACTION])] = 0
        self.register_buffer("box", box)
        self.inference = searches.build(config.inference, where="policy.inference")

    def energies(self, chunks: Tensor, memory: Tensor) -> Tensor:
        """Energies (B, N) of N chunks per row, (B, N, T_p, A), given the rows' memories (B, T_o, W)."""
        n = chunks.shape[1]
        return self.network(chunks.flatten(0, 1), memory.repeat_interleave(n, dim=0)).unflatten(0, (-1, n))

    def loss_encoded(self, encoded: Tensor, batch: Mapping[str, Tensor]) -> LossOutput:
        """Return the InfoNCE loss and, with refined negatives, the gradient penalty."""
        positive = self.normalized_actions(batch)[:, None]
        memory = self.network.encode(encoded)
        shape = (len(positive), self.config.n_negatives, *positive.shape[2:])
        negatives = self.box * (2 * torch.rand(shape, device=positive.device) - 1)
        penalty = positive.new_zeros(())
        if self.config.refine is not None:
            constant = memory.detach()
            negatives, _ = self.config.refine(
                lambda x: self.energies(x, constant), negatives, lambda: torch.randn_like(negatives), self.box
            )
            _, gradient = slope(lambda x: self.energies(x, memory), negatives, differentiable=True)
            steepest = gradient.abs().flatten(2).amax(dim=-1)
            penalty = self.config.penalty * (steepest - self.config.margin).clamp(min=0).square().mean()
        energies = self.energies(torch.cat([positive, negatives], dim=1), memory)
        info_nce = F.cross_entropy(
            -energies, torch.zeros(len(energies), dtype=torch.long).to(energies.device)
        )
        terms = {"info_nce": info_nce.detach(), "gradient_penalty": penalty.detach()}
        return LossOutput(loss=info_nce + penalty, terms=terms)

    def predict_encoded(
        self, encoded: Tensor, *, generator: Generators, sampler: Mapping[str, Any] | None
    ) -> ActionChunk:
        """Search a chunk; a network call scores all candidates of all rows.

        See `NetworkPolicy.predict_encoded`.
        """
        search = self.inference if sampler is None else searches.build(sampler, where="sampler")
        batch_size, horizon, action_dim = self.chunk_shape(encoded)
        shape = (batch_size, search.n_samples, horizon, action_dim)
        # Langevin's slope needs tensors that autograd may record, which those of inference mode are not.
        with torch.inference_mode(False), torch.no_grad():
            memory = self.network.encode(encoded.clone())

            def draw() -> Tensor:
                return draw_normal(shape, generator=generator, like=memory)

            def energy(chunks: Tensor) -> Tensor:
                return self.energies(chunks, memory)

            found, calls = search(energy, self.box * uniform_in_box(draw()), draw, self.box)
            lowest = energy(found).min(dim=1)
            chunk = found[torch.arange(batch_size, device=found.device), lowest.indices].clamp(-1, 1)
            return ActionChunk(
                actions=self.normalizer[ACTION].unnormalize(chunk),
                n_network_calls=calls + 1,
                energy=lowest.values,
            )


@policies.register("implicit", ImplicitPolicyConfig)
def build_implicit_policy(
    config: ImplicitPolicyConfig, *, spec: PolicySpec, stats: Stats | None
) -> ImplicitPolicy:
    """Build an `ImplicitPolicy`."""
    return ImplicitPolicy(config, spec, stats)
