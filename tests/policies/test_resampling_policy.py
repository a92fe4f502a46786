"""Backward coherence: of several chunks, the one that continues the running plan is kept."""

from __future__ import annotations

import pytest
import torch

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.policies import build_policy
from robot_policies.policies.resampling import ResampleConfig, ResamplingPolicy
from robot_policies.policy import RunningPlan
from robot_policies.spec import PolicySpec
from robot_policies.testing import example_stats

SPEC = PolicySpec(
    observation={"observation.state": POSITION}, action=VELOCITY,
    n_obs_steps=1, horizon=4, n_action_steps=2, fps=FPS,
)  # fmt: skip
CONFIG = {
    "type": "diffusion",
    "network": {"type": "mlp", "width": 16, "n_blocks": 1, "step_embed_dim": 8},
    "process": {"type": "flow"},
    "sampler": {"type": "euler", "steps": 2},
}


def policy() -> ResamplingPolicy:
    torch.manual_seed(0)
    return ResamplingPolicy(
        build_policy(CONFIG, SPEC, example_stats(SPEC)).eval(), ResampleConfig(candidates=8)
    )


def plan(rows: int, weights: list[float]) -> RunningPlan:
    actions = torch.linspace(-1, 1, rows)[:, None, None].expand(rows, 4, 2).contiguous()
    return RunningPlan(actions=actions, weights=torch.tensor(weights).expand(rows, 4), limit=5.0)


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_the_candidate_that_agrees_best_on_the_weighted_steps_is_kept() -> None:
    """Distances are in normalised actions; steps of weight 0 do not count."""
    resampling, running = policy(), plan(3, [1.0, 0.5, 0.0, 0.0])
    chunk = resampling.continue_chunk(
        {"observation.state": torch.zeros(3, 1, 2)}, running, generator=generators(3)
    )
    assert chunk.samples is not None
    assert chunk.samples.shape == (3, 8, 4, 2)
    assert chunk.n_network_calls == 8 * 2
    normalise = resampling.policy.normalizer["action"].normalize
    apart = (normalise(chunk.samples) - normalise(running.actions)[:, None]).square().sum(-1)
    score = apart[..., 0] + 0.5 * apart[..., 1]
    for row in range(3):
        assert torch.equal(chunk.actions[row], chunk.samples[row, score[row].argmin()])
        assert len(chunk.samples[row].unique(dim=0)) == 8


def test_a_row_is_answered_alike_alone_and_among_others() -> None:
    """Candidates of a row come from its own generator."""
    resampling, running = policy(), plan(3, [1.0, 1.0, 1.0, 0.0])
    observation = torch.rand(3, 1, 2)
    together = resampling.continue_chunk({"observation.state": observation}, running, generator=generators(3))
    for row in range(3):
        alone = resampling.continue_chunk(
            {"observation.state": observation[row : row + 1]},
            RunningPlan(
                actions=running.actions[row : row + 1], weights=running.weights[row : row + 1], limit=5.0
            ),
            generator=[torch.Generator().manual_seed(row)],
        )
        assert torch.allclose(alone.actions[0], together.actions[row], atol=1e-5)


def test_it_runs_in_an_evaluation() -> None:
    """The real-time executor offers the plan; the first chunk of an episode is free."""
    results = evaluate_policy(
        policy(), PointMass, range(2), workers=0, executor={"type": "real_time", "n_action_steps": 2}
    )
    assert len(results) == 2
    assert all(r.n_network_calls == 2 + 16 * (r.n_chunks - 1) for r in results)


def test_one_candidate_is_no_choice() -> None:
    """Fewer than two is a mistake."""
    with pytest.raises(ConfigError, match="candidates must be >= 2, got 1"):
        ResampleConfig(candidates=1)
