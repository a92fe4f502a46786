"""Learning rate, clipping and the optimiser's state."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_policies.training.config import TrainerConfig
from robot_policies.training.optimisers import (
    build_optimiser,
    clip_gradients,
    load_optimiser_tensors,
    lr_factor,
    optimiser_tensors,
    set_lr,
)


class TwoGroups(torch.nn.Module):
    """Two parameters of which one is not decayed and has a learning rate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(4))
        self.b = torch.nn.Parameter(torch.ones(2))

    def parameter_groups(self, weight_decay):
        return [
            {"params": [self.a], "weight_decay": weight_decay},
            {"params": [self.b], "weight_decay": 0.0, "lr": 0.5},
        ]


def make_model() -> Any:
    return TwoGroups()


def steps_config(**fields) -> TrainerConfig:
    return TrainerConfig(**{"steps": 100, "warmup_steps": 10, **fields})


def test_warm_up_rises_linearly_and_the_cosine_ends_at_zero():
    """The factor grows by 1/10 per step, is 1 at the end of the warm-up and near 0 at the last step."""
    factors = [lr_factor(steps_config(), step=step, cpu_seconds=0.0) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_warm_up_can_be_a_share_of_the_run():
    """A fraction replaces the number of steps."""
    by_steps, by_fraction = steps_config(), steps_config(warmup_steps=3, warmup_fraction=0.1)
    for step in (0, 4, 9, 10, 50, 99):
        expected = lr_factor(by_steps, step=step, cpu_seconds=0.0)
        assert lr_factor(by_fraction, step=step, cpu_seconds=0.0) == pytest.approx(expected)


def test_a_schedule_by_cpu_time_follows_the_clock():
    """The cosine runs over the share of the budget spent, whatever the step."""
    config = steps_config(schedule_by="cpu_time", time_budget_cpu_minutes=1.0, warmup_fraction=0.1)
    for step in (0, 10**6):
        assert lr_factor(config, step=step, cpu_seconds=3.0) == pytest.approx(0.5)
        assert lr_factor(config, step=step, cpu_seconds=6.0) == pytest.approx(1.0)
        assert lr_factor(config, step=step, cpu_seconds=33.0) == pytest.approx(0.5)
        assert lr_factor(config, step=step, cpu_seconds=61.0) == pytest.approx(0.0, abs=1e-12)


def test_a_schedule_by_cpu_time_may_warm_up_by_steps():
    """Without a fraction the first steps rise as always."""
    config = steps_config(schedule_by="cpu_time", time_budget_cpu_minutes=1.0)
    assert lr_factor(config, step=4, cpu_seconds=0.0) == pytest.approx(0.5)


@given(st.integers(1, 500), st.integers(0, 600), st.integers(0, 499))
def test_the_factor_stays_between_zero_and_one(steps, warmup, step):
    """Also where the warm-up is longer than the run."""
    config = TrainerConfig(steps=steps, warmup_steps=warmup)
    assert 0 <= lr_factor(config, step=min(step, steps - 1), cpu_seconds=0.0) <= 1


def test_groups_keep_their_own_peak():
    """A group's own learning rate is scaled, not replaced."""
    optimiser = build_optimiser(make_model(), TrainerConfig(lr=0.1, weight_decay=0.01))
    assert set_lr(optimiser, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.05, 0.25])
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.01, 0.0]


def test_gradients_are_clipped_to_the_limit_only():
    """The norm before clipping is returned; a small gradient, or no limit, changes nothing."""
    model = make_model()
    parameters = list(model.parameters())
    for limit, expected in ((1.0, 1.0), (20.0, 10.0), (None, 10.0)):
        model.a.grad, model.b.grad = torch.full((4,), 3.0), torch.full((2,), math.sqrt(32))
        assert clip_gradients(parameters, limit) == pytest.approx(10.0)
        assert clip_gradients(parameters, None) == pytest.approx(expected, rel=1e-5)


def test_the_optimisers_state_survives_as_plain_tensors():
    """Saved and loaded into a fresh optimiser, the next step is the same to the bit."""
    first, second = make_model(), make_model()
    config = TrainerConfig(lr=0.1)
    optimiser = build_optimiser(first, config)

    def step(model, optimiser):
        for p in model.parameters():
            p.grad = torch.sin(p.detach() * 3)
        optimiser.step()

    for _ in range(3):
        step(first, optimiser)
    second.load_state_dict(first.state_dict())
    other = build_optimiser(second, config)
    tensors = optimiser_tensors(optimiser)
    assert sorted(tensors) == [f"{i}.{name}" for i in (0, 1) for name in ("exp_avg", "exp_avg_sq", "step")]
    load_optimiser_tensors(other, {name: value.clone() for name, value in tensors.items()})
    step(first, optimiser)
    step(second, other)
    assert torch.equal(first.a, second.a)
    assert torch.equal(first.b, second.b)
