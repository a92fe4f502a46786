"""Conformance tests for policy authors.

Subclass `PolicyTests`, give it a configuration, and run it under pytest::

    class TestMyPolicy(PolicyTests):
        def policy_config(self) -> dict:
            return {"type": "my_policy", "width": 32}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature, is_image
from robot_datasets.goals import GOAL_PREFIX, TASK
from robot_datasets.windows import FUTURE_PREFIX
from robot_policies.checkpoint import load_policy, save_policy
from robot_policies.policies import build_policy
from robot_policies.policy import ActionChunk, Policy, goal_of_batch
from robot_policies.spec import PolicySpec, SpecError
from robot_policies.training.ema import WeightAverage

INSTRUCTIONS = ("push the block", "open the drawer", "")


def example_spec(*, images: bool = False, goals: bool = False, future: bool = False) -> PolicySpec:
    """A small spec: 3 + 4 low-dimensional components, 2 actions, T_o 2, T_p 8, T_a 4.

    Args:
        images: Add a 24 px camera.
        goals: Two goal frames of everything that is observed, and an instruction.
        future: The camera's frames 2 and 5 steps after now are to be predicted.
    """
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
        goal=observation if goals else {},
        n_goal_steps=2 if goals else 1,
        instructed=goals,
        future={IMAGE_PREFIX + "top": (2, 5)} if future else {},
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


def example_batch(spec: PolicySpec, batch_size: int = 6, seed: int = 0) -> dict[str, Any]:
    """A random batch in physical units; see `robot_policies.policy` for shapes."""
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Any] = {}
    for prefix, features, steps in (
        ("", spec.observation, spec.n_obs_steps),
        (GOAL_PREFIX, spec.goal, spec.n_goal_steps),
    ):
        for name, feature in features.items():
            batch[prefix + name] = _example(name, feature, (batch_size, steps), generator)
    if spec.instructed:
        batch[TASK] = [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(batch_size)]
    for name, offsets in spec.future.items():
        size = (batch_size, len(offsets))
        batch[FUTURE_PREFIX + name] = _example(name, spec.observation[name], size, generator)
        batch[f"{FUTURE_PREFIX}{name}_is_pad"] = torch.zeros(size, dtype=torch.bool)
        batch[f"{FUTURE_PREFIX}{name}_is_pad"][:2, -1] = True
    batch[ACTION] = torch.rand((batch_size, spec.horizon, spec.action_dim), generator=generator) * 40 - 10
    batch["action_is_pad"] = torch.zeros((batch_size, spec.horizon), dtype=torch.bool)
    batch["action_is_pad"][:, -2:] = True
    return batch


def _example(name: str, feature: Feature, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    if not is_image(name):
        return torch.rand((*size, *feature.shape), generator=generator) * 40 - 10
    height, width, channels = feature.shape
    return torch.randint(0, 256, (*size, channels, height, width), generator=generator, dtype=torch.uint8)


def observation_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    """The part of a batch that a policy sees at inference."""
    return {name: value for name, value in batch.items() if name.startswith("observation.")}


def rows_of(batch: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Some rows of a batch."""
    return {name: value[rows] for name, value in batch.items()}


def predict(policy: Policy, batch: dict[str, Any], **options: Any) -> ActionChunk:
    """Predict a chunk for each row of a batch, with its goal if the policy has one."""
    return policy.predict_chunk(observation_of(batch), goal=goal_of_batch(batch, policy.spec), **options)


def seeds(n: int) -> list[torch.Generator]:
    """One generator per row."""
    return [torch.Generator().manual_seed(100 + i) for i in range(n)]


class PolicyTests:
    """What every policy must do; see the module docstring.

    Attributes:
        images: Give the policy a camera.
        goals: Give the policy goals and instructions; `GoalPolicyTests` checks more of them.
        future: Let the policy predict the camera's frames; needs `images`.
        independent_rows: Whether the loss of a batch is a mean of what its rows would have alone, which no
            contrastive loss is.
    """

    images = False
    goals = False
    future = False
    independent_rows = True

    def policy_config(self) -> dict[str, Any]:
        """The ``policy`` section of a training configuration."""
        raise NotImplementedError("subclasses return the configuration of a small policy")

    def make(self, seed: int = 0) -> Policy:
        """Build the policy with random weights that do not produce zeros."""
        torch.manual_seed(seed)
        spec = example_spec(images=self.images, goals=self.goals, future=self.future)
        policy = build_policy(self.policy_config(), spec, example_stats(spec))
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        return policy

    def test_chunk_has_the_spec_shape(self) -> None:
        """A chunk is (B, T_p, A), finite, without gradients, and counts its network calls."""
        policy = self.make().eval()
        chunk = predict(policy, example_batch(policy.spec))
        assert chunk.actions.shape == (6, policy.spec.horizon, policy.spec.action_dim)
        assert chunk.actions.isfinite().all()
        assert not chunk.actions.requires_grad
        assert chunk.n_network_calls >= 1

    def test_prediction_is_deterministic_given_generators(self) -> None:
        """Same generators, same chunk, whatever else was drawn in between."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        first = predict(policy, batch, generator=seeds(6)).actions
        torch.manual_seed(99)
        second = predict(policy, batch, generator=seeds(6)).actions
        torch.testing.assert_close(first, second, atol=0, rtol=0)

    def test_a_row_does_not_depend_on_the_size_of_the_batch(self) -> None:
        """Alone and in company, a row has the same chunk."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        together = predict(policy, batch, generator=seeds(6)).actions
        alone = predict(policy, rows_of(batch, slice(3, 4)), generator=seeds(6)[3:4]).actions
        torch.testing.assert_close(together[3:4], alone, atol=1e-3, rtol=1e-4)

    def test_rows_do_not_leak_into_each_other(self) -> None:
        """Other observations and goals in the other rows leave a row as it was."""
        policy = self.make().eval()
        batch, other = example_batch(policy.spec), example_batch(policy.spec, seed=1)
        mixed = {
            name: [*other[name][:3], value[3], *other[name][4:]]
            if isinstance(value, list)
            else torch.cat([other[name][:3], value[3:4], other[name][4:]])
            for name, value in batch.items()
        }
        base = predict(policy, batch, generator=seeds(6)).actions
        changed = predict(policy, mixed, generator=seeds(6)).actions
        torch.testing.assert_close(changed[3], base[3], atol=1e-4, rtol=1e-4)
        assert (changed[:3] - base[:3]).abs().max() > 0

    def test_rows_do_not_leak_into_each_other_in_training(self) -> None:
        """What replacing one row changes in the loss does not depend on the other rows."""
        if not self.independent_rows:
            pytest.skip("this loss compares rows with each other by design")
        policy = self.make().train()
        batch, other = example_batch(policy.spec), example_batch(policy.spec, seed=1)

        def loss(first: dict[str, Any], rest: dict[str, Any]) -> float:
            mixed: dict[str, Any] = {
                name: [*first[name][:1], *rest[name][1:]]
                if isinstance(value, list)
                else torch.cat([first[name][:1], rest[name][1:]])
                for name, value in batch.items()
            }
            torch.manual_seed(5)
            return float(policy.compute_loss(mixed).loss.detach())

        change = loss(batch, batch) - loss(other, batch)
        assert change != 0
        assert loss(batch, other) - loss(other, other) == pytest.approx(change, rel=1e-3, abs=1e-5)

    def test_chunk_depends_on_every_observation(self) -> None:
        """Changing any feature at any step of the window changes the chunk."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        base = predict(policy, batch, generator=seeds(6)).actions
        for name, value in observation_of(batch).items():
            for step in range(policy.spec.n_obs_steps):
                changed = value.clone()
                changed[:, step] = changed[:, step].flip(0)
                other = predict(policy, {**batch, name: changed}, generator=seeds(6)).actions
                assert (other - base).abs().max() > 0, f"{name} at step {step} has no effect"

    def test_gradients_reach_every_parameter(self) -> None:
        """One loss, and no parameter is left out."""
        policy = self.make().train()
        policy.compute_loss(example_batch(policy.spec, 16)).loss.backward()
        without = [
            n
            for n, p in policy.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
        ]
        assert not without, f"no gradient: {without}"

    def test_loss_decreases_on_one_batch(self) -> None:
        """Within sixty steps on one batch, whose actions repeat what is observed, the loss falls by a fifth."""
        policy = self.make().train()
        batch = example_batch(policy.spec, 16)
        observed = batch[STATE][:, -1:, : policy.spec.action_dim]
        batch[ACTION] = observed.repeat(1, policy.spec.horizon, 1)
        optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
        losses: list[float] = []
        while len(losses) < 20 or np.mean(losses[-10:]) >= 0.8 * np.mean(losses[:10]):
            assert len(losses) < 60, f"from {np.mean(losses[:10]):.4g} to {np.mean(losses[-10:]):.4g} only"
            loss = policy.compute_loss(batch).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))

    def test_weights_round_trip_with_the_normaliser(self) -> None:
        """A policy built without statistics and given another's weights predicts the same."""
        policy = self.make().eval()
        other = build_policy(
            self.policy_config(), example_spec(images=self.images, goals=self.goals, future=self.future), None
        )
        other.load_state_dict(policy.state_dict())
        self.assert_same_chunk(policy, other.eval())

    def test_a_checkpoint_on_disk_predicts_the_same(self, tmp_path: Path) -> None:
        """Saved and loaded, with its specification, without the data's statistics."""
        policy = self.make().eval()
        stats = example_stats(policy.spec)
        save_policy(
            tmp_path / "saved", policy, config={"policy": self.policy_config()}, stats=stats, dataset_card={}
        )
        loaded = load_policy(tmp_path / "saved")
        assert loaded.spec == policy.spec
        self.assert_same_chunk(policy, loaded.policy)

    def test_the_average_of_one_update_predicts_the_same(self) -> None:
        """The averaged policy covers every weight and buffer: after its first update it is the policy."""
        start, policy = self.make(seed=1), self.make()
        average = WeightAverage(start, power=0.75, maximum=0.9999)
        start.load_state_dict(policy.state_dict())
        average.update(0)
        self.assert_same_chunk(policy.eval(), average.policy, tolerance=1e-4)  # averaging rounds

    def test_bf16_autocast_runs(self) -> None:
        """Under bf16 autocast the loss is close to full precision, and gradients and chunks are finite."""
        policy = self.make().train()
        batch = example_batch(policy.spec, 16)
        torch.manual_seed(5)
        full = float(policy.compute_loss(batch).loss.detach())
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            loss = policy.compute_loss(batch).loss
            chunk = predict(policy.eval(), batch, generator=seeds(16)).actions
        loss.backward()
        mixed = float(loss.detach())
        assert abs(mixed - full) < 0.1 * abs(full) + 0.02
        assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())
        assert chunk.isfinite().all()

    def test_parameter_groups_hold_every_parameter_once(self) -> None:
        """The optimiser sees each parameter that learns in exactly one group."""
        policy = self.make()
        grouped = [id(p) for group in policy.parameter_groups(0.1) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in policy.parameters() if p.requires_grad)

    def test_wrong_observations_are_explained(self) -> None:
        """A missing or misshapen feature ends in an error that names it."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        for broken, message in (
            ({k: v for k, v in batch.items() if k != STATE}, f"observation '{STATE}' is missing"),
            ({**batch, STATE: batch[STATE][:, :1]}, f"observation '{STATE}' has shape"),
        ):
            with pytest.raises(SpecError, match=message):
                predict(policy, broken)

    def test_a_goal_it_was_not_trained_with_is_explained(self) -> None:
        """An unknown goal feature is named, never ignored."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        with pytest.raises(SpecError, match=r"goal 'observation\.unknown' is not"):
            policy.predict_chunk(
                observation_of(batch), goal={"observation.unknown": batch[STATE][:, :1]}, generator=seeds(6)
            )

    def assert_same_chunk(self, one: Policy, other: Policy, *, tolerance: float = 0.0) -> None:
        """Both predict the same, by default bit for bit."""
        batch = example_batch(one.spec)
        torch.testing.assert_close(
            predict(one, batch, generator=seeds(6)).actions,
            predict(other, batch, generator=seeds(6)).actions,
            atol=tolerance,
            rtol=tolerance,
        )


class GoalPolicyTests(PolicyTests):
    """What a policy must do besides if it takes goals and instructions."""

    goals = True

    def test_chunk_depends_on_every_part_of_the_goal(self) -> None:
        """Changing any frame of any goal feature, or the instruction, changes the chunk."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        changes: dict[str, dict[str, Any]] = {TASK: {**batch, TASK: batch[TASK][::-1]}}
        for name in policy.spec.goal:
            for step in range(policy.spec.n_goal_steps):
                value = batch[GOAL_PREFIX + name].clone()
                value[:, step] = value[:, step].flip(0)
                changes[f"{name} in frame {step}"] = {**batch, GOAL_PREFIX + name: value}
        base = predict(policy, batch, generator=seeds(6)).actions
        for what, changed in changes.items():
            other = predict(policy, changed, generator=seeds(6)).actions
            assert (other - base).abs().max() > 0, f"{what} has no effect"
