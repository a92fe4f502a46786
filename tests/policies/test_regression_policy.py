"""The regression controls: behavior cloning and MIP."""

from __future__ import annotations

import pytest
import torch

from robot_policies.configuration import ConfigError
from robot_policies.policies import build_policy
from robot_policies.testing import PolicyTests, example_batch, example_spec, example_stats, observation_of

MLP = {"type": "mlp", "width": 48, "n_blocks": 2}


class TestBehaviorCloning(PolicyTests):
    """One regression step."""

    def policy_config(self) -> dict:
        """A small MLP."""
        return {"type": "regression", "network": MLP}


class TestMip(PolicyTests):
    """Two regression steps."""

    def policy_config(self) -> dict:
        """A small UNet."""
        network = {"type": "unet1d", "down_dims": [16, 32], "kernel_size": 3, "step_embed_dim": 16}
        return {"type": "regression", "network": network, "refine_at": 0.9}


@pytest.mark.parametrize(("refine_at", "calls"), [(None, 1), (0.9, 2)])
def test_network_calls_are_counted(refine_at: float | None, calls: int) -> None:
    """Behavior cloning costs one network call, MIP two."""
    spec = example_spec()
    config = {"type": "regression", "network": MLP, "refine_at": refine_at}
    policy = build_policy(config, spec, example_stats(spec)).eval()
    assert policy.predict_chunk(observation_of(example_batch(spec))).n_network_calls == calls


def test_mip_logs_both_terms() -> None:
    """The loss is the sum of its named terms."""
    spec = example_spec()
    policy = build_policy({"type": "regression", "network": MLP, "refine_at": 0.9}, spec, example_stats(spec))
    output = policy.compute_loss(example_batch(spec))
    torch.testing.assert_close(output.loss.detach(), output.terms["first"] + output.terms["second"])


def test_z_scored_actions_are_not_clamped() -> None:
    """Only min-max normalised actions are bounded to the training range."""
    spec = example_spec()
    for mode, bounded in (("min_max", True), ("z_score", False)):
        config = {"type": "regression", "network": MLP, "normalization": {"action": mode}}
        policy = build_policy(config, spec, example_stats(spec)).eval()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(30)
        actions = policy.predict_chunk(observation_of(example_batch(spec))).actions
        assert bool(actions.max() <= 30.001) == bounded


def test_refine_at_outside_its_range_is_an_error() -> None:
    """T must lie strictly between 0 and 1."""
    spec = example_spec()
    with pytest.raises(ConfigError, match="refine_at must be in"):
        build_policy({"type": "regression", "network": MLP, "refine_at": 1.0}, spec, example_stats(spec))
