"""The observation encoder: what it adds in training."""

from __future__ import annotations

import pytest
import torch

from robot_datasets.features import STATE, Feature
from robot_policies.configuration import ConfigError
from robot_policies.networks.observation_encoder import ObservationEncoder
from robot_policies.normalizer import Normalizer
from robot_policies.spec import PolicySpec


def encode(noise: float, *, training: bool) -> torch.Tensor:
    """Encode 4096 windows of a constant state of two components, normalised as it is."""
    state = Feature(dtype="float32", shape=(2,))
    spec = PolicySpec(
        observation={STATE: state}, action=state, n_obs_steps=2, horizon=4, n_action_steps=2, fps=10.0
    )
    encoder = ObservationEncoder(spec, None, noise=noise).train(training)
    normalizer = Normalizer({STATE: 2}, {"default": "identity"}, None)
    torch.manual_seed(0)
    return encoder({STATE: torch.full((4096, 2, 2), 0.5)}, normalizer)


def test_noise_has_the_configured_width_in_training() -> None:
    """Every component of every step is disturbed by itself."""
    encoded = encode(0.1, training=True)
    assert encoded.mean().item() == pytest.approx(0.5, abs=5e-3)
    assert encoded.std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.corrcoef(encoded.flatten(1).T).triu(1).abs().max() < 0.1


def test_no_noise_outside_training() -> None:
    """A policy that acts sees what was observed."""
    assert torch.equal(encode(0.1, training=False), torch.full((4096, 2, 2), 0.5))


def test_negative_noise_is_refused() -> None:
    """A standard deviation is not negative; the message names the option."""
    with pytest.raises(ConfigError, match=r"policy\.observation_noise is -1"):
        encode(-1.0, training=True)
