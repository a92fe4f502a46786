"""Conformance tests for policy authors.

Subclass `PolicyTests`, give it a configuration, and run it under pytest::

    class TestMyPolicy(PolicyTests):
        def policy_config(self) -> dict:
            return {"type": "my_policy", "width": 32}
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature, is_image
from robot_policies.policies import build_policy
from robot_policies.policy import Policy
from robot_policies.spec import PolicySpec, SpecError


def example_spec(*, images: bool = False) -> PolicySpec:
    """A small spec: 3 + 4 low-dimensional components, 2 actions, T_o 2, T_p 8, T_a 4; one 24 px camera if asked."""
    observation = {
        STATE: Feature(dtype="float32", shape=(3,)),
        ENVIRONMENT_STATE: Feature(dtype="float32", shape=(4,)),
    }
    if images:
        observation[IMAGE_PREFIX + "top"] = Feature(dtype="uint8", shape=(24, 24, 3))
    return PolicySpec(
        observation=observation,
        action=Feature(dtype="float32", shape=(2,)),
        n_obs_steps=2,
        horizon=8,
        n_action_steps=4,
        fps=10.0,
    )


def example_stats(spec: PolicySpec) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of `example_batch`: components uniform in [-10, 30]."""
    dims = {name: f.shape[0] for name, f in spec.observation.items() if not is_image(name)}
    dims[ACTION] = spec.action_dim
    return {
        name: {
            "min": np.full(d, -10.0),
            "max": np.full(d, 30.0),
            "mean": np.full(d, 10.0),
            "std": np.full(d, 40 / 12**0.5),
        }
        for name, d in dims.items()
    }


def example_batch(spec: PolicySpec, batch_size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """A random batch in physical units; see `robot_policies.policy` for shapes."""
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Tensor] = {}
    for name, feature in spec.observation.items():
        shape = feature.shape
        if is_image(name):
            shape = (batch_size, spec.n_obs_steps, shape[2], shape[0], shape[1])
            batch[name] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        else:
            batch[name] = torch.rand((batch_size, spec.n_obs_steps, *shape), generator=generator) * 40 - 10
    batch[ACTION] = torch.rand((batch_size, spec.horizon, spec.action_dim), generator=generator) * 40 - 10
    batch["action_is_pad"] = torch.zeros((batch_size, spec.horizon), dtype=torch.bool)
    batch["action_is_pad"][:, -2:] = True
    return batch


def observation_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a batch that a policy sees at inference."""
    return {name: value for name, value in batch.items() if name.startswith("observation.")}


def seeds(n: int) -> list[torch.Generator]:
    """One generator per row."""
    return [torch.Generator().manual_seed(100 + i) for i in range(n)]


class PolicyTests:
    """What every policy must do; see the module docstring."""

    images = False

    def policy_config(self) -> dict[str, Any]:
        """The ``policy`` section of a training configuration."""
        raise NotImplementedError("subclasses return the configuration of a small policy")

    def make(self, seed: int = 0) -> Policy:
        """Build the policy with random weights that do not produce zeros."""
        torch.manual_seed(seed)
        spec = example_spec(images=self.images)
        policy = build_policy(self.policy_config(), spec, example_stats(spec))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        return policy

    def test_chunk_has_the_spec_shape(self) -> None:
        """A chunk is (B, T_p, A), finite, without gradients, and counts its network calls."""
        policy = self.make().eval()
        chunk = policy.predict_chunk(observation_of(example_batch(policy.spec)))
        assert chunk.actions.shape == (6, policy.spec.horizon, policy.spec.action_dim)
        assert chunk.actions.isfinite().all()
        assert not chunk.actions.requires_grad
        assert chunk.n_network_calls >= 1

    def test_prediction_is_deterministic_given_generators(self) -> None:
        """Same generators, same chunk; other generators may differ."""
        policy = self.make().eval()
        observation = observation_of(example_batch(policy.spec))
        first = policy.predict_chunk(observation, generator=seeds(6)).actions
        torch.manual_seed(99)
        second = policy.predict_chunk(observation, generator=seeds(6)).actions
        torch.testing.assert_close(first, second, atol=0, rtol=0)

    def test_rows_do_not_influence_each_other(self) -> None:
        """A row's chunk does not depend on what else is in the batch."""
        policy = self.make().eval()
        observation = observation_of(example_batch(policy.spec))
        together = policy.predict_chunk(observation, generator=seeds(6)).actions
        alone = policy.predict_chunk(
            {k: v[3:4] for k, v in observation.items()}, generator=seeds(6)[3:4]
        ).actions
        torch.testing.assert_close(together[3:4], alone, atol=1e-3, rtol=1e-4)

    def test_chunk_depends_on_every_observation(self) -> None:
        """Changing any feature at any step of the window changes the chunk."""
        policy = self.make().eval()
        observation = observation_of(example_batch(policy.spec))
        base = policy.predict_chunk(observation, generator=seeds(6)).actions
        for name, value in observation.items():
            for step in range(policy.spec.n_obs_steps):
                changed = value.clone()
                changed[:, step] = changed[:, step].flip(0)
                other = policy.predict_chunk({**observation, name: changed}, generator=seeds(6)).actions
                assert (other - base).abs().max() > 0, f"{name} at step {step} has no effect"

    def test_gradients_reach_every_parameter(self) -> None:
        """One loss, and no parameter is left out."""
        policy = self.make().train()
        policy.compute_loss(example_batch(policy.spec, 16)).loss.backward()
        without = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not without, f"no gradient: {without}"

    def test_loss_decreases_on_one_batch(self) -> None:
        """Sixty steps on one batch lower the loss by a fifth at least."""
        policy = self.make().train()
        batch = example_batch(policy.spec, 16)
        optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
        losses = []
        for _ in range(60):
            loss = policy.compute_loss(batch).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])

    def test_weights_round_trip_with_the_normaliser(self) -> None:
        """A policy built without statistics and given another's weights predicts the same."""
        policy = self.make().eval()
        other = build_policy(self.policy_config(), policy.spec, None).eval()
        other.load_state_dict(policy.state_dict())
        observation = observation_of(example_batch(policy.spec))
        torch.testing.assert_close(
            policy.predict_chunk(observation, generator=seeds(6)).actions,
            other.predict_chunk(observation, generator=seeds(6)).actions,
            atol=0,
            rtol=0,
        )

    def test_bf16_autocast_runs(self) -> None:
        """The loss under bf16 autocast is finite and close to full precision."""
        policy = self.make().train()
        batch = example_batch(policy.spec, 16)
        torch.manual_seed(5)
        full = float(policy.compute_loss(batch).loss.detach())
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = float(policy.compute_loss(batch).loss.detach())
        assert abs(mixed - full) < 0.1 * abs(full) + 0.02

    def test_parameter_groups_hold_every_parameter_once(self) -> None:
        """The optimiser sees each parameter in exactly one group."""
        policy = self.make()
        grouped = [id(p) for group in policy.parameter_groups(0.1) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in policy.parameters())

    def test_wrong_observations_are_explained(self) -> None:
        """A missing or misshapen feature ends in an error that names it."""
        policy = self.make().eval()
        observation = observation_of(example_batch(policy.spec))
        for broken, message in (
            ({k: v for k, v in observation.items() if k != STATE}, f"'{STATE}' is missing"),
            ({**observation, STATE: observation[STATE][:, :1]}, f"'{STATE}' has shape"),
        ):
            with pytest.raises(SpecError, match=message):
                policy.predict_chunk(broken)
