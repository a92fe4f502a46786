"""Implicit behavior cloning: conformance, searches on known energies, loss in closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robot_datasets.features import ACTION, Feature
from robot_policies.configuration import ConfigError
from robot_policies.networks import NetworkContext
from robot_policies.networks.energy import EnergyNetwork, energy_networks
from robot_policies.policies import build_policy
from robot_policies.policies.implicit import DerivativeFree, ImplicitPolicy, Langevin, uniform_in_box
from robot_policies.spec import PolicySpec
from robot_policies.testing import (
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    seeds,
)

MLP = {"type": "energy_mlp", "width": 32, "n_blocks": 1}
DFO = {"type": "dfo", "n_samples": 64, "iterations": 2}
CHAIN = {"n_samples": 8, "steps": 5}


def implicit_config(network: dict[str, Any] = MLP, **rest: Any) -> dict[str, Any]:
    return {"type": "implicit", "network": network, "inference": DFO, "n_negatives": 32, **rest}


class TestImplicitDfo(PolicyTests):
    """Uniform negatives, search without derivatives."""

    def policy_config(self) -> dict:
        """An MLP."""
        return implicit_config()


class TestImplicitLangevin(PolicyTests):
    """Refined negatives with the gradient penalty, Langevin search, the transformer's encoder."""

    def policy_config(self) -> dict:
        """A small energy transformer."""
        network = {
            "type": "energy_transformer",
            "width": 16,
            "n_encoder_layers": 1,
            "n_layers": 1,
            "n_heads": 2,
            "attention_dropout": 0.0,
        }
        refine = {"steps": 2}
        return implicit_config(
            network, inference={"type": "langevin", **CHAIN}, refine=refine, n_negatives=6, margin=0.01
        )


class Cone(EnergyNetwork):
    """E = steepness times the distance of the components from a centre, summed."""

    def __init__(self, steepness: float, centre: float = 0.0) -> None:
        super().__init__()
        self.steepness, self.centre = steepness, centre

    def _encode(self, observation: Tensor) -> Tensor:
        return observation

    def _energy(self, actions: Tensor, memory: Tensor) -> Tensor:
        return self.steepness * (actions - self.centre).abs().sum(dim=(1, 2))


def cone_policy(steepness: float, centre: float = 0.0, **options: Any) -> ImplicitPolicy:
    """A policy whose energy is known."""
    spec = example_spec()
    policy = build_policy(implicit_config(**options), spec, example_stats(spec)).eval()
    assert isinstance(policy, ImplicitPolicy)
    policy.network = Cone(steepness, centre)
    return policy


def test_uniform_numbers_fill_the_box() -> None:
    """Ten equal bins of [-1, 1] are equally full."""
    torch.manual_seed(0)
    counts = torch.histc(uniform_in_box(torch.randn(100_000)), bins=10, min=-1, max=1)
    assert counts.sum() == 100_000
    assert (counts / 10_000 - 1).abs().max() < 0.05


@pytest.mark.parametrize("box", [1.0, 1.1])
@pytest.mark.parametrize("search", [DerivativeFree(n_samples=256), Langevin(n_samples=16, steps=60)])
def test_searches_find_the_minimum_of_each_row(search: Langevin | DerivativeFree, box: float) -> None:
    """On a steep bowl per row, the best candidate is near the row's own centre and all are in the box."""
    torch.manual_seed(0)
    centres = torch.tensor([-0.9, 0.0, 0.4])[:, None, None, None]

    def energy(x: Tensor) -> Tensor:
        return 40 * (x - centres).square().sum(dim=(2, 3))

    start = box * uniform_in_box(torch.randn(3, search.n_samples, 1, 2))
    found, calls = search(energy, start, lambda: torch.randn_like(start), torch.full((2,), box))
    assert calls in (5, 60)
    assert found.abs().max() <= box
    best = found[torch.arange(3), energy(found).argmin(dim=1)]
    assert (best - centres[:, 0]).abs().max() < 0.1


def test_langevin_moves_by_its_limit_at_most() -> None:
    """However steep the energy, one step moves a component by `limit`."""
    start = torch.full((1, 4, 2, 2), 0.5)
    steep = Langevin(steps=1)
    found, _ = steep(lambda x: 1e6 * x.sum(dim=(2, 3)), start, lambda: torch.zeros_like(start), torch.ones(2))
    torch.testing.assert_close(found, start - 0.1)


@pytest.mark.parametrize("sampler", [DFO, {"type": "langevin", "n_samples": 8, "steps": 5}])
def test_a_component_that_never_moves_is_not_searched(sampler: dict[str, Any]) -> None:
    """Its negatives would give the data away, and a searched one could come out up to a unit off on the robot."""
    spec, stats = example_spec(), example_stats(example_spec())
    still = {key: value.copy() for key, value in stats[ACTION].items()}
    for key in ("min", "max", "mean"):
        still[key][0] = 0.7
    policy = build_policy(implicit_config(), spec=spec, stats={**stats, ACTION: still})
    assert isinstance(policy, ImplicitPolicy)
    assert policy.box[0] == 0
    torch.testing.assert_close(policy.box[1:], torch.full_like(policy.box[1:], 1.1))
    loaded = build_policy(implicit_config(), spec=spec, stats=None)
    loaded.load_state_dict(policy.state_dict())
    batch = example_batch(spec)
    actions = loaded.predict_chunk(
        observation_of(batch), generator=seeds(len(batch[ACTION])), sampler=sampler
    ).actions
    torch.testing.assert_close(actions[..., 0], torch.full_like(actions[..., 0], 0.7))


def test_loss_of_a_flat_energy_is_the_number_of_choices() -> None:
    """Where all energies are equal, InfoNCE is ln(1 + N)."""
    output = cone_policy(0.0).compute_loss(example_batch(example_spec()))
    assert float(output.loss) == pytest.approx(math.log(33))


@pytest.mark.parametrize(("steepness", "penalty"), [(0.9, 0.0), (3.0, 4.0)])
def test_gradient_penalty_in_closed_form(steepness: float, penalty: float) -> None:
    """A cone of slope s has penalty max(0, s - margin)^2."""
    output = cone_policy(steepness, refine={"steps": 1}).compute_loss(example_batch(example_spec()))
    assert float(output.terms["gradient_penalty"]) == pytest.approx(penalty, rel=1e-5)


def test_energy_of_the_chunk_is_the_lowest_found() -> None:
    """The energy returned is that of the returned chunk, row by row."""
    policy = cone_policy(1.0, centre=0.2)
    chunk = policy.predict_chunk(observation_of(example_batch(policy.spec)), generator=seeds(6))
    normalised = policy.normalizer[ACTION].normalize(chunk.actions)
    assert chunk.energy is not None
    # Components between the data's bounds and the wider box are clipped after the search.
    assert (chunk.energy - (normalised - 0.2).abs().sum(dim=(1, 2)) >= -1e-4).all()
    assert chunk.n_network_calls == 3


def test_search_can_be_swapped_at_inference() -> None:
    """One checkpoint, both searches, under inference mode too."""
    policy = cone_policy(20.0, centre=0.2)
    observation = observation_of(example_batch(policy.spec))
    with torch.inference_mode():
        chunk = policy.predict_chunk(observation, sampler={"type": "langevin", "n_samples": 4, "steps": 60})
    assert chunk.n_network_calls == 61
    torch.testing.assert_close(chunk.actions, torch.full((6, 8, 2), 14.0), atol=2.0, rtol=0)


def test_two_modes_are_kept_apart() -> None:
    """Trained on actions at -0.6 and 0.6, the policy answers with either and not with their mean."""
    action = Feature(dtype="float32", shape=(1,))
    observation = {"observation.state": Feature(dtype="float32", shape=(1,))}
    spec = PolicySpec(
        observation=observation, action=action, n_obs_steps=1, horizon=1, n_action_steps=1, fps=10
    )
    bounds = {"min": -torch.ones(1).numpy(), "max": torch.ones(1).numpy()}
    torch.manual_seed(0)
    policy = build_policy(implicit_config(), spec, {"observation.state": bounds, ACTION: bounds})
    optimiser = torch.optim.Adam(policy.parameters(), lr=5e-3)
    for _ in range(150):
        sign = torch.randint(2, (64, 1, 1)) * 2.0 - 1
        loss = policy.compute_loss({"observation.state": torch.rand(64, 1, 1), ACTION: 0.6 * sign}).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    actions = policy.eval().predict_chunk({"observation.state": torch.rand(32, 1, 1)}).actions
    assert (actions.abs() - 0.6).abs().max() < 0.2


def test_network_has_the_published_size() -> None:
    """Block pushing, 2 x 10 observations and 2 actions: projection, 16 layers of 128 and the energy."""
    context = NetworkContext(action_dim=2, horizon=1, obs_dim=10, n_obs_steps=2)
    network = energy_networks.build(
        {"type": "energy_mlp", "width": 128, "n_blocks": 8, "layer_norm": False},
        where="network",
        context=context,
    )
    count = sum(p.numel() for p in network.parameters())
    assert count == (22 + 1) * 128 + 16 * (128 + 1) * 128 + 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inference": {"type": "dof"}}, "did you mean 'dfo'"),
        ({"inference": {"type": "dfo", "iterations": 0}}, "iterations >= 1"),
        ({"inference": {"type": "langevin", "limit": 0.0}}, "limit above 0"),
        ({"refine": {"step": 3}}, "did you mean 'steps'"),
        ({"n_negatives": 0}, "n_negatives >= 1"),
        ({"normalization": {"action": "z_score"}}, "set policy.normalization.action to min_max"),
        ({"mask_padding": True}, "set policy.mask_padding to false"),
    ],
)
def test_bad_configuration_is_explained(change: dict, message: str) -> None:
    """Every bad value ends in one line with the rule or the nearest match."""
    spec = example_spec()
    with pytest.raises(ConfigError, match=message):
        build_policy({**implicit_config(), **change}, spec, example_stats(spec))
