"""The weight average, against its closed form."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.policy import Policy
from robot_policies.spec import PolicySpec
from robot_policies.training.ema import WeightAverage, ema_decay

FEATURE = Feature(dtype="float32", shape=(2,))
SPEC = PolicySpec(
    observation={"observation.state": FEATURE},
    action=FEATURE,
    n_obs_steps=1,
    horizon=1,
    n_action_steps=1,
    fps=10,
)


class Normed(Policy):
    """A weight, a batch normalisation, an integer and a constant."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.norm: Any = torch.nn.BatchNorm1d(2)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.ones(2))

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_chunk(self, observation, **options):
        raise NotImplementedError


@given(st.integers(0, 10**7), st.floats(0.1, 1.0), st.floats(0.5, 0.99999))
def test_the_decay_is_the_published_formula(n, power, maximum):
    """clip(1 - (1 + n) ** -power, 0, maximum); 0 at the first update."""
    expected = np.clip(1 - (1 + np.float64(n)) ** -power, 0, maximum)
    assert ema_decay(n, power=power, maximum=maximum) == pytest.approx(expected, abs=1e-12)
    assert ema_decay(0, power=power, maximum=maximum) == 0


def test_the_average_is_the_weighted_sum_of_all_weights():
    """After updates with w_0 .. w_n the average is sum_i (1 - d_i) w_i prod_{j > i} d_j."""
    policy = Normed()
    average = WeightAverage(policy, power=0.75, maximum=0.6)
    history = np.random.default_rng(0).normal(size=(12, 3))
    for n, value in enumerate(history):
        policy.weight.data.copy_(torch.tensor(value))
        average.update(n)
    decays = np.array([ema_decay(n, power=0.75, maximum=0.6) for n in range(12)])
    shares = [(1 - decays[i]) * np.prod(decays[i + 1 :]) for i in range(12)]
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(average.policy.state_dict()["weight"].numpy(), shares @ history, rtol=1e-5)


def test_batch_normalisation_and_buffers_are_copied():
    """Running statistics, their counter, their affine parameters and other buffers are those of the learner."""
    policy: Any = Normed()
    average: Any = WeightAverage(policy, power=0.75, maximum=0.999)
    for n in range(5):
        policy.norm(torch.randn(8, 2) * 3 + 1)
        with torch.no_grad():
            policy.norm.weight.add_(0.1)
            policy.scale.add_(1)
        average.update(n)
    for name, value in policy.norm.state_dict().items():
        assert torch.equal(average.policy.norm.state_dict()[name], value), name
    assert average.policy.norm.num_batches_tracked == 5
    assert torch.equal(average.policy.scale, policy.scale)


def test_the_averaged_policy_acts_and_does_not_learn():
    """It is in evaluation mode, without gradients, and the learner is left as it was."""
    policy = Normed().train()
    average = WeightAverage(policy, power=0.75, maximum=0.999)
    assert not average.policy.training
    assert not any(p.requires_grad for p in average.policy.parameters())
    assert policy.training
    assert all(p.requires_grad for p in policy.parameters())
