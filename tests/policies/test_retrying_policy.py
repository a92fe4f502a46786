"""Energy-triggered retries: which rows, how often, and which chunk is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.policies.retrying import RetryConfig, RetryingPolicy
from robot_policies.policy import ActionChunk, Policy, RunningPlan, draw_normal
from robot_policies.spec import PolicySpec

SPEC = PolicySpec(
    observation={"observation.state": POSITION}, action=VELOCITY,
    n_obs_steps=1, horizon=4, n_action_steps=4, fps=FPS,
)  # fmt: skip


class Gambler(Policy):
    """Its chunk is one normal number, and so is its energy."""

    def __init__(self, *, tells: bool = True) -> None:
        super().__init__(SPEC)
        self.tells = tells
        self.asked: list[int] = []

    def compute_loss(self, batch: Any) -> Any:
        raise NotImplementedError

    def predict_chunk(
        self, observation: Any, *, goal: Any = None, generator: Any = None, sampler: Any = None
    ) -> ActionChunk:
        size = self.check_observation(observation)
        self.asked.append(size)
        draw = draw_normal((size, 1, 1), generator=generator, like=torch.zeros(()))
        energy = draw.flatten() if self.tells else None
        return ActionChunk(actions=draw.expand(size, 4, 2), n_network_calls=2, energy=energy)

    def continue_chunk(self, observation: Any, plan: RunningPlan, **options: Any) -> ActionChunk:
        assert len(plan.actions) == len(observation["observation.state"])
        return self.predict_chunk(observation, **options)


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def observation(n: int) -> dict[str, torch.Tensor]:
    return {"observation.state": torch.zeros(n, 1, 2)}


@pytest.mark.parametrize("continues", [False, True])
def test_only_rows_above_the_threshold_are_drawn_again_and_the_best_is_kept(continues: bool) -> None:
    """The chunk that is returned has the lowest energy of its draws, and is the one that belongs to it."""
    inner = Gambler()
    policy = RetryingPolicy(inner, RetryConfig(energy_above=0.0, attempts=2))
    options: dict[str, Any] = {"generator": generators(40)}
    if continues:
        plan = RunningPlan(actions=torch.zeros(40, 4, 2), weights=torch.zeros(40, 4), limit=5.0)
        chunk = policy.continue_chunk(observation(40), plan, **options)
    else:
        chunk = policy.predict_chunk(observation(40), goal={"task": ["go"] * 40}, **options)
    draws = np.array([[float(torch.randn(1, 1, generator=g)) for _ in range(3)] for g in generators(40)])
    expected = []
    for row in draws:
        best = row[0]
        for again in row[1:]:
            best = min(best, again) if best > 0 else best
        expected.append(best)
    assert chunk.energy is not None
    np.testing.assert_allclose(chunk.energy, expected, atol=1e-6)
    torch.testing.assert_close(chunk.actions, chunk.energy[:, None, None].expand(40, 4, 2))
    assert inner.asked == [40, (draws[:, 0] > 0).sum(), ((draws[:, :2] > 0).all(axis=1)).sum()]
    assert chunk.n_network_calls == 6


def test_certain_chunks_are_not_drawn_again() -> None:
    """Below the threshold, the policy is asked once and nothing changes."""
    inner = Gambler()
    chunk = RetryingPolicy(inner, RetryConfig(energy_above=100.0)).predict_chunk(observation(5))
    assert inner.asked == [5]
    assert chunk.n_network_calls == 2


def test_a_policy_without_energy_cannot_be_retried() -> None:
    """The option that is wrong is named."""
    with pytest.raises(ConfigError, match="leave retry out"):
        RetryingPolicy(Gambler(tells=False), RetryConfig(energy_above=0.0)).predict_chunk(observation(1))
    with pytest.raises(ConfigError, match="attempts must be >= 1"):
        RetryConfig(energy_above=0.0, attempts=0)


def test_evaluations_record_the_energy_of_every_chunk() -> None:
    """One number per chunk, lower with retries; none for policies without."""
    plain = evaluate_policy(Gambler(), PointMass, [1, 2], workers=0)
    retried = evaluate_policy(
        RetryingPolicy(Gambler(), RetryConfig(energy_above=0.0, attempts=5)), PointMass, [1, 2], workers=0
    )
    for before, after in zip(plain, retried, strict=True):
        assert before.energies.shape == (before.n_chunks,)
        assert after.energies.max() < max(before.energies.max(), 0.5)
    assert evaluate_policy(Gambler(tells=False), PointMass, [1], workers=0)[0].energies.size == 0
