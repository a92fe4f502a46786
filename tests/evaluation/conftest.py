"""A deterministic policy for the point mass, and a quick way to roll it out."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy, draw_normal
from robot_policies.spec import PolicySpec


class Steering(Policy):
    """Steers to the origin at 0.6 m/s, with noise from the given generators."""

    def __init__(self, spec: PolicySpec, *, noise: float) -> None:
        super().__init__(spec)
        self.noise = noise
        self.batch_sizes: list[int] = []
        self.samplers: list[Mapping[str, Any] | None] = []
        self.spoil_call: int | None = None

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        raise NotImplementedError

    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Tensor] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        size = self.check_observation(observation)
        self.batch_sizes.append(size)
        self.samplers.append(sampler)
        position = observation["observation.state"][:, -1]
        distance = position.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        velocity = -position / distance * torch.minimum(distance * FPS / 4, torch.tensor(0.6))
        shape = (size, self.spec.horizon, 2)
        actions = velocity[:, None].expand(shape) + self.noise * draw_normal(
            shape, generator=generator, like=velocity
        )
        if self.spoil_call == len(self.batch_sizes):
            actions = actions.clone()
            actions[0, 0, 0] = torch.nan
        return ActionChunk(actions=actions, n_network_calls=3)


@pytest.fixture
def spec() -> PolicySpec:
    """Horizons 2/6/4 on the point mass."""
    return PolicySpec(
        observation={"observation.state": POSITION},
        action=VELOCITY,
        n_obs_steps=2,
        horizon=6,
        n_action_steps=4,
        fps=FPS,
    )


@pytest.fixture
def policy(spec: PolicySpec) -> Steering:
    """A policy that mostly succeeds within 20 steps."""
    return Steering(spec, noise=0.3)


@pytest.fixture
def point_mass() -> Any:
    """``point_mass(**options)`` returns a builder of the task that a worker can be sent."""
    return lambda **options: partial(PointMass, **options)
