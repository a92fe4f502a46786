"""Goals in evaluation: what the task says of its goal reaches the policy, or the evaluation does not start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robot_datasets.features import Feature
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.inference import try_prediction
from robot_policies.evaluation.observation_history import goal_of
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy
from robot_policies.spec import PolicySpec, SpecError

STATE = "observation.state"


class Seeking(Policy):
    """Moves from the observed state straight to the goal it is given."""

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__(spec)
        self.told: list[str] = []

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        raise NotImplementedError

    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        size = self.check_observation(observation)
        self.check_goal(goal or {}, size)
        assert goal is not None
        self.told += goal["task"]
        velocity = 0.8 * (goal[STATE][:, -1] - observation[STATE][:, -1])
        return ActionChunk(actions=velocity[:, None].expand(-1, self.spec.horizon, -1), n_network_calls=1)


@pytest.fixture
def seeking(spec: PolicySpec) -> Seeking:
    return Seeking(replace(spec, goal={STATE: spec.observation[STATE]}, n_goal_steps=2, instructed=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_tasks_goal_and_instruction_reach_the_policy(seeking: Seeking, point_mass: Any, workers: int):
    """A policy that only knows the goal it is told brings the point there."""
    results = evaluate_policy(seeking, point_mass(max_steps=40), range(1000, 1004), workers=workers)
    assert all(result.success for result in results)
    assert set(seeking.told) == {"bring the point to the origin"}


def test_a_task_that_does_not_state_the_goal_is_refused_before_it_starts(spec: PolicySpec, point_mass: Any):
    """The error names the feature, and what the task states its goal in."""
    other = Feature(dtype="float32", shape=(3,))
    policy = Seeking(replace(spec, goal={"observation.environment_state": other}))
    with pytest.raises(
        SpecError, match=r"'observation\.environment_state'.*states its goal in observation\.state"
    ):
        evaluate_policy(policy, point_mass(), [1000], workers=0)


def test_a_trial_prediction_has_a_goal(seeking: Seeking):
    """The check before an evaluation gives a goal-conditioned policy a blank goal."""
    try_prediction(seeking, sampler=None, device=torch.device("cpu"))
    assert seeking.told == ["anything"]


def test_a_goal_is_repeated_for_every_frame(spec: PolicySpec):
    """One goal pose becomes G frames, images channels first; a policy without goals is told nothing."""
    image = Feature(dtype="uint8", shape=(2, 3, 3))
    wanted = replace(spec, goal={"observation.images.top": image}, n_goal_steps=2)
    told = goal_of(wanted, {"observation.images.top": np.zeros((2, 3, 3), np.uint8)}, "push")
    assert told["observation.images.top"].shape == (2, 3, 2, 3)
    assert goal_of(spec, {STATE: np.zeros(2)}, "push") == {}


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({STATE: torch.zeros(1, 2, 2)}, "expected one instruction per row"),
        ({STATE: torch.zeros(1, 2, 2), "task": "push"}, "expected one instruction per row"),
        ({"task": ["push"]}, r"goal 'observation\.state' is missing"),
        ({STATE: torch.zeros(1, 1, 2), "task": ["push"]}, r"has shape \(1, 1, 2\), expected \(B, 2, 2\)"),
        ({STATE: torch.zeros(2, 2, 2), "task": ["push"]}, r"for \[1, 2\] rows, the observation for 1"),
        ({STATE: torch.zeros(1, 2, 2), "task": ["push"], "other": 1}, "'other' is not what this policy"),
    ],
)
def test_a_goal_that_does_not_fit_is_explained(seeking: Seeking, goal: dict[str, Any], message: str):
    """Missing, misshapen and unknown goals end in one line that names them."""
    with pytest.raises(SpecError, match=message):
        seeking.check_goal(goal, 1)


def test_a_spec_with_goals_round_trips(seeking: Seeking, spec: PolicySpec):
    """Goals survive JSON, and specs of policies without goals are written as they always were."""
    assert PolicySpec.from_dict(seeking.spec.to_dict()) == seeking.spec
    assert not {"goal", "n_goal_steps", "instructed"} & set(spec.to_dict())
