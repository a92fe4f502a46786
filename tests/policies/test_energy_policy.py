"""EBT-Policy: conformance, the descent against its closed form, and energies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robot_policies.checkpoint import default_sampler
from robot_policies.configuration import ConfigError
from robot_policies.networks import NetworkContext
from robot_policies.networks.energy import EnergyNetwork, energy_networks
from robot_policies.policies import build_policy
from robot_policies.policies.energy import EnergyPolicy
from robot_policies.testing import (
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    seeds,
)

TRANSFORMER = {
    "type": "energy_transformer",
    "width": 16,
    "n_encoder_layers": 1,
    "n_layers": 1,
    "n_heads": 2,
    "attention_dropout": 0.0,
}
MLP = {"type": "energy_mlp", "width": 48, "n_blocks": 1}
TARGET = 0.25


def energy_config(network: dict[str, Any], **rest: Any) -> dict[str, Any]:
    short = {"min_train_steps": 2, "extra_train_steps": 1, "inference": {"type": "gradient", "steps": 3}}
    return {"type": "energy", "network": network, **short, **rest}


class TestEnergyTransformer(PolicyTests):
    """The paper's network and loop, small."""

    def policy_config(self) -> dict:
        """Two or three training steps."""
        return energy_config(TRANSFORMER, rescale=True, momentum=0.9)


class TestEnergyMlpLastStep(PolicyTests):
    """The other options: an MLP, no rescaling, and a loss on the last step, over steps that are no padding."""

    def policy_config(self) -> dict:
        """Plain gradient descent."""
        return energy_config(MLP, supervise="last", mask_padding=True)


class TestEnergyResidual(PolicyTests):
    """The network of the preset for CPUs, and a step that fits its slope."""

    def policy_config(self) -> dict:
        """Distance from a correction."""
        return energy_config({"type": "energy_residual", "width": 32, "n_blocks": 1}, step_size=0.6)


class Bowl(EnergyNetwork):
    """E = mean (a - c)^2 / 2, c = TARGET plus the first observation component, so that G = a - c."""

    def _encode(self, observation: Tensor) -> Tensor:
        return observation

    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor:
        return (actions - self.centre(memory)).square().mean(dim=(1, 2)) / 2

    def centre(self, memory: Tensor) -> Tensor:
        return TARGET + memory[:, :1, :1]


def bowl_policy(**options: Any) -> EnergyPolicy:
    """A policy whose energy is known; its observations count little so that centres stay in [-1, 1]."""
    spec = example_spec()
    options = {"step_size": 0.5, **options}
    policy = build_policy(energy_config(MLP, **options), spec, example_stats(spec)).eval()
    assert isinstance(policy, EnergyPolicy)
    policy.network = Bowl()
    return policy


def test_step_is_gradient_descent_in_closed_form() -> None:
    """On a bowl, one step moves by eta exp(E) (b - c), and the velocity is minus that."""
    policy, memory = bowl_policy(max_step=100.0), torch.zeros(4, 2, 7)
    actions = torch.randn(4, 8, 2)
    state = policy.step(actions, torch.zeros_like(actions), memory)
    energy = (actions - TARGET).square().mean(dim=(1, 2)) / 2
    moved = 0.5 * energy.exp()[:, None, None] * (actions - TARGET)
    torch.testing.assert_close(state.energy, energy)
    torch.testing.assert_close(state.actions, actions - moved)
    torch.testing.assert_close(state.velocity, -moved)
    torch.testing.assert_close(state.slope, (2 * energy).sqrt())


def test_momentum_looks_ahead() -> None:
    """The slope is taken at a + mu v, and v becomes mu v - d."""
    policy, memory = bowl_policy(momentum=0.8), torch.zeros(2, 2, 7)
    actions, velocity = 0.1 * torch.randn(2, 8, 2), 0.1 * torch.randn(2, 8, 2)
    state = policy.step(actions, velocity, memory)
    ahead = actions + 0.8 * velocity
    plain = policy.step(ahead, torch.zeros_like(velocity), memory)
    torch.testing.assert_close(state.actions, plain.actions)
    torch.testing.assert_close(state.velocity, state.actions - actions)


def test_steps_are_limited_per_row() -> None:
    """A runaway energy moves its own row by max_step at most, and no other row differently."""
    policy, memory = bowl_policy(max_step=0.3), torch.zeros(2, 2, 7)
    actions = torch.stack([torch.full((8, 2), 0.3), torch.full((8, 2), 1e6)])
    state = policy.step(actions, torch.zeros_like(actions), memory)
    moved = (actions - state.actions).square().mean(dim=(1, 2)).sqrt()
    assert moved[1] == pytest.approx(0.3, rel=0.3)  # float32 holds 1e6 to about 0.06
    alone = policy.step(actions[:1], torch.zeros_like(actions[:1]), memory[:1])
    torch.testing.assert_close(state.actions[:1], alone.actions)


def test_rescaling_is_per_row() -> None:
    """With `rescale`, the size of a row does not matter, neither to itself nor to the others."""
    policy, memory = bowl_policy(rescale=True), torch.zeros(3, 2, 7)
    actions = torch.randn(3, 8, 2)
    larger = actions * torch.tensor([5.0, 1.0, 0.1])[:, None, None]
    zeros = torch.zeros_like(actions)
    torch.testing.assert_close(
        policy.step(larger, zeros, memory).actions, policy.step(actions, zeros, memory).actions
    )


def test_loss_is_differentiated_through_the_slope() -> None:
    """The gradient that training sees is that of finite differences through a whole descent step."""
    spec = example_spec()
    torch.manual_seed(0)
    policy = build_policy(energy_config(TRANSFORMER), spec, example_stats(spec)).double()
    assert isinstance(policy, EnergyPolicy)
    # The networks compute in float32 by design; double precision is what finite differences need.
    network = policy.network
    network.forward = network._energy
    memory = torch.randn(2, 2, 16, dtype=torch.float64)
    start, zeros = torch.randn(2, 8, 2, dtype=torch.float64), torch.zeros(2, 8, 2, dtype=torch.float64)
    weight = network.get_parameter("action_in.0.weight")

    def loss() -> Tensor:
        return policy.step(start, zeros, memory, differentiable=True).actions.square().mean()

    (gradient,) = torch.autograd.grad(loss(), weight)
    numeric, eps = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            weight[3, 1] += sign * eps
        numeric.append(float(loss().detach()))
        with torch.no_grad():
            weight[3, 1] -= sign * eps
    assert float(gradient[3, 1]) == pytest.approx((numeric[0] - numeric[1]) / (2 * eps), rel=1e-4)


def test_descent_reaches_the_minimum_and_reports_its_energy() -> None:
    """Enough steps end at each row's own centre, with the energy of the chunk that is returned."""
    policy = bowl_policy(step_size=0.5)
    observation = {k: torch.full_like(v, 10.0) for k, v in observation_of(example_batch(policy.spec)).items()}
    observation["observation.state"][:, 0, 0] = torch.linspace(0, 20, 6)  # 10 is 0 in normalised units
    chunk = policy.predict_chunk(observation, sampler={"type": "gradient", "steps": 40})
    centres = (TARGET + torch.linspace(-0.5, 0.5, 6)) * 20 + 10
    torch.testing.assert_close(chunk.actions, centres[:, None, None].expand(6, 8, 2), atol=1e-3, rtol=0)
    assert chunk.energy is not None
    assert chunk.energy.shape == (6,)
    assert chunk.energy.abs().max() < 1e-6


def test_adaptive_stopping_is_each_rows_own() -> None:
    """Rows stop at different steps, and each one where it would have stopped alone."""
    policy = bowl_policy(step_size=0.05)
    observation = observation_of(example_batch(policy.spec))
    sampler = {"type": "gradient", "steps": 90, "min_gradient": 0.1}
    together = policy.predict_chunk(observation, generator=seeds(6), sampler=sampler)
    calls = []
    for row in range(6):
        one = {name: value[row : row + 1] for name, value in observation.items()}
        alone = policy.predict_chunk(one, generator=seeds(6)[row : row + 1], sampler=sampler)
        calls.append(alone.n_network_calls)
        torch.testing.assert_close(alone.actions, together.actions[row : row + 1], atol=1e-4, rtol=1e-4)
        assert alone.energy is not None
        assert together.energy is not None
        torch.testing.assert_close(alone.energy, together.energy[row : row + 1])
    assert together.n_network_calls == max(calls) < 91
    assert min(calls) < max(calls)


def test_reports_name_the_descent_and_not_the_runs_sampler() -> None:
    """A run has a sampler by default; an energy policy samples by its own inference whatever that is."""
    run = {"policy": {"type": "energy", "inference": {"type": "gradient"}}, "sampler": {"type": "ddim"}}
    assert default_sampler(run) == {"type": "gradient"}
    assert default_sampler({**run, "policy": {"type": "diffusion"}}) == {"type": "ddim"}


@pytest.mark.parametrize("network", [TRANSFORMER, MLP])
def test_prediction_works_in_inference_mode(network: dict) -> None:
    """Evaluation predicts under torch.inference_mode, where plain autograd would refuse."""
    spec = example_spec()
    policy = build_policy(energy_config(network), spec, example_stats(spec)).eval()
    observation = observation_of(example_batch(spec))
    outside = policy.predict_chunk(observation, generator=seeds(6)).actions
    with torch.inference_mode():
        copies = {name: value.clone() for name, value in observation.items()}
        inside = policy.predict_chunk(copies, generator=seeds(6)).actions
    torch.testing.assert_close(inside, outside)


def test_actions_do_not_attend_to_later_observations() -> None:
    """With one block, token 0's slope ignores the second observation but for what other tokens pass on."""
    torch.manual_seed(0)
    context = NetworkContext(action_dim=2, horizon=1, obs_dim=3, n_obs_steps=2)
    network = energy_networks.build(TRANSFORMER, where="network", context=context).eval()
    observation = torch.randn(1, 2, 3)
    later = observation.clone()
    later[:, 1] += 1
    actions = torch.randn(1, 1, 2)
    base = network(actions, network.encode(observation))
    torch.testing.assert_close(network(actions, network.encode(later)), base, atol=0, rtol=0)
    earlier = observation.clone()
    earlier[:, 0] += 1
    assert network(actions, network.encode(earlier)) != base


def test_network_has_the_published_size() -> None:
    """Encoder 3.2 M and energy decoder 5.4 M parameters for two cameras of 64 features and 9 numbers."""
    context = NetworkContext(action_dim=10, horizon=16, obs_dim=137, n_obs_steps=2)
    with torch.device("meta"):
        network = energy_networks.build({"type": "energy_transformer"}, where="network", context=context)
    encoder = [n for n, _ in network.named_parameters() if n.startswith(("observation", "encoder", "memory"))]
    counts = {n: p.numel() for n, p in network.named_parameters()}
    assert round(sum(counts[n] for n in encoder) / 1e6, 1) == 3.2
    assert round(sum(c for n, c in counts.items() if n not in encoder) / 1e6, 1) == 5.4


def test_first_step_is_of_the_size_of_the_actions() -> None:
    """At initialisation the small preset moves by 0.1 to 1 where actions span 2: neither stuck nor wild."""
    spec = example_spec()
    torch.manual_seed(0)
    network = {"type": "energy_transformer", "width": 64, "n_encoder_layers": 1, "n_layers": 3}
    policy = build_policy({"type": "energy", "network": network}, spec, example_stats(spec)).eval()
    assert isinstance(policy, EnergyPolicy)
    start = torch.randn(16, 8, 2)
    with torch.no_grad():
        memory = policy.network.encode(policy.encode(example_batch(spec, 16)))
    state = policy.step(start, torch.zeros_like(start), memory)
    assert 0.1 < float(state.velocity.square().mean().sqrt()) < 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"type": "transformer"}}, "did you mean 'energy_transformer'"),
        ({"network": {**TRANSFORMER, "n_heads": 3}}, "not divisible by n_heads"),
        ({"inference": {"type": "gradient", "steps": 0}}, "steps >= 1"),
        ({"inference": {"type": "ddim"}}, "unknown energy sampler"),
        ({"min_train_steps": 0}, "min_train_steps >= 1"),
        ({"max_step": 0.0}, "above 0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"noise": [0.2]}, "must be two numbers"),
    ],
)
def test_bad_configuration_is_explained(change: dict, message: str) -> None:
    """Every bad value ends in one line with the rule or the nearest match."""
    spec = example_spec()
    with pytest.raises(ConfigError, match=message):
        build_policy({**energy_config(TRANSFORMER), **change}, spec, example_stats(spec))
