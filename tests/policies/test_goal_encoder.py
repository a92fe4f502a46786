"""Goals and instructions in policies: tokens of each, or one space for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robot_datasets.goals import GOAL_PREFIX, TASK
from robot_policies.configuration import ConfigError
from robot_policies.networks.goal_encoder import alignment_loss
from robot_policies.policies import build_policy
from robot_policies.policies.base import NetworkPolicy
from robot_policies.policy import Policy, goal_of_batch
from robot_policies.spec import SpecError
from robot_policies.testing import (
    GoalPolicyTests,
    example_batch,
    example_spec,
    example_stats,
    observation_of,
    predict,
    seeds,
)

MLP = {"type": "mlp", "width": 48, "n_blocks": 2}
ALIGNED = {"type": "aligned", "width": 16, "hidden": 32}
IMAGE_ENCODER = {
    "type": "resnet",
    "stage_channels": [8],
    "blocks_per_stage": 1,
    "n_keypoints": 4,
    "out_dim": 8,
}
INSTRUCTIONS = ("move left", "move right", "stand still", "")


def config(**rest: Any) -> dict[str, Any]:
    return {"type": "regression", "network": MLP, **rest}


class TestTokens(GoalPolicyTests):
    """A regression policy that is given every goal frame and the instruction."""

    def policy_config(self) -> dict[str, Any]:
        """Narrow tokens."""
        return config(goal_encoder={"type": "tokens", "width": 16})


class TestTokensWithImages(GoalPolicyTests):
    """Goal images have an encoder of their own."""

    images = True

    def policy_config(self) -> dict[str, Any]:
        """A small camera encoder without random crops."""
        return config(image_encoder={**IMAGE_ENCODER, "crop": 1.0})


class TestDiffusionTokens(GoalPolicyTests):
    """Diffusion Policy with a goal."""

    def policy_config(self) -> dict[str, Any]:
        """EDM, four steps."""
        process = {"type": "edm"}
        return {**config(), "type": "diffusion", "process": process, "sampler": {"type": "ddim", "steps": 4}}


class TestEnergyTokens(GoalPolicyTests):
    """A policy that descends an energy, with a goal."""

    def policy_config(self) -> dict[str, Any]:
        """Two training steps, the smallest network."""
        network = {"type": "energy_mlp", "width": 32, "n_blocks": 2}
        return {"type": "energy", "network": network, "min_train_steps": 2, "extra_train_steps": 0}


class TestAligned(GoalPolicyTests):
    """One token, from the instruction where there is one, else from the goal."""

    independent_rows = False

    def policy_config(self) -> dict[str, Any]:
        """Half of the labelled rows learn from words."""
        return config(goal_encoder=ALIGNED)

    def test_a_row_with_an_instruction_ignores_the_goal_frames(self) -> None:
        """At inference words come first; rows without words listen to the goal."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        name = GOAL_PREFIX + "observation.state"
        changed = predict(policy, {**batch, name: batch[name].flip(0)}).actions
        moved = (changed - predict(policy, batch).actions).abs().amax(dim=(1, 2))
        assert [bool(value > 0) for value in moved] == [not text for text in batch[TASK]]

    def test_either_is_enough(self) -> None:
        """Goal features alone, or words alone; but something must be given."""
        policy = self.make().eval()
        batch = example_batch(policy.spec)
        goal = goal_of_batch(batch, policy.spec)
        assert goal is not None
        features = {name: value for name, value in goal.items() if name != TASK}
        observation = observation_of(batch)
        with_words = predict(policy, {**batch, TASK: [""] * 6}).actions
        torch.testing.assert_close(policy.predict_chunk(observation, goal=features).actions, with_words)
        assert policy.predict_chunk(observation, goal={TASK: ["push"] * 6}).actions.isfinite().all()
        with pytest.raises(SpecError, match=r"goal 'observation\.state' is missing"):
            policy.predict_chunk(observation)


def make(**rest: Any) -> Policy:
    spec = example_spec(goals=True)
    torch.manual_seed(0)
    return build_policy(config(**rest), spec, example_stats(spec))


def test_alignment_loss_is_symmetric_cross_entropy() -> None:
    """With distinct instructions: the mean over rows of both directions' cross entropies."""
    torch.manual_seed(0)
    shown, spoken = (torch.nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    scale = torch.tensor(4.0)
    loss = alignment_loss(shown, spoken, torch.eye(5), scale.log())
    similarity, rows = scale * shown @ spoken.T, torch.arange(5)
    expected = torch.nn.functional.cross_entropy(similarity, rows)
    expected = (expected + torch.nn.functional.cross_entropy(similarity.T, rows)) / 2
    torch.testing.assert_close(loss, expected)


def test_rows_with_the_same_instruction_are_no_negatives() -> None:
    """Each row competes with the rows of other instructions only."""
    torch.manual_seed(0)
    shown, spoken = (torch.nn.functional.normalize(torch.randn(3, 8), dim=-1) for _ in range(2))
    text = torch.eye(3)
    text[1] = text[0]
    loss = alignment_loss(shown, spoken, text, torch.tensor(0.0))
    rivals = {0: [0, 2], 1: [1, 2], 2: [0, 1, 2]}
    expected = torch.zeros(())
    for similarity in (shown @ spoken.T, spoken @ shown.T):
        for row, columns in rivals.items():
            expected += similarity[row, columns].logsumexp(0) - similarity[row, row]
    torch.testing.assert_close(loss, expected / 6)


def test_rows_without_an_instruction_take_no_part() -> None:
    """The loss is that of the labelled rows alone, and zero if there are none."""
    torch.manual_seed(0)
    shown, spoken = (torch.nn.functional.normalize(torch.randn(4, 8), dim=-1) for _ in range(2))
    text = torch.eye(4)
    text[2:] = 0
    partly = alignment_loss(shown, spoken, text, torch.tensor(1.0))
    torch.testing.assert_close(partly, alignment_loss(shown[:2], spoken[:2], text[:2], torch.tensor(1.0)))
    nothing = alignment_loss(shown, spoken, torch.zeros(4, 4), torch.tensor(1.0))
    torch.testing.assert_close(nothing, torch.tensor(0.0))


def moves(policy: Policy, n: int, seed: int) -> tuple[dict[str, Any], torch.Tensor]:
    """A batch in which the goal lies left or right of the start, or on it, and the actions go there."""
    batch = example_batch(policy.spec, n, seed)
    direction = torch.arange(n) % 3 - 1
    for name in policy.spec.goal:
        batch[GOAL_PREFIX + name] = batch[name][:, -1:].repeat(1, 2, 1) + 6.0 * direction[:, None, None]
    batch["action"] = (10.0 + 15.0 * direction)[:, None, None].expand(-1, 8, 2).contiguous()
    return batch, direction


def test_words_learn_to_name_the_change_from_few_labels() -> None:
    """A third of the rows is labelled; the policy then follows instructions alone, and paraphrases of them."""
    policy = make(goal_encoder={**ALIGNED, "width": 32, "hidden": 64})
    optimiser = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    names = {-1: "move to the left", 0: "stay where you are", 1: "move to the right"}
    policy.train()
    for step in range(150):
        batch, direction = moves(policy, 48, step)
        labelled = torch.rand(48, generator=torch.Generator().manual_seed(step)) < 1 / 3
        batch[TASK] = [names[int(d)] if has else "" for d, has in zip(direction, labelled, strict=True)]
        loss = policy.compute_loss(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    policy.eval()
    batch, direction = moves(policy, 48, 10_000)
    said = {-1: "moving to the left", 0: "staying where you are", 1: "moves to the right"}
    words = {TASK: [said[int(d)] for d in direction]}
    actions = policy.predict_chunk(observation_of(batch), goal=words, generator=seeds(48)).actions
    assert (actions.mean(dim=(1, 2)) - (10.0 + 15.0 * direction)).abs().mean() < 4.0


def test_the_alignment_is_logged_and_weighs_in_the_loss() -> None:
    """The loss is the policy's plus the alignment's."""
    policy = make(goal_encoder=ALIGNED).train()
    output = policy.compute_loss(example_batch(policy.spec, 16))
    assert set(output.terms) == {"policy", "alignment"}
    torch.testing.assert_close(output.loss.detach(), output.terms["policy"] + output.terms["alignment"])


def test_alignment_needs_both_kinds_of_goal() -> None:
    """Without instructions there is nothing to align; the error says what to set."""
    spec = example_spec()
    with_goals = {"goal": spec.observation, "n_goal_steps": 1}
    with pytest.raises(ConfigError, match=r"set dataset\.goal and dataset\.instruction"):
        build_policy(config(goal_encoder=ALIGNED), replace(spec, **with_goals), example_stats(spec))


def test_goals_that_are_not_observed_have_their_own_normaliser() -> None:
    """A goal feature is normalised with its own statistics, also if the policy does not observe it."""
    spec = example_spec()
    stats = example_stats(spec)
    goal = {"observation.environment_state": spec.observation["observation.environment_state"]}
    observed = {"observation.state": spec.observation["observation.state"]}
    policy = build_policy(config(), replace(spec, observation=observed, goal=goal), stats)
    assert isinstance(policy, NetworkPolicy)
    feature = policy.normalizer["observation.environment_state"]
    torch.testing.assert_close(feature.normalize(torch.full((4,), 30.0)), torch.ones(4))
