"""BESO: conformance per step and in chunks, published sizes, what its tokens see, and guidance by goals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robot_datasets.features import Feature
from robot_policies.configuration import ConfigError
from robot_policies.policies import build_policy
from robot_policies.policies.beso import BesoPolicy, ScoreContext, ScoreTransformer, score_networks
from robot_policies.policy import Policy
from robot_policies.spec import PolicySpec
from robot_policies.testing import (
    GoalPolicyTests,
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    predict,
    seeds,
)

SMALL = {"type": "score_transformer", "width": 32, "n_layers": 2, "n_heads": 2, "attention_dropout": 0.0}
KITCHEN = {"type": "score_transformer"}
BLOCK_PUSH = {
    "type": "score_transformer",
    "width": 240,
    "n_layers": 4,
    "n_heads": 12,
    "attention_dropout": 0.05,
    "residual_dropout": 0.05,
}


def config(**rest: Any) -> dict[str, Any]:
    return {"type": "beso", "network": SMALL, **rest}


class TestChunked(PolicyTests):
    """Without a goal, a chunk at a time."""

    def policy_config(self) -> dict[str, Any]:
        """Defaults but for the size."""
        return config()


class TestChunkedGoals(GoalPolicyTests):
    """Two goal frames of everything observed, and words."""

    def policy_config(self) -> dict[str, Any]:
        """Euler's ancestral rule, guided."""
        return config(sampler={"type": "euler_ancestral", "steps": 3, "goal_scale": 1.5})


class TestAlignedGoals(GoalPolicyTests):
    """A goal in one token, from frames or words."""

    independent_rows = False

    def policy_config(self) -> dict[str, Any]:
        """Aligned goals, second-order solver."""
        return config(
            goal_encoder={"type": "aligned", "hidden": 32}, sampler={"type": "dpmpp_2m", "steps": 3}
        )


class TestImageGoals(GoalPolicyTests):
    """What the camera is to show."""

    images = True

    def policy_config(self) -> dict[str, Any]:
        """A small camera encoder without random crops."""
        encoder = {
            "type": "resnet",
            "stage_channels": [8],
            "blocks_per_stage": 1,
            "n_keypoints": 4,
            "out_dim": 8,
        }
        return config(image_encoder={**encoder, "crop": 1.0})


class TestMlp(GoalPolicyTests):
    """The network of the preset for CPUs."""

    def policy_config(self) -> dict[str, Any]:
        """Goal and observations, flattened."""
        return {**config(), "network": {"type": "mlp", "width": 32, "n_blocks": 1}}


def make(network: dict[str, Any] = SMALL, *, goals: bool = True, horizon: int = 8, **rest: Any) -> BesoPolicy:
    torch.manual_seed(0)
    spec = replace(example_spec(goals=goals), horizon=horizon, n_action_steps=1)
    policy = build_policy(config(network=network, **rest), spec, example_stats(spec)).eval()
    assert isinstance(policy, BesoPolicy)
    return policy


def test_per_step_is_a_window_as_long_as_the_history() -> None:
    """T_p = T_o: one action per observation, the last of which is carried out."""
    policy = make(horizon=2)
    batch = example_batch(policy.spec)
    chunk = predict(policy, batch, generator=seeds(6))
    assert chunk.actions.shape == (6, 2, 2)
    assert chunk.n_network_calls == 3
    assert policy.train().compute_loss(batch).loss.isfinite()


@pytest.mark.parametrize(
    ("network", "obs_dim", "action_dim", "window", "n_goal", "count"),
    [(KITCHEN, 30, 9, 4, 2, 9.4), (BLOCK_PUSH, 10, 2, 5, 1, 2.8)],
)
def test_presets_have_the_published_size(
    network: dict, obs_dim: int, action_dim: int, window: int, n_goal: int, count: float
) -> None:
    """Parameters [millions] for Franka Kitchen and Block Push, their goal embedding included."""
    state = Feature(dtype="float32", shape=(obs_dim,))
    spec = PolicySpec(
        observation={"observation.state": state},
        action=Feature(dtype="float32", shape=(action_dim,)),
        n_obs_steps=window,
        horizon=window,
        n_action_steps=1,
        fps=10,
        goal={"observation.state": state},
        n_goal_steps=n_goal,
    )
    with torch.device("meta"):
        policy = build_policy(config(network=network), spec, None)
    assert round(policy.n_parameters() / 1e6, 1) == count


def jacobian_mask(network: ScoreTransformer, context: ScoreContext) -> tuple[Tensor, Tensor]:
    """Which output actions (rows) depend on which input actions, and on which given tokens (columns)."""
    width = network.position.shape[1]
    noisy = torch.randn(1, context.horizon, context.action_dim, requires_grad=True)
    given = torch.randn(1, context.n_goal_tokens + context.n_obs_steps, width, requires_grad=True)
    output = network(noisy, torch.tensor([-5.0]), given)
    actions, tokens = [], []
    for t in range(context.horizon):
        a, g = torch.autograd.grad(output[0, t].sum(), (noisy, given), retain_graph=True)
        actions.append(a[0].abs().sum(-1) > 0)
        tokens.append(g[0].abs().sum(-1) > 0)
    return torch.stack(actions), torch.stack(tokens)


def test_actions_see_goals_the_past_and_nothing_later() -> None:
    """Output t depends on all goals, on observations up to t, and on actions up to t."""
    context = ScoreContext(action_dim=2, horizon=6, obs_dim=7, n_obs_steps=3, n_goal_tokens=2)
    torch.manual_seed(0)
    network = score_networks.build(SMALL, where="network", context=context).eval()
    assert isinstance(network, ScoreTransformer)
    actions, tokens = jacobian_mask(network, context)
    steps = torch.arange(6)
    assert actions.equal(steps[:, None] >= steps[None])
    assert tokens[:, :2].all()
    assert tokens[:, 2:].equal(steps[:, None] >= torch.arange(3)[None])


def test_the_network_is_told_a_quarter_of_the_logarithm() -> None:
    """The noise token is an affine map of ln(sigma) / 4."""
    policy = make(goals=False)
    seen: list[Tensor] = []
    noise_in: Any = policy.network.noise_in
    noise_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    predict(policy, example_batch(policy.spec, 1), generator=seeds(1))
    expected = torch.tensor([1.0, 0.005**0.5, 0.005]).log() / 4
    torch.testing.assert_close(torch.cat(seen).flatten(), expected, atol=1e-5, rtol=1e-4)


def test_without_a_goal_the_policy_acts_as_with_scale_zero() -> None:
    """Saying nothing is hiding the goal; scale 0 hides it, too, and the goal then has no effect."""
    policy = make()
    batch = example_batch(policy.spec)
    silent = policy.predict_chunk(observation_of(batch), generator=seeds(6))
    hidden = predict(policy, batch, generator=seeds(6), sampler={"type": "ddim", "steps": 3, "goal_scale": 0})
    torch.testing.assert_close(silent.actions, hidden.actions, atol=1e-3, rtol=1e-4)
    assert (predict(policy, batch, generator=seeds(6)).actions - silent.actions).abs().max() > 1e-3


def test_guidance_moves_along_the_difference_that_the_goal_makes() -> None:
    """In one step the chunk is the free one plus `goal_scale` times the difference; two passes are counted."""
    policy = make()
    batch = example_batch(policy.spec)

    def chunk(scale: float) -> Any:
        sampler = {"type": "ddim", "steps": 1, "clip": None, "goal_scale": scale}
        return predict(policy, batch, generator=seeds(6), sampler=sampler)

    free, bound, guided = chunk(0), chunk(1), chunk(2.5)
    expected = free.actions + 2.5 * (bound.actions - free.actions)
    torch.testing.assert_close(guided.actions, expected, atol=1e-3, rtol=1e-4)
    assert [c.n_network_calls for c in (free, bound, guided)] == [1, 1, 2]


@pytest.mark.parametrize(("share", "expected"), [(0.3, 0.3), (0.0, 0.0)])
def test_whole_goals_are_hidden_per_row(share: float, expected: float) -> None:
    """In training a row has all of its goal or nothing of it; in evaluation mode it has it all."""
    policy = make(drop_goal=share).train()
    seen: list[Tensor] = []
    policy.network.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    policy.compute_loss(example_batch(policy.spec, 600))
    goal = seen[0][:, : policy.network.context.n_goal_tokens]
    hidden = (goal == 0).all(dim=2)
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all()
    assert float(hidden.all(dim=1).float().mean()) == pytest.approx(expected, abs=0.06)
    policy.eval().compute_loss(example_batch(policy.spec, 600))
    assert not (seen[1][:, : policy.network.context.n_goal_tokens] == 0).all(dim=2).any()


def test_the_goal_decides_between_two_ways() -> None:
    """Trained on starts from which both ways are shown, the policy takes the one its goal asks for."""
    policy: Policy = make(drop_goal=0.1)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=2e-3)

    def ways(n: int, seed: int) -> tuple[dict[str, Any], Tensor]:
        batch = example_batch(policy.spec, n, seed)
        way = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
        for name in policy.spec.goal:
            batch["goal." + name] = 10 + 10 * way[:, None, None] + 0 * batch["goal." + name]
        batch["action"] = (10 + 15 * way)[:, None, None].expand(-1, 8, 2).contiguous()
        return {**batch, "task": [""] * n}, way

    policy.train()
    for step in range(120):
        loss = policy.compute_loss(ways(32, step)[0]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    policy.eval()
    batch, way = ways(32, 10_000)
    actions = predict(policy, batch, generator=seeds(32)).actions
    assert (actions.mean(dim=(1, 2)) - (10 + 15 * way)).abs().mean() < 3
    free = policy.predict_chunk(observation_of(batch), generator=seeds(32)).actions.mean(dim=(1, 2))
    assert (free > 15).any()
    assert (free < 5).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {**SMALL, "n_heads": 5}}, "not divisible by n_heads=5"),
        ({"network": {"type": "transformer"}}, "unknown score network 'transformer'"),
        ({"process": {"type": "flow"}}, "needs 'edm'"),
        ({"drop_goal": 1.0}, r"drop_goal must be in \[0, 1\)"),
        ({"drop_goal": 0.0, "sampler": {"type": "ddim", "goal_scale": 2.0}}, "never trained without a goal"),
    ],
)
def test_bad_configuration_is_explained(change: dict, message: str) -> None:
    """Sizes, parts and options that do not fit are refused in one line."""
    spec = example_spec(goals=True)
    with pytest.raises(ConfigError, match=message):
        build_policy(config(**change), spec, example_stats(spec))


def test_guidance_needs_a_goal() -> None:
    """A policy whose spec has no goal cannot weigh it."""
    spec = example_spec()
    with pytest.raises(ConfigError, match="never trained without a goal"):
        build_policy(config(sampler={"type": "ddim", "goal_scale": 2.0}), spec, example_stats(spec))
